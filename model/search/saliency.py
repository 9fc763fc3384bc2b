"""Score modules by a heuristic; the network, its gradients and all random states stay as they were."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from configs.runtime.faults import NonFiniteFault
from model.injection.attachment import Attachment
from model.search.allocation import rounded
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey
from model.tensors.random_state import generator, random_states, restore_random_states

_STD_OF_B = 0.02
"""Standard deviation of a random B."""


def measure(kind: HeuristicKind, probe: Probe, random_b_seed: int | None = None) -> dict[SiteKey, float]:
    """Return every attachment's score, rounded to nine significant digits.

    In exact arithmetic scores do not depend on the number of processes; rounding removes the differences
    that the order of additions makes.

    Args:
        kind: the heuristic.
        probe: what it uses.
        random_b_seed: score with B ~ N(0, 0.02^2) drawn from this seed; None scores the weights as they are.

    Raises:
        NonFiniteFault: naming the modules whose score is not finite.
    """
    start = nullcontext() if random_b_seed is None else random_b(probe.attachments, random_b_seed)
    with preserved_state(probe.network, probe.attachments), start:
        for module in (probe.network, *probe.attachments.values()):
            module.eval()
        found = kind.score(probe)
    scores = {key: rounded(found[key]) for key in sorted(probe.attachments)}
    wrong = [f"{key}: the score is {score}" for key, score in scores.items() if not math.isfinite(score)]
    if wrong:
        raise NonFiniteFault(*wrong[:8])
    return scores


@contextmanager
def preserved_state(network: nn.Module, attachments: Mapping[SiteKey, Attachment]) -> Iterator[None]:
    """Restore modes, switches, strengths and the state of every global generator, also after an error."""
    modes = [
        (module, module.training) for root in (network, *attachments.values()) for module in root.modules()
    ]
    switches = [(one, one.enabled, one.strength) for one in attachments.values()]
    random = random_states()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for attachment, enabled, strength in switches:
            # Setting them drops shared outputs and unmerges, so they are set only where they changed.
            if attachment.strength != strength:
                attachment.strength = strength
            if attachment.enabled != enabled:
                attachment.enabled = enabled
        restore_random_states(random)


@contextmanager
def random_b(attachments: Mapping[SiteKey, Attachment], seed: int) -> Iterator[None]:
    """Replace factors that start at zero by N(0, 0.02^2), since several scores are identically zero there.

    Args:
        attachments: by site; of their factors it is those that their kind declares as zero at the start and
            that train; those that do not train were loaded.
        seed: the run's seed; a module's numbers depend only on it, the site and the factor's name.
    """
    saved = [
        (key, name, b, b.detach().clone())
        for key, a in attachments.items()
        for name, b in _zero_initialised(a)
    ]
    try:
        with torch.no_grad():
            for key, name, b, _ in saved:
                source = generator(seed, "score_init", str(key), name)
                b.copy_(_STD_OF_B * torch.randn(b.shape, generator=source))
        yield
    finally:
        with torch.no_grad():
            for _, _, b, before in saved:
                b.copy_(before)


def _zero_initialised(attachment: Attachment) -> list[tuple[str, torch.Tensor]]:
    """Return name and tensor of every factor that starts at zero and trains."""
    adapter = attachment.adapter
    trained = {p.untyped_storage().data_ptr() for p in adapter.parameters() if p.requires_grad}
    factors = adapter.factors()
    found = [(name, factors[name]) for name in adapter.zero_initialised()]
    return [(name, t) for name, t in found if t.untyped_storage().data_ptr() in trained]


def all_equal(scores: Sequence[float]) -> bool:
    """Return whether several modules were scored and all scores are equal."""
    return len(scores) > 1 and len(set(scores)) == 1
