"""Compare trained adapters: t-SNE of their A's and B's, and the cosine similarities of corresponding factors.

Source: Tian et al. 2024, HydraLoRA, arXiv 2404.19245, figure 3: the A's of LoRAs trained on different data
cluster by module, the B's do not.
Differs: vectors of different sizes have no common space, so each size is embedded by itself; cosine
similarities, which need no embedding, are reported as well.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from model.exchange.peft_format import PeftAdapter
from model.figures.scatter import Mark, ScatterPanel

VIEWS = {"all": "AB", "A": "A", "B": "B"}
"""View -> the factors it shows."""
FACTOR_MARKERS = {"A": "o", "B": "^"}
"""Factor -> its marker in a scatter plot."""
_SEED = 42
_PERPLEXITY = 30.0
_LEAST = 3  # PCA to two dimensions and a perplexity below the number of points
_NUMBER = re.compile(r"(?:^|[._/])(\d+)(?:[./]|$)")
_OWN = re.compile(r"(?P<factor>[AB])(?:\.\d+)?")


@dataclass(frozen=True, eq=False)
class FlatFactor:
    """A factor as a vector.

    Args:
        index: its number in the adapter: by layer, then by the module's name, A (even) before B (odd).
        module: the module's name, or the site's.
        factor: A or B.
        values: (R D_in) or (D_out R), float64.
    """

    index: int
    module: str
    factor: str
    values: numpy.ndarray


@dataclass(frozen=True)
class Point:
    """A factor embedded in two dimensions; `index` and `factor` are those of its `FlatFactor`."""

    adapter: str
    index: int
    factor: str
    x: float
    y: float


@dataclass(frozen=True)
class SizeGroup:
    """The factors of one size in a view.

    Args:
        view: a key of `VIEWS`.
        size: length of the vectors.
        count: how many there are.
        points: their embedding; empty where they are too few to embed.
    """

    view: str
    size: int
    count: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Similarity:
    """Mean cosine similarities between the A's, and between the B's, that two adapters have for one module.

    Args:
        pairs: two adapters -> factor -> mean over modules; None where nothing could be compared.
        modules: module -> factor -> mean over pairs of adapters.
        mean: factor -> mean over all.
        compared: factor -> number of similarities.
        skipped: factors without a counterpart of the same size in the other adapter, or zero.
    """

    pairs: Mapping[tuple[str, str], Mapping[str, float | None]]
    modules: Mapping[str, Mapping[str, float | None]]
    mean: Mapping[str, float | None]
    compared: Mapping[str, int]
    skipped: int


def flat_factors(adapter: PeftAdapter) -> list[FlatFactor]:
    """Return every A and B as a vector, numbered; adapters of methods without A and B are left out.

    The tensors of a factor that is stored in parts (`B.0`, `B.1`) are concatenated in the order of their
    numbers.
    """
    found: dict[str, Mapping[str, Sequence[torch.Tensor]]] = {
        module: {"A": [factors.a], "B": [factors.b]} for module, factors in adapter.modules.items()
    }
    for site, extra in adapter.extra.items():
        if extra.recipe.converted:  # its LoRA is among the modules
            continue
        parts: dict[str, list[torch.Tensor]] = defaultdict(list)
        for name in sorted(extra.tensors, key=_natural):
            match = _OWN.fullmatch(name)
            if match:
                parts[match["factor"]].append(extra.tensors[name])
        if set(parts) == {"A", "B"}:
            found[site] = parts
    return [
        FlatFactor(2 * number + offset, module, factor, _vector(found[module][factor]))
        for number, module in enumerate(sorted(found, key=_layer_and_name))
        for offset, factor in enumerate("AB")
    ]


def similarity(adapters: Mapping[str, Sequence[FlatFactor]]) -> Similarity:
    """Return the cosine similarities of the factors that every two adapters have for the same module.

    Args:
        adapters: name -> its factors.
    """
    values = {name: {(one.module, one.factor): one.values for one in flat} for name, flat in adapters.items()}
    every = list(dict.fromkeys(key for one in values.values() for key in one))
    by_pair: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    by_module: dict[tuple[str, str], list[float]] = defaultdict(list)
    skipped = 0
    for first, second in itertools.combinations(values, 2):
        for key in every:
            value = _cosine(values[first].get(key), values[second].get(key))
            skipped += value is None
            if value is not None:
                by_pair[first, second, key[1]].append(value)
                by_module[key].append(value)
    pairs = list(itertools.combinations(values, 2))
    modules = list(dict.fromkeys(module for module, _ in every))
    whole = {f: [v for key, found in by_module.items() if key[1] == f for v in found] for f in "AB"}
    return Similarity(
        pairs={(a, b): {f: _mean(by_pair[a, b, f]) for f in "AB"} for a, b in pairs},
        modules={module: {f: _mean(by_module[module, f]) for f in "AB"} for module in modules},
        mean={f: _mean(found) for f, found in whole.items()},
        compared={f: len(found) for f, found in whole.items()},
        skipped=skipped,
    )


def embed(adapters: Mapping[str, Sequence[FlatFactor]]) -> list[SizeGroup]:
    """Return the vectors of each of the three views, embedded with t-SNE size by size.

    Args:
        adapters: name -> its factors.
    """
    groups = []
    for view, factors in VIEWS.items():
        sizes: dict[int, list[tuple[str, FlatFactor]]] = defaultdict(list)
        for name, flat in adapters.items():
            for one in flat:
                if one.factor in factors:
                    sizes[len(one.values)].append((name, one))
        for size, members in sorted(sizes.items()):
            positions = _tsne(numpy.stack([one.values for _, one in members]))
            points = [
                Point(name, one.index, one.factor, float(x), float(y))
                for (name, one), (x, y) in zip(members, positions)
            ]
            groups.append(SizeGroup(view, size, len(members), points))
    return groups


def scatter_rows(groups: Sequence[SizeGroup]) -> list[list[ScatterPanel]]:
    """Return a row for each view, with a panel for each size that could be embedded.

    Args:
        groups: what `embed` returned.
    """
    return [[_panel(group) for group in groups if group.view == view and group.points] for view in VIEWS]


def _panel(group: SizeGroup) -> ScatterPanel:
    marks = [Mark(one.x, one.y, str(one.index), one.adapter, one.factor) for one in group.points]
    return ScatterPanel(f"{group.view}, {group.size:,} numbers each", marks)


def _tsne(vectors: numpy.ndarray) -> numpy.ndarray:
    """Return (N, 2), or (0, 2) where N is too small. vectors: (N, D)."""
    count = len(vectors)
    if count < _LEAST:
        return numpy.zeros((0, 2))
    if (vectors == vectors[0]).all():  # equal vectors: PCA would divide by a variance of zero
        return numpy.zeros((count, 2))
    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    with threadpool_limits(limits=1):
        return TSNE(2, init="pca", random_state=_SEED, perplexity=perplexity, n_jobs=1).fit_transform(vectors)


def _vector(tensors: Sequence[torch.Tensor]) -> numpy.ndarray:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).double().numpy()


def _cosine(a: numpy.ndarray | None, b: numpy.ndarray | None) -> float | None:
    if a is None or b is None or len(a) != len(b) or not a.any() or not b.any():
        return None
    return float(a @ b / (numpy.linalg.norm(a) * numpy.linalg.norm(b)))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _layer_and_name(module: str) -> tuple[int, str]:
    """Return layer and name, to sort by; the first number in a module's name is its layer."""
    match = _NUMBER.search(module)
    return (int(match[1]) if match else -1, module)


def _natural(name: str) -> tuple[str, int]:
    """Return stem and number, so that `B.2` sorts before `B.10`."""
    stem, _, number = name.partition(".")
    return stem, int(number) if number.isdecimal() else -1
