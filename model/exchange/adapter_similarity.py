"""Compare trained adapters with each other: their A's and B's in two dimensions, and how alike they are.

Source: Tian et al. 2024, HydraLoRA, 2404.19245, figure 3: of LoRAs trained on different data the A's come to
lie together while the B's stay apart.
Differs: tensors of different sizes have no common space, so each size is embedded by itself; cosine
similarities, which need no embedding, stand beside the pictures.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from model.exchange.peft_format import PeftAdapter

VIEWS = {"all": "AB", "A": "A", "B": "B"}
"""View -> the factors it shows."""
_SEED = 42
_PERPLEXITY = 30.0
_LEAST = 3  # PCA to two dimensions and a perplexity below the number of points
_NUMBER = re.compile(r"(?:^|[._/])(\d+)(?:[./]|$)")
_OWN = re.compile(r"(?P<factor>[AB])(?:\.\d+)?")


class Flat(NamedTuple):
    """A factor as a vector.

    Args:
        index: its number in the adapter: layers, in a layer modules by name, A (even) before B (odd).
        module: the module's name, or the site's.
        factor: A or B.
        values: (R D_in) or (D_out R), float64.
    """

    index: int
    module: str
    factor: str
    values: numpy.ndarray


class Dot(NamedTuple):
    """A factor in two dimensions."""

    adapter: str
    index: int
    factor: str
    x: float
    y: float


class Group(NamedTuple):
    """The factors of one size in a view; without dots where they are too few to embed."""

    view: str
    size: int
    count: int
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Likeness:
    """Mean cosine similarities of A's and of B's, of modules that two adapters share at equal size.

    Args:
        pairs: two adapters -> factor -> mean over modules.
        modules: module -> factor -> mean over pairs of adapters.
        mean: factor -> mean over all.
        compared: factor -> number of similarities.
        skipped: factors that have no partner of their size, or are zero.
    """

    pairs: Mapping[tuple[str, str], Mapping[str, float | None]]
    modules: Mapping[str, Mapping[str, float | None]]
    mean: Mapping[str, float | None]
    compared: Mapping[str, int]
    skipped: int


def flattened(adapter: PeftAdapter) -> list[Flat]:
    """Return every A and B as a vector, numbered; what has no A and B beside PEFT's files is left out.

    Parts of a factor that stand in several tensors (`B.0`, `B.1`) are one vector, one after the other.
    """
    found = {module: {"A": [factors.a], "B": [factors.b]} for module, factors in adapter.modules.items()}
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
    ordered = sorted(found, key=_place)
    return [
        Flat(2 * place + odd, module, factor, _vector(found[module][factor]))
        for place, module in enumerate(ordered)
        for odd, factor in enumerate("AB")
    ]


def likeness(adapters: Mapping[str, Sequence[Flat]]) -> Likeness:
    """Return how alike the A's and the B's of the same modules are, for every two adapters.

    Args:
        adapters: name -> its factors.
    """
    held = {name: {(one.module, one.factor): one.values for one in flats} for name, flats in adapters.items()}
    every = list(dict.fromkeys(key for one in held.values() for key in one))
    by_pair, by_module, skipped = defaultdict(list), defaultdict(list), 0
    for first, second in itertools.combinations(held, 2):
        for key in every:
            value = _cosine(held[first].get(key), held[second].get(key))
            skipped += value is None
            if value is not None:
                by_pair[first, second, key[1]].append(value)
                by_module[key].append(value)
    pairs = list(itertools.combinations(held, 2))
    modules = list(dict.fromkeys(module for module, _ in every))
    whole = {f: [v for key, values in by_module.items() if key[1] == f for v in values] for f in "AB"}
    return Likeness(
        pairs={pair: {f: _mean(by_pair[*pair, f]) for f in "AB"} for pair in pairs},
        modules={module: {f: _mean(by_module[module, f]) for f in "AB"} for module in modules},
        mean={f: _mean(values) for f, values in whole.items()},
        compared={f: len(values) for f, values in whole.items()},
        skipped=skipped,
    )


def embedded(adapters: Mapping[str, Sequence[Flat]]) -> list[Group]:
    """Return the three views, each size of vectors embedded by itself with t-SNE.

    Args:
        adapters: name -> its factors.
    """
    groups = []
    for view, factors in VIEWS.items():
        sizes: dict[int, list[tuple[str, Flat]]] = defaultdict(list)
        for name, flats in adapters.items():
            for one in flats:
                if one.factor in factors:
                    sizes[len(one.values)].append((name, one))
        for size, members in sorted(sizes.items()):
            places = _embed(numpy.stack([one.values for _, one in members]))
            dots = [
                Dot(name, one.index, one.factor, float(x), float(y))
                for (name, one), (x, y) in zip(members, places)
            ]
            groups.append(Group(view, size, len(members), dots))
    return groups


def _embed(vectors: numpy.ndarray) -> numpy.ndarray:
    """Return (N, 2), or (0, 2) where N is too small. vectors: (N, D)."""
    count = len(vectors)
    if count < _LEAST:
        return numpy.zeros((0, 2))
    if (vectors == vectors[0]).all():  # nothing tells them apart, and PCA would divide by their spread
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


def _place(module: str) -> tuple[int, str]:
    """Return layer and name: the first number in a module's name is its layer."""
    match = _NUMBER.search(module)
    return (int(match[1]) if match else -1, module)


def _natural(name: str) -> tuple[str, int]:
    stem, _, number = name.partition(".")
    return stem, int(number) if number.isdecimal() else -1
