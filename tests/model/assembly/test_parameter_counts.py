"""What counts as an adapter's tensor, and what as one that weighs adapters."""

from torch import nn

from model.assembly.parameter_counts import count_parameters
from model.injection.linear_attachment import LinearAttachment
from model.site import Site, SiteKey
from tests.support.rank_gated import Blended, RankGated

KEY = SiteKey(0, "gate")


def _counts(adapter):
    network = nn.Linear(3, 3).requires_grad_(False)
    return count_parameters(network, {KEY: LinearAttachment(Site(KEY, "gate", 3, 3), network, adapter)}, ())


def test_a_tensor_called_gate_is_no_router_unless_the_kind_declares_it():
    found = _counts(RankGated(3))
    assert (found.adapters, found.router_or_gates) == (3 * 2 + 3 * 2 + 2, 0)


def test_a_declared_router_counts_as_one_whatever_its_name():
    found = _counts(Blended(3))
    assert (found.adapters, found.router_or_gates) == (3 * 2 + 3 * 2 + 2, 3)
