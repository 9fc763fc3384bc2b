"""MNLI: entailment, neutral or contradiction; matched and mismatched genres are evaluated apart."""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_LABELS = ("entailment", "neutral", "contradiction")
_FACTS = GlueSet(
    name="mnli",
    folder="MNLI",
    segments={"premise": "sentence1", "hypothesis": "sentence2"},
    label_column="gold_label",
    labels=_LABELS,
    file_labels=_LABELS,
    metrics=("accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task; `validation` is the matched set."""
    splits = {
        "train": _FACTS.split("train.tsv", "train"),
        "validation": _FACTS.split("dev_matched.tsv", "validation_matched"),
        "validation_mismatched": _FACTS.split("dev_mismatched.tsv", "validation_mismatched"),
        "test": _FACTS.unlabelled("test_matched.tsv", "test_matched"),
        "test_mismatched": _FACTS.unlabelled("test_mismatched.tsv", "test_mismatched"),
    }
    return glue_task(_FACTS, splits)


TASK = TaskKind(build)
