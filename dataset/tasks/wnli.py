"""WNLI: does the sentence with the pronoun resolved follow? Dev is adversarial to train."""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="wnli",
    folder="WNLI",
    segments={"sentence1": "sentence1", "sentence2": "sentence2"},
    label_column="label",
    labels=("not_entailment", "entailment"),
    file_labels=("0", "1"),
    metrics=("accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
