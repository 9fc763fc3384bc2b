"""When matrices may stop training: the table `[freezing]` of a LoRA TOML, without torch.

Source: Liu et al. 2024 (AFLoRA), arXiv 2403.13269, section 3 and the published code.
Differs: the code's shares at both ends, window and smoothing are keys here; a step whose share leaves nothing
to freeze is passed over, where the code stops with an error; warm-ups that outlast the run are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from configs.runtime.faults import InputFault, unknown
from configs.schema.number_values import Real, Whole
from configs.toml.binding import bind

Positive = Annotated[float, Real(0)]
Share = Annotated[float, Real(0, 1)]


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Args:
        steps: T, its optimiser steps.
        epochs: its epochs; one of them counts as floor(T / epochs) steps.
    """

    steps: int
    epochs: int

    def of(self, epochs: float | None, ratio: float | None) -> float:
        """Return the steps of a stretch given in epochs, or as a share of the run."""
        if epochs is not None:
            return epochs * (self.steps // self.epochs)
        return (ratio or 0.0) * self.steps


@dataclass(frozen=True)
class ByScore:
    """`rule = "score"`: matrices stop in the order of their scores, as a schedule of the share allows."""

    by_score = True
    rule: Literal["score"] = "score"
    schedule: Literal["cubic", "quadratic"] = "cubic"
    """How the share falls between the warm-ups: (1 - x)^3, or 1 - x^2."""
    initial_warmup_epochs: Positive | None = None
    """t_i in epochs: until then everything trains."""
    initial_warmup_ratio: Share | None = None
    """t_i as a share of the run."""
    final_warmup_epochs: Positive | None = None
    """t_f in epochs: over the last t_f steps nothing but vectors trains."""
    final_warmup_ratio: Share | None = None
    """t_f as a share of the run."""
    initial_share: Share = 1.0
    """The share that trains until t_i."""
    final_share: Share = 0.0
    """The share that may train over the last t_f steps."""
    window_steps: Annotated[int, Whole(1)] = 10
    """Steps of a window: averages move, and decisions fall, once a window."""
    sensitivity_decay: Share = 0.85
    """What the smoothed sensitivity keeps of itself from window to window."""
    uncertainty_decay: Share = 0.95
    """The same of the smoothed distance from it."""
    pool: Literal["remaining", "initial"] = "remaining"
    """Whose share: of the elements that still train, or of all that began to, the frozen ones below."""

    def __post_init__(self) -> None:
        """Refuse warm-ups that are given twice or not at all, and a share that rises."""
        for name in ("initial_warmup", "final_warmup"):
            given = [getattr(self, f"{name}_{unit}") is not None for unit in ("epochs", "ratio")]
            if sum(given) != 1:
                raise ValueError(f"{name}_epochs, {name}_ratio: one of them is required, and one alone")
        if self.final_share > self.initial_share:
            raise ValueError(f"final_share: is above initial_share, {self.initial_share:g}")

    def limits(self, length: Length) -> tuple[float, float]:
        """Return t_i and T - t_f."""
        start = length.of(self.initial_warmup_epochs, self.initial_warmup_ratio)
        return start, length.steps - length.of(self.final_warmup_epochs, self.final_warmup_ratio)

    def share(self, step: int, length: Length) -> float:
        """Return r(t), the share that may stay trainable at optimiser step t, counted from 0."""
        start, end = self.limits(length)
        if step <= start:
            return self.initial_share
        if step > end:
            return self.final_share
        x = (step - start) / (end - start)
        left = (1 - x) ** 3 if self.schedule == "cubic" else 1 - x**2
        return self.final_share + (self.initial_share - self.final_share) * left

    def decides(self, step: int, length: Length) -> bool:
        """Tell whether a decision falls at a step: each window between the warm-ups, then every step."""
        start, end = self.limits(length)
        return step > start and (step > end or step % self.window_steps == 0)

    def check(self, epochs: int) -> None:
        """Refuse warm-ups that do not fit a run of so many epochs.

        Raises:
            ValueError: with the words after the table's name.
        """
        whole = Length(epochs, epochs)
        start, end = self.limits(whole)
        if start > end:
            both = f"{start + epochs - end:g} epochs"
            raise ValueError(f"initial_warmup and final_warmup make {both}, --max-epochs is {epochs}")

    def words(self) -> str:
        """Return the rule for people."""
        ends = [
            f"{epochs:g} epochs" if epochs is not None else f"{ratio:g} of the run"
            for epochs, ratio in (
                (self.initial_warmup_epochs, self.initial_warmup_ratio),
                (self.final_warmup_epochs, self.final_warmup_ratio),
            )
        ]
        return f"by score, {self.schedule}, all train for {ends[0]}, vectors alone for the last {ends[1]}"


@dataclass(frozen=True)
class ByEpoch:
    """`rule = "epoch"`: all matrices stop at once."""

    by_score = False
    rule: Literal["epoch"] = "epoch"
    after_epochs: Annotated[int, Whole(1)] | None = None
    """Epochs after which they stop."""
    after_ratio: Annotated[float, Real(0, 1, high_open=True)] | None = None
    """Share of the run after which they stop."""

    def __post_init__(self) -> None:
        """Refuse a moment that is given twice or not at all."""
        if (self.after_epochs is None) == (self.after_ratio is None):
            raise ValueError("after_epochs, after_ratio: one of them is required, and one alone")

    def share(self, step: int, length: Length) -> float:
        """Return 1 up to the moment, 0 from then on."""
        return 0.0 if step >= length.of(self.after_epochs, self.after_ratio) else 1.0

    def decides(self, step: int, length: Length) -> bool:
        """Tell whether the moment has come."""
        return self.share(step, length) == 0.0

    def check(self, epochs: int) -> None:
        """Refuse a moment behind the run's end.

        Raises:
            ValueError: with the words after the table's name.
        """
        if self.after_epochs is not None and self.after_epochs > epochs:
            raise ValueError(f"after_epochs: {self.after_epochs}, --max-epochs is {epochs}")

    def words(self) -> str:
        """Return the rule for people."""
        if self.after_epochs is not None:
            return f"all matrices after epoch {self.after_epochs}"
        return f"all matrices after {self.after_ratio:g} of the run"


Freezing = ByScore | ByEpoch
_RULES = {"score": ByScore, "epoch": ByEpoch}


def read_freezing(table: Any, where: str) -> Freezing:
    """Bind the table.

    Args:
        table: what the file has under that name.
        where: what each refusal begins with.

    Raises:
        InputFault: a line for each fault.
    """
    if not isinstance(table, Mapping):
        raise InputFault(f"{where}: must be a table")
    rule = table.get("rule", "score")
    if rule not in _RULES:
        raise InputFault(f"{where}: rule: {unknown('rule', str(rule), tuple(_RULES))}")
    return bind(_RULES[rule], table, where)
