"""BoolQ: does the passage answer the question with yes?"""

from dataset.rows.fields import text_field
from dataset.suites.superglue import SuperGlueSet, superglue_task
from dataset.task import NoOptions, Row, Task, TaskKind


def _texts(row: Row) -> tuple[str, str]:
    return text_field(row, "question"), text_field(row, "passage")


_FACTS = SuperGlueSet(
    name="boolq",
    folder="BoolQ",
    texts=_texts,
    labels=("false", "true"),
    file_labels=(False, True),
    metrics=("accuracy",),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return superglue_task(_FACTS)


TASK = TaskKind(build)
