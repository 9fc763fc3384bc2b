"""Floor 6: k-means and elbow, the number of experts a corpus needs; imports `dataset.mixture` and below."""
