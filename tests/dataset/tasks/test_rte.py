"""RTE writes its labels as words."""

ROWS = [
    {"sentence1": "Tom slept.", "sentence2": "Tom slept.", "label": 0},
    {"sentence1": "Tom slept.", "sentence2": "Tom ran.", "label": 1},
]
LABELLED = (
    "index\tsentence1\tsentence2\tlabel\n"
    "0\tTom slept.\tTom slept.\tentailment\n"
    "1\tTom slept.\tTom ran.\tnot_entailment\n"
)
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n"}
