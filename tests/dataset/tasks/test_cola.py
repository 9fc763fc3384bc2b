"""CoLA has no header in train and dev."""

ROWS = [
    {"sentence": "The cat sat.", "label": 1, "idx": 0},
    {"sentence": 'Sat "cat the. ', "label": 0, "idx": 1},
]
LABELLED = 'a01\t1\t\tThe cat sat.\na02\t0\t*\tSat "cat the. \n'
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": "index\tsentence\n0\tWho?\n"}
