"""WNLI writes its labels as digits."""

ROWS = [
    {"sentence1": "The drain is clogged. It is dirty.", "sentence2": "The drain is dirty.", "label": 1},
    {"sentence1": "Jane knocked, but she hid.", "sentence2": "Susan knocked.", "label": 0},
]
LABELLED = (
    "index\tsentence1\tsentence2\tlabel\n"
    "0\tThe drain is clogged. It is dirty.\tThe drain is dirty.\t1\n"
    "1\tJane knocked, but she hid.\tSusan knocked.\t0\n"
)
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n"}
