"""GRAD-NORM: the length of the loss's gradient at a module's tensors.

Source: Abdelfattah et al. 2021, arXiv 2101.08134, section 3.2 (Euclidean norm of the gradient), summed over
a LoRA module's matrices as in HeteroLoRA: S = ||dL/dA||_F + ||dL/dB||_F.
Differs: the gradient is the sum over batches of each batch's mean loss, in evaluation mode; modules of other
kinds sum over all their trained tensors. Where B = 0 only dL/dB counts.
"""

from collections.abc import Mapping

from model.search.gradients import summed_slopes
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    return {
        key: sum(float(slope.gradient.norm()) for slope in group)
        for key, group in summed_slopes(probe).items()
    }


HEURISTIC = HeuristicKind(_score)
