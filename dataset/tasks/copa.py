"""COPA: which of two sentences is the cause, or the effect, of the premise?

The pair that is classified: the premise with the question written out, and both choices with their numbers,
so that one forward pass sees all three sentences. The class is the number of the right choice.
"""

from dataset.rows.fields import printable, text_field
from dataset.suites.superglue import SuperGlueSet, superglue_task
from dataset.task import NoOptions, Row, RowFault, Task, TaskKind

_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def _texts(row: Row) -> tuple[str, str]:
    asked = text_field(row, "question")
    if asked not in _QUESTIONS:
        raise RowFault(f"field 'question' must be cause or effect, got '{printable(asked)}'")
    first = f"{text_field(row, 'premise')} {_QUESTIONS[asked]}"
    return first, f"1: {text_field(row, 'choice1')} 2: {text_field(row, 'choice2')}"


_FACTS = SuperGlueSet(
    name="copa",
    folder="COPA",
    texts=_texts,
    labels=("choice1", "choice2"),
    file_labels=(0, 1),
    metrics=("accuracy",),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    return superglue_task(_FACTS)


TASK = TaskKind(build)
