"""MRPC: do two news sentences mean the same? Its quote characters are text."""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="mrpc",
    folder="MRPC",
    segments={"sentence1": "#1 String", "sentence2": "#2 String"},
    label_column="Quality",
    labels=("not_equivalent", "equivalent"),
    file_labels=("0", "1"),
    metrics=("f1", "accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
