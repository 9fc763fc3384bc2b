"""RTE: does the second sentence follow from the first?"""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="rte",
    folder="RTE",
    segments={"sentence1": "sentence1", "sentence2": "sentence2"},
    label_column="label",
    labels=("entailment", "not_entailment"),
    file_labels=("entailment", "not_entailment"),
    metrics=("accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
