"""CONSTANT: every module has the same score, so that a search chooses among them at random.

    S = 1

Source: Zhang et al. 2024 (HeteroLoRA), arXiv 2406.14956: the baseline of its saliency proxies.
Differs: nothing.
"""

from collections.abc import Mapping

from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    return dict.fromkeys(probe.attachments, 1.0)


HEURISTIC = HeuristicKind(_score, max_batches=0)
