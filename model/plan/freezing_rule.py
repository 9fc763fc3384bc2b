"""When matrices are frozen: the table `[freezing]` of a LoRA TOML and its schedules; imports no torch.

Source: Liu et al. 2024 (AFLoRA), arXiv 2403.13269, section 3 and the published code.
Differs: the first and last share, the window and the smoothing factors, constants of the code, are keys here.
A step with nothing to freeze is skipped, where the code raises an error. Warm-ups longer than the run are
refused.
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
class RunLength:
    """The length of a run.

    Args:
        steps: T, its number of optimiser steps.
        epochs: its number of epochs; one epoch counts as floor(T / epochs) steps.
    """

    steps: int
    epochs: int

    def in_steps(self, epochs: float | None, ratio: float | None) -> float:
        """Return the optimiser steps of a period given in epochs or as a fraction of the run."""
        if epochs is not None:
            return epochs * (self.steps // self.epochs)
        return (ratio or 0.0) * self.steps


@dataclass(frozen=True)
class ByScore:
    """`rule = "score"`: matrices are frozen in the order of their scores, as many as a schedule asks for."""

    by_score = True
    rule: Literal["score"] = "score"
    schedule: Literal["cubic", "quadratic"] = "cubic"
    """How the share falls between the warm-ups, for x from 0 to 1: (1 - x)^3, or 1 - x^2."""
    initial_warmup_epochs: Positive | None = None
    """t_i in epochs: everything is trained until then."""
    initial_warmup_ratio: Share | None = None
    """t_i as a fraction of the run."""
    final_warmup_epochs: Positive | None = None
    """t_f in epochs: in the last t_f steps only vectors are trained."""
    final_warmup_ratio: Share | None = None
    """t_f as a fraction of the run."""
    initial_share: Share = 1.0
    """The trainable share until t_i."""
    final_share: Share = 0.0
    """The trainable share in the last t_f steps."""
    window_steps: Annotated[int, Whole(1)] = 10
    """Steps of a window: averages are updated, and decisions made, once a window."""
    sensitivity_decay: Share = 0.85
    """Decay of the moving average of the sensitivity, per window."""
    uncertainty_decay: Share = 0.95
    """Decay of the moving average of the distance from it, per window."""
    pool: Literal["remaining", "initial"] = "remaining"
    """What the share is taken of: the elements still trained, or all trained at first (frozen ones last)."""

    def __post_init__(self) -> None:
        """Refuse warm-ups given twice or not at all, and a share that rises."""
        for name in ("initial_warmup", "final_warmup"):
            given = [getattr(self, f"{name}_{unit}") is not None for unit in ("epochs", "ratio")]
            if sum(given) != 1:
                raise ValueError(f"{name}_epochs, {name}_ratio: exactly one of them is required")
        if self.final_share > self.initial_share:
            raise ValueError(f"final_share: is above initial_share, {self.initial_share:g}")

    def limits(self, length: RunLength) -> tuple[float, float]:
        """Return t_i and T - t_f in steps."""
        start = length.in_steps(self.initial_warmup_epochs, self.initial_warmup_ratio)
        return start, length.steps - length.in_steps(self.final_warmup_epochs, self.final_warmup_ratio)

    def share(self, step: int, length: RunLength) -> float:
        """Return r(t), the share that may stay trainable at optimiser step t, counted from 0."""
        start, end = self.limits(length)
        if step <= start:
            return self.initial_share
        if step > end:
            return self.final_share
        x = (step - start) / (end - start)
        left = (1 - x) ** 3 if self.schedule == "cubic" else 1 - x**2
        return self.final_share + (self.initial_share - self.final_share) * left

    def decides(self, step: int, length: RunLength) -> bool:
        """Return whether a step freezes matrices: once a window between the warm-ups, then every step."""
        start, end = self.limits(length)
        return step > start and (step > end or step % self.window_steps == 0)

    def check(self, epochs: int) -> None:
        """Refuse warm-ups that do not fit into a run of so many epochs.

        Raises:
            ValueError: with a message that lacks the table's name.
        """
        whole = RunLength(epochs, epochs)
        start, end = self.limits(whole)
        if start > end:
            both = f"{start + epochs - end:g} epochs"
            raise ValueError(f"initial_warmup and final_warmup take {both}, --max-epochs is {epochs}")

    def description(self) -> str:
        """Return the rule in words, for the record of the run."""
        ends = [
            f"{epochs:g} epochs" if epochs is not None else f"{ratio:g} of the run"
            for epochs, ratio in (
                (self.initial_warmup_epochs, self.initial_warmup_ratio),
                (self.final_warmup_epochs, self.final_warmup_ratio),
            )
        ]
        first, last = ends
        return (
            f"by score, {self.schedule}, everything is trained for {first}, only vectors for the last {last}"
        )


@dataclass(frozen=True)
class ByEpoch:
    """`rule = "epoch"`: all matrices are frozen at once."""

    by_score = False
    rule: Literal["epoch"] = "epoch"
    after_epochs: Annotated[int, Whole(1)] | None = None
    """Epochs after which they are frozen."""
    after_ratio: Annotated[float, Real(0, 1, high_open=True)] | None = None
    """Fraction of the run after which they are frozen."""

    def __post_init__(self) -> None:
        """Refuse a point in time that is given twice or not at all."""
        if (self.after_epochs is None) == (self.after_ratio is None):
            raise ValueError("after_epochs, after_ratio: exactly one of them is required")

    def share(self, step: int, length: RunLength) -> float:
        """Return 1 before that point, 0 from then on."""
        return 0.0 if step >= length.in_steps(self.after_epochs, self.after_ratio) else 1.0

    def decides(self, step: int, length: RunLength) -> bool:
        """Return whether all matrices are frozen from this step on."""
        return self.share(step, length) == 0.0

    def check(self, epochs: int) -> None:
        """Refuse a point after the run's end.

        Raises:
            ValueError: with a message that lacks the table's name.
        """
        if self.after_epochs is not None and self.after_epochs > epochs:
            raise ValueError(f"after_epochs: {self.after_epochs}, --max-epochs is {epochs}")

    def description(self) -> str:
        """Return the rule in words, for the record of the run."""
        if self.after_epochs is not None:
            return f"all matrices after epoch {self.after_epochs}"
        return f"all matrices after {self.after_ratio:g} of the run"


Freezing = ByScore | ByEpoch
_RULES = {"score": ByScore, "epoch": ByEpoch}


def read_freezing(table: Any, where: str) -> Freezing:
    """Bind the table `[freezing]` to a rule.

    Args:
        table: the value of the key `freezing` in the file.
        where: prefix of each message.

    Raises:
        InputFault: with one line for each fault.
    """
    if not isinstance(table, Mapping):
        raise InputFault(f"{where}: must be a table")
    rule = table.get("rule", "score")
    if not isinstance(rule, str) or rule not in _RULES:
        raise InputFault(f"{where}: rule: {unknown('rule', str(rule), tuple(_RULES))}")
    return bind(_RULES[rule], table, where)
