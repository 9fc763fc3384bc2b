"""GRAD-NORM: the Frobenius norms of the loss's gradients at a module's factors.

    S = ||dL/dA||_F + ||dL/dB||_F,  L the sum over batches of each batch's mean loss

Source: Abdelfattah et al. 2021, arXiv 2101.08134, section 3.2; summed over a module's factors as in
HeteroLoRA (Zhang et al. 2024), arXiv 2406.14956.
Differs: gradients are taken in evaluation mode; adapters of other methods sum over all their trained tensors.
Where B = 0 only dL/dB contributes.
"""

from collections.abc import Mapping

from model.search.gradients import summed_gradients
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    return {
        key: sum(float(factor.gradient.norm()) for factor in factors)
        for key, factors in summed_gradients(probe).items()
    }


HEURISTIC = HeuristicKind(_score)
