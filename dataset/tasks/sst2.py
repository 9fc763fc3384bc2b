"""SST-2: is the film review's phrase positive? The space that ends most phrases belongs to them."""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="sst2",
    folder="SST-2",
    segments={"sentence": "sentence"},
    label_column="label",
    labels=("negative", "positive"),
    file_labels=("0", "1"),
    metrics=("accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
