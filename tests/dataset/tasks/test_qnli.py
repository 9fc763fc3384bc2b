"""QNLI writes its labels as words."""

ROWS = [
    {"question": "Who came?", "sentence": "Tom came.", "label": 0},
    {"question": "When?", "sentence": "It is red.", "label": 1},
]
LABELLED = (
    "index\tquestion\tsentence\tlabel\n"
    "0\tWho came?\tTom came.\tentailment\n"
    "1\tWhen?\tIt is red.\tnot_entailment\n"
)
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": "index\tquestion\tsentence\n0\tWhy?\tSo.\n"}
