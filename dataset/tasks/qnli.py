"""QNLI: does the sentence answer the question?"""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="qnli",
    folder="QNLI",
    segments={"question": "question", "sentence": "sentence"},
    label_column="label",
    labels=("entailment", "not_entailment"),
    file_labels=("entailment", "not_entailment"),
    metrics=("accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
