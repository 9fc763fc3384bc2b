"""A report holds the options that its method uses."""

from dataset.clustering.report import Cluster, ClusterOptions, ClusterReport, Point


def test_a_report_holds_the_options_that_its_method_uses():
    clusters = [Cluster(3, 0.75, ["pens"], {"a": 3}), Cluster(1, 0.25, ["rain"])]
    found = ClusterReport(2, ClusterOptions(kmax=3), 5, 4, 9, clusters, [Point(1, 2.0, 0.0)])
    assert found.table() == {
        "chosen": 2,
        "method": "kmeans",
        "kmax": 3,
        "max_texts": 20_000,
        "seed": 0,
        "texts": 5,
        "clustered": 4,
        "vocabulary": 9,
        "curve": [{"k": 1, "error": 2.0, "distance": 0.0}],
        "clusters": [
            {"size": 3, "share": 0.75, "terms": ["pens"], "parts": {"a": 3}},
            {"size": 1, "share": 0.25, "terms": ["rain"]},
        ],
    }
    density = ClusterReport(1, ClusterOptions("dbscan"), 5, 4, 9, clusters, noise=2).table()
    assert {"eps", "min_samples", "noise"} <= set(density)
    assert not {"kmax", "curve"} & set(density)
