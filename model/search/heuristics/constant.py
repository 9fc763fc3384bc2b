"""CONSTANT: every module counts the same, so that a search chooses among them at random.

Source: Zhang et al. 2024 (HeteroLoRA), arXiv 2406.14956: the baseline of its saliency proxies.
Differs: nothing.
"""

from collections.abc import Mapping

from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    return dict.fromkeys(probe.attachments, 1.0)


HEURISTIC = HeuristicKind(_score, most_batches=0)
