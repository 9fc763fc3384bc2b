"""SNIP: how much the loss feels a multiplication of a module's weights.

Source: Lee et al. 2019, arXiv 1810.02340, equation 5: the derivative at m = 1 of the loss under weights
m * w, whose size is |w * dL/dw|; summed over a module, S = sum |A * dL/dA| + sum |B * dL/dB|.
Differs: no mask tensors are made, since dL/dm at one is w * dL/dw, and nothing is normalised over the
network. It is exactly zero where B = 0, so a static test draws B at random for it.
"""

from collections.abc import Mapping

from model.search.gradients import summed_slopes
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    return {
        key: sum(float((slope.weight * slope.gradient).abs().sum()) for slope in group)
        for key, group in summed_slopes(probe).items()
    }


HEURISTIC = HeuristicKind(_score, random_b=True)
