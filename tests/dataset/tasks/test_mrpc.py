"""MRPC begins with a byte-order mark and has unpaired quotes."""

ROWS = [
    {"sentence1": 'He said " no .', "sentence2": "He said no .", "label": 1},
    {"sentence1": "NA", "sentence2": "It rained .", "label": 0},
]
HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
LABELLED = f'{HEADER}1\t10\t11\tHe said " no .\tHe said no .\n0\t12\t13\tNA\tIt rained .\n'
TEST = "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tA .\tB .\n"
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": TEST}
