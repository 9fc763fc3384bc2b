"""Measure variants of one work by process CPU time on one pinned thread, interleaved, and report ratios.

Absolute times mean nothing on a shared machine; a ratio of two steps that ran side by side does. Every
round runs each variant once, in an order that turns from round to round, and gives one ratio.
"""

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
ROUNDS = 7
Step = Callable[[], object]
Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figure:
    """One measured ratio and its goal.

    Args:
        what: host, method, precision and what the ratio divides by.
        peer: the peer's known figure, as PERFORMANCE's table words it.
        goal: the ratio to reach.
        measured: one ratio per round.
        higher_is_better: for throughputs; other figures are costs.
    """

    what: str
    peer: str
    goal: float | None
    measured: Sequence[float]
    higher_is_better: bool = False

    @property
    def median(self) -> float:
        """The figure itself."""
        return statistics.median(self.measured)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.higher_is_better else self.median <= self.goal


@dataclass
class Report:
    """The figures of one row of the table, printed and written as JSON.

    Args:
        row: its number, e.g. `01`.
        title: the work.
    """

    row: str
    title: str
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        what: str,
        measured: Sequence[float],
        *,
        goal: float | None = None,
        peer: str = "",
        higher_is_better: bool = False,
    ) -> None:
        """Add one ratio with the peer's figure and the goal."""
        self.figures.append(Figure(what, peer, goal, list(measured), higher_is_better))

    def finish(self) -> None:
        """Print the table and write `results/row_<row>.json`."""
        width = max(len(figure.what) for figure in self.figures)
        print(f"\nrow {self.row}: {self.title}")
        print(f"{'':{width}}  {'peer':>14}  {'goal':>6}  measured: median [min, max]")
        for figure in self.figures:
            goal = "" if figure.goal is None else f"{figure.goal:.3f}"
            mark = {True: "reached", False: "missed", None: ""}[figure.reached]
            spread = f"{figure.median:.3f} [{min(figure.measured):.3f}, {max(figure.measured):.3f}]"
            print(f"{figure.what:{width}}  {figure.peer:>14}  {goal:>6}  {spread}  {mark}")
        sys.stdout.flush()
        RESULTS.mkdir(exist_ok=True)
        figures = [
            asdict(figure) | {"median": figure.median, "reached": figure.reached} for figure in self.figures
        ]
        document = {"row": self.row, "title": self.title, "figures": figures, "machine": machine()}
        (RESULTS / f"row_{self.row}.json").write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, str | int]:
    """Return the versions and the processor that a figure belongs to."""
    names = ("torch", "transformers", "peft", "lightning")
    facts: dict[str, str | int] = {name: version(name) for name in names}
    return facts | {
        "python": platform.python_version(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 0,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def pin(core: int | None = None) -> None:
    """Keep this process to one core and torch to one thread."""
    torch.set_num_threads(1)
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[-1] if core is None else allowed[core % len(allowed)]})


def compare(steps: Mapping[str, Step], *, rounds: int = ROUNDS, warmup: int = 1, repeats: int = 1) -> Times:
    """Run every step once a round and return its CPU seconds per round.

    Args:
        steps: variants by name.
        rounds: rounds that count.
        warmup: rounds that do not.
        repeats: calls that a measurement sums up, themselves interleaved; short steps need many.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    gc.collect()
    gc.disable()  # a collection would fall on whoever allocates next
    try:
        for number in range(warmup + rounds):
            spent = dict.fromkeys(names, 0.0)
            for repeat in range(repeats):
                shift = (number + repeat) % len(names)
                for name in names[shift:] + names[:shift]:
                    begin = time.process_time()
                    steps[name]()
                    spent[name] += time.process_time() - begin
            if number >= warmup:
                for name in names:
                    times[name].append(spent[name])
            gc.collect()
    finally:
        gc.enable()
    return times


def ratios(times: Times, over: str, under: str) -> list[float]:
    """Return one ratio per round."""
    return [a / b for a, b in zip(times[over], times[under], strict=True)]


def peak_bytes(step: Step) -> int:
    """Return how many bytes of tensors a step holds at its peak beyond those alive when it begins.

    Counted from the allocator's own events, so the figure is exact and repeatable; scratch memory that a
    product's library takes for itself is not in it.
    """
    step()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def tensor_bytes(tensors: Sequence[torch.Tensor]) -> int:
    """Return what distinct tensors occupy."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
