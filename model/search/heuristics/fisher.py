"""FISHER: how sharply a module's tensors determine the loss: the sum of their squared gradients.

Source: Sung et al. 2021 (FISH mask), arXiv 2111.09839, equation 4: the diagonal of the empirical Fisher
information, here summed over a module: S = sum over batches and weights of (dL/dw)^2.
Differs: one gradient a batch (of its mean loss) takes the place of one an example, and it is a sum, not a
mean, over them. Where B = 0 only dL/dB counts.
"""

from collections.abc import Mapping

import torch

from model.search.gradients import batch_slopes
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    sums = torch.zeros(len(probe.attachments), dtype=torch.float64, device=probe.device)
    for one in batch_slopes(probe):
        squares = [sum(slope.gradient.double().square().sum() for slope in group) for group in one.values()]
        sums += torch.stack(squares)
        del one  # or it would be held beside the next batch's activations
    return dict(zip(probe.attachments, probe.reduce(sums).tolist()))


HEURISTIC = HeuristicKind(_score)
