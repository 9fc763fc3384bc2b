"""QQP: are two questions duplicates?

Differs: the official training file holds a few rows cut short, which common loaders pass over in silence;
here they are refused like any other bad row, so `--max-bad-rows` has to let them go.
"""

from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Task, TaskKind

_FACTS = GlueSet(
    name="qqp",
    folder="QQP",
    segments={"question1": "question1", "question2": "question2"},
    label_column="is_duplicate",
    labels=("not_duplicate", "duplicate"),
    file_labels=("0", "1"),
    metrics=("accuracy", "f1", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return glue_task(_FACTS)


TASK = TaskKind(build)
