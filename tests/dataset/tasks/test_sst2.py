"""SST-2 keeps the space at the end of a phrase."""

ROWS = [{"sentence": "a fine film ", "label": 1}, {"sentence": "null", "label": 0}]
LABELLED = "sentence\tlabel\na fine film \t1\nnull\t0\n"
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": "index\tsentence\n0\tdull .\n"}
