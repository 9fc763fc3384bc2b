"""SNIP: the sensitivity of the loss to a mask m on a module's weights, |dL/dm| at m = 1.

    S = sum |A * dL/dA| + sum |B * dL/dB|,  L the sum over batches of each batch's mean loss

Source: Lee et al. 2019, arXiv 1810.02340, equation 5: the derivative at m = 1 of the loss under weights
m * w, which is w * dL/dw.
Differs: no mask tensors are created, and scores are not normalised over the network. S is exactly zero where
B = 0, so a static test draws B at random for it.
"""

from collections.abc import Mapping

from model.search.gradients import summed_gradients
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    return {
        key: sum(float((factor.weight * factor.gradient).abs().sum()) for factor in factors)
        for key, factors in summed_gradients(probe).items()
    }


HEURISTIC = HeuristicKind(_score, random_b=True)
