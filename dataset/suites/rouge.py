"""ROUGE F-measures of one summary: the overlap of its words with those of the reference.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", sections 2 and 3.1, with beta = 1.
With n-gram counts c (candidate) and g (gold), hits = sum of min(c, g): P = hits / sum c, R = hits / sum g,
F = 2 P R / (P + R). rougeL: hits = length of the longest common subsequence of words, over their numbers.
Differs: one gold summary, no stemmer, no removal of stop words. Words are runs of a-z and 0-9 of the text in
lower case, as in the implementations of the published tables; a text in another script has none and scores 0.
"""

from torchmetrics.functional.text.rouge import rouge_score

_NAMES = ("rouge1", "rouge2", "rougeL")


def score_rouge(text: str, gold: str) -> dict[str, float]:
    """Return the F-measures by name, 0 to 1; a text with too few words for an n-gram scores 0."""
    found = rouge_score(text, gold, use_stemmer=False, rouge_keys=_NAMES)
    return {name: float(found[f"{name}_fmeasure"]) for name in _NAMES}


SCORE = score_rouge
