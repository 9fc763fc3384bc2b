"""What a run must know about its task; `dataset` describes it, which `model` may not import."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Score = Callable[[str, str], dict[str, float]]
"""(generated text, gold) -> {metric: 0.0 to 1.0}."""


@dataclass(frozen=True)
class GenerationFacts:
    """How a task is scored by generated text.

    Args:
        max_new_tokens: tokens of an answer at most.
        score: compares an answer with its gold answer.
        golds: gold answers of the test set by row.
        prompts: prompts of the test set by row.
    """

    max_new_tokens: int
    score: Score
    golds: Sequence[str]
    prompts: Sequence[str]


@dataclass(frozen=True)
class TaskFacts:
    """What a run must know about its task.

    Args:
        name: the value of `--dataset`.
        objective: classification, regression or language_modeling.
        metrics: names of the metrics reported on evaluation sets.
        selection: name of the metric that chooses the best step.
        maximise: whether a higher value of it is better.
        classes: class names in the order of their ids.
        template: the prompt template; None without one, and where the parts of a mixture have several.
        templates: part of a mixture -> its template.
        generation: set when the test set is scored by generated text.
        table: the `[data]` table without its files.
        hubs: the repositories of the hub that hold the data sets.
    """

    name: str
    objective: str
    metrics: Sequence[str]
    selection: str
    maximise: bool
    classes: Sequence[str]
    template: str | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    generation: GenerationFacts | None = None
    table: Mapping[str, Any] = field(default_factory=dict)
    hubs: Sequence[str] = ()

    @classmethod
    def of(cls, task: "Task", parts: Sequence["Part"], splits: Mapping[str, "Split"]) -> "TaskFacts":
        """Return what a run must know about a task.

        Args:
            task: the data set, or what the parts of a mixture have in common.
            parts: the data sets of the run.
            splits: split name -> its examples.
        """
        templates = {part.name: part.task.template for part in parts if part.name}
        return cls(
            name=task.name,
            objective=task.objective,
            metrics=task.metrics,
            selection=task.selection.name,
            maximise=task.selection.maximise,
            classes=task.labels,
            template=task.template,
            templates={name: template for name, template in templates.items() if template},
            generation=_generation(task, splits),
            table=parts[0].table,
            hubs=sorted({part.task.hub[0] for part in parts if part.task.hub is not None}),
        )


def _generation(task: "Task", splits: Mapping[str, "Split"]) -> GenerationFacts | None:
    if task.generation is None:
        return None
    examples = splits["test"].examples if "test" in splits else ()
    return GenerationFacts(
        task.generation.max_new_tokens,
        task.generation.score,
        golds=[example.gold or "" for example in examples],
        prompts=[example.texts[0] for example in examples],
    )


class Selection(Protocol):
    """The metric that chooses the best step."""

    @property
    def name(self) -> str:
        """Its name, without the split."""
        ...

    @property
    def maximise(self) -> bool:
        """Whether a higher value is better."""
        ...


class Generation(Protocol):
    """How a task is scored by generated text."""

    @property
    def max_new_tokens(self) -> int:
        """Tokens of an answer at most."""
        ...

    @property
    def score(self) -> Score:
        """Compares an answer with its gold answer."""
        ...


class Task(Protocol):
    """What is read of `dataset.task.Task`; each property is described there."""

    @property
    def name(self) -> str:
        """The value of `--dataset`."""
        ...

    @property
    def objective(self) -> str:
        """Which loss and head it needs."""
        ...

    @property
    def metrics(self) -> Sequence[str]:
        """Names of the reported metrics."""
        ...

    @property
    def selection(self) -> Selection:
        """The metric that chooses the best step."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Class names in the order of their ids."""
        ...

    @property
    def generation(self) -> Generation | None:
        """Set when the test set is scored by generated text."""
        ...

    @property
    def template(self) -> str | None:
        """The prompt template."""
        ...

    @property
    def hub(self) -> tuple[str, str | None] | None:
        """Repository and configuration on the hub."""
        ...


class Part(Protocol):
    """What is read of `dataset.mixture.parts.Part`, a data set of a run."""

    @property
    def task(self) -> Task:
        """The data set."""
        ...

    @property
    def name(self) -> str:
        """Name of the part of a mixture; empty for the single data set of a run."""
        ...

    @property
    def table(self) -> Mapping[str, Any]:
        """What an adapter's record keeps of `[data]`."""
        ...


class Example(Protocol):
    """What is read of `dataset.task.Example`."""

    @property
    def texts(self) -> Sequence[str]:
        """The prompt comes first."""
        ...

    @property
    def gold(self) -> str | None:
        """What a generated answer is compared with."""
        ...


class Split(Protocol):
    """What is read of the examples of a split."""

    @property
    def examples(self) -> Sequence[Example]:
        """Its examples, in the file's order."""
        ...
