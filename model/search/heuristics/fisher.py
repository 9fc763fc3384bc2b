"""FISHER: the diagonal of the empirical Fisher information, summed over a module.

    S = sum over batches and weights w of (dL/dw)^2,  L the mean loss of a batch

Source: Sung et al. 2021 (FISH mask), arXiv 2111.09839, equation 4.
Differs: one gradient per batch (of its mean loss) instead of one per example, and a sum over them instead of
a mean. Where B = 0 only dL/dB contributes.
"""

from collections.abc import Mapping

import torch

from model.search.gradients import batch_gradients
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    sums = torch.zeros(len(probe.attachments), dtype=torch.float64, device=probe.device)
    zero = sums.new_zeros(())
    for one in batch_gradients(probe):
        squares = [
            sum((factor.gradient.double().square().sum() for factor in factors), start=zero)
            for factors in one.values()
        ]
        sums += torch.stack(squares)
        del one  # otherwise it would still be in memory with the next batch's activations
    return dict(zip(probe.attachments, probe.reduce(sums).tolist()))


HEURISTIC = HeuristicKind(_score)
