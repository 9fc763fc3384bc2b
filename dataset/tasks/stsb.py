"""STS-B: how similar are two sentences, from 0 to 5?"""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="stsb",
    folder="STS-B",
    segments={"sentence1": "sentence1", "sentence2": "sentence2"},
    label_column="score",
    labels=(),
    file_labels=(),
    metrics=("pearson", "spearman"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
