"""What the network's side must know of a data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskFacts:
    """What a network must know of its data set.

    Args:
        name: the word of `--dataset`.
        objective: classification, regression or language_modeling.
        metrics: names reported on evaluation sets.
        selection: name of the metric that chooses the best step.
        maximise: its direction.
        classes: class names in the order of their ids.
        template: the prompt template, or None, also where the parts of a mixture have several.
        templates: part of a mixture -> its template.
        max_new_tokens: cut-off of generated answers; None when the task is not scored by generation.
        score: (answer, gold) -> {metric: 0.0 to 1.0}.
        golds: gold answers of the test set by row.
        prompts: prompts of the test set by row.
        table: the `[data]` table without its files.
    """

    name: str
    objective: str
    metrics: Sequence[str]
    selection: str
    maximise: bool
    classes: Sequence[str]
    template: str | None = None
    templates: Mapping[str, str | None] = field(default_factory=dict)
    max_new_tokens: int | None = None
    score: Callable[[str, str], dict[str, float]] | None = None
    golds: Sequence[str] = ()
    prompts: Sequence[str] = ()
    table: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Any, parts: Sequence[Any], splits: Mapping[str, Any]) -> "TaskFacts":
        """Return what the network's side must know of a task.

        Args:
            task: the data set, or what the parts of a mixture have in common.
            parts: the data sets of the run.
            splits: split name -> its rows.
        """
        generation = task.generation
        tests = splits["test"].examples if "test" in splits else ()
        return cls(
            name=task.name,
            objective=task.objective,
            metrics=task.metrics,
            selection=task.selection.name,
            maximise=task.selection.maximise,
            classes=task.labels,
            template=task.template,
            templates={part.name: part.task.template for part in parts if part.name and part.task.template},
            max_new_tokens=None if generation is None else generation.max_new_tokens,
            score=None if generation is None else generation.score,
            golds=[example.gold or "" for example in tests],
            prompts=[example.texts[0] for example in tests],
            table=parts[0].table,
        )
