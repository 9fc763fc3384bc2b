"""MNLI has two evaluation sets and two test sets."""

from dataset.rows.gather import needed_splits
from dataset.tasks.mnli import TASK

ROWS = [
    {"premise": "Tom slept.", "hypothesis": "Tom slept.", "label": 0},
    {"premise": "Tom slept.", "hypothesis": "It was night.", "label": 1},
    {"premise": "Tom slept.", "hypothesis": "Tom ran.", "label": 2},
]
BEFORE = (
    "index\tpromptID\tpairID\tgenre\t"
    "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
)
WORDS = ("entailment", "neutral", "contradiction")
FILL = "\t".join("0123456")


def labelled(annotators):
    header = "\t".join(
        [BEFORE, "sentence1", "sentence2", *(f"label{i + 1}" for i in range(annotators)), "gold_label"]
    )
    lines = [
        "\t".join(
            [FILL, "p", row["premise"], row["hypothesis"], *["neutral"] * annotators, WORDS[row["label"]]]
        )
        for row in ROWS
    ]
    return "\n".join([header, *lines]) + "\n"


TEST = f"{BEFORE}\tsentence1\tsentence2\n{FILL}\tp\tA.\tB.\n"
FILES = {
    "train.tsv": labelled(1),
    "dev_matched.tsv": labelled(5),
    "dev_mismatched.tsv": labelled(5),
    "test_matched.tsv": TEST,
    "test_mismatched.tsv": TEST,
}


def test_both_evaluation_sets_are_required():
    task = TASK.build(TASK.options())
    assert needed_splits(task, "train").required == ("train", "validation", "validation_mismatched")
    assert needed_splits(task, "test", predict=True).required == (
        "validation",
        "validation_mismatched",
        "test",
        "test_mismatched",
    )
