"""CB: is the hypothesis a commitment of the premise's author?"""

from dataset.rows.fields import text_field
from dataset.suites.superglue import SuperGlueSet, superglue_task
from dataset.task import NoOptions, Row, Task, TaskKind


def _texts(row: Row) -> tuple[str, str]:
    return text_field(row, "premise"), text_field(row, "hypothesis")


_FACTS = SuperGlueSet(
    name="cb",
    folder="CB",
    texts=_texts,
    labels=("entailment", "contradiction", "neutral"),
    file_labels=("entailment", "contradiction", "neutral"),
    metrics=("accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return superglue_task(_FACTS)


TASK = TaskKind(build)
