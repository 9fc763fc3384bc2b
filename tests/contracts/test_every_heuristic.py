"""Every heuristic keeps the contract: no trace, finite, repeatable, and it finds a planted site."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime import kinds
from model.injection.attach import attach, locate
from model.network.family import dimensions, model_types
from model.plan.adapter_config import AdapterConfig
from model.search.heuristic import Probe
from model.search.saliency import measure
from model.site import SiteKey
from model.training.objective import Classification, LanguageModeling
from tests.support.tiny import tiny_network

HEURISTICS = kinds.names(kinds.HEURISTICS)
PLANTED = SiteKey(1, "w2")
of_every_kind = pytest.mark.parametrize("name", HEURISTICS)
MANY_PASSES = ("alpha_test",)
"""Heuristics that run every batch many times for each site; few sites show as much of them as many."""
HOSTS = ("opt", "roberta", "llama", "gemma3_text", "deberta-v2")


class Scored:
    """A tiny host with LoRA at every site, B away from zero, and three batches.

    With the name of a heuristic of many passes it is one batch, and LoRA in the layer of `PLANTED` alone.
    """

    def __init__(self, host="llama", *, causal=False, dropout=0.2, dtype=torch.float32, name=None):
        row = model_types()[host]
        auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
        self.network = tiny_network(row, auto, model_type=host).requires_grad_(False).to(dtype)
        sites = locate(self.network, row, dimensions(self.network.config).layers)
        if name in MANY_PASSES:
            sites = {key: site for key, site in sites.items() if key.layer == PLANTED.layer}
        config = AdapterConfig(
            rank=3, alpha=6.0, dropout=dropout, adapter_name="default", disabled=False, method="lora"
        )
        self.attachments = attach(self.network, sites, dict.fromkeys(sites, config), 0, "plan")
        self.modules = nn.ModuleDict({str(key): a for key, a in self.attachments.items()}).to(dtype)
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for attachment in self.attachments.values():
                b = attachment.adapter.factors()["B"]
                b.copy_(0.1 * torch.randn(b.shape, generator=draw))
        self.objective = LanguageModeling() if causal else Classification(("accuracy",), 2)
        self.batches = [self._batch(draw, causal) for _ in range(1 if name in MANY_PASSES else 3)]
        self.network.train()

    @staticmethod
    def _batch(draw, causal):
        ids = torch.randint(5, 200, (4, 7), generator=draw)
        labels = ids.clone() if causal else torch.randint(0, 2, (4,), generator=draw)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def probe(self, kind, **changes):
        options = {"options": kind.options()} | changes
        return Probe(self.network, self.objective, self.attachments, self.batches, **options)

    def scores(self, name, **changes):
        kind = kinds.load(kinds.HEURISTICS, name)
        return measure(kind, self.probe(kind, **changes))

    def traces(self):
        """Return everything that a search must leave alone."""
        tensors = [*self.network.state_dict().items(), *self.modules.state_dict().items()]
        parameters = [*self.network.parameters(), *self.modules.parameters()]
        return {
            "tensors": [(name, tensor.clone().view(torch.uint8)) for name, tensor in tensors],
            "identities": [id(parameter) for parameter in parameters],
            "gradients": [None if p.grad is None else p.grad.clone() for p in parameters],
            "requires_grad": [p.requires_grad for p in parameters],
            "modes": [m.training for root in (self.network, self.modules) for m in root.modules()],
            "switches": [(a.enabled, a.strength, a.merged) for a in self.attachments.values()],
            "hooks": [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), sorted(m.__dict__))
                for root in (self.network, self.modules)
                for m in root.modules()
            ],
            "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
        }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


CHANGES = {
    "tensors": lambda s: next(iter(s.modules.parameters())).data.add_(1),
    "gradients": lambda s: setattr(next(iter(s.modules.parameters())), "grad", torch.zeros(3, 32)),
    "requires_grad": lambda s: next(iter(s.modules.parameters())).requires_grad_(False),
    "modes": lambda s: next(iter(s.network.children())).eval(),
    "switches": lambda s: setattr(s.attachments[PLANTED], "strength", 0.5),
    "hooks": lambda s: s.network.register_forward_hook(lambda *_: None),
    "random": lambda s: torch.rand(1),
}


@pytest.mark.parametrize("item", CHANGES)
def test_the_digest_notices_a_change_of_each_item(item):
    scored = Scored()
    before = scored.traces()
    CHANGES[item](scored)
    after = scored.traces()
    assert not same(before[item], after[item])


@pytest.mark.parametrize("host", HOSTS)
@of_every_kind
def test_it_leaves_no_trace(name, host):
    scored = Scored(host, name=name)
    scored.attachments[PLANTED].strength = 0.5
    next(iter(scored.modules.parameters())).grad = torch.ones(3, 32)
    before = scored.traces()
    scored.scores(name, metric="accuracy", maximise=True)
    after = scored.traces()
    assert {item for item in before if not same(before[item], after[item])} == set()


@of_every_kind
def test_it_leaves_no_trace_after_a_fault(name):
    scored = Scored()
    scored.batches[0]["labels"] = torch.full((4,), 9)  # no such class
    before = scored.traces()
    if name not in ("constant", "synflow"):
        with pytest.raises((IndexError, RuntimeError)):
            scored.scores(name)
    after = scored.traces()
    assert {item for item in before if not same(before[item], after[item])} == set()


@pytest.mark.parametrize("causal", [False, True], ids=["classification", "language"])
@of_every_kind
def test_it_is_finite_and_repeatable_and_scores_every_site(name, causal):
    scored = Scored(causal=causal, name=name)
    first = scored.scores(name)
    assert list(first) == sorted(scored.attachments)
    assert all(score >= 0 for score in first.values())
    assert scored.scores(name) == first
    assert Scored(causal=causal, name=name).scores(name) == first


@pytest.mark.parametrize("name", [name for name in HEURISTICS if name != "constant"])
def test_it_finds_a_planted_site(name):
    """All modules but one add nothing and cannot matter: their A and B are next to zero."""
    scored = Scored(causal=True, name=name)
    with torch.no_grad():
        for key, attachment in scored.attachments.items():
            for factor in attachment.adapter.parameters():
                factor.mul_(1e-4 if key != PLANTED else 1.0 if name == "alpha_test" else 30.0)
    if name == "alpha_test":  # the planted delta must be worth having: learn the batches with it
        _learn(scored)
    scores = scored.scores(name)
    assert max(scores, key=scores.get) == PLANTED
    assert sorted(scores.values())[-2] < scores[PLANTED]


def _learn(scored):
    factors = list(scored.attachments[PLANTED].adapter.parameters())
    optimizer = torch.optim.Adam(factors, lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        sum(scored.objective.loss(scored.network, batch) for batch in scored.batches).backward()
        optimizer.step()


@pytest.mark.parametrize("parts", [2, 3])
@of_every_kind
def test_shards_of_the_batches_summed_are_the_whole(name, parts):
    """Processes share batches out; what one reduction adds up is what one process finds."""
    if name == "alpha_test":
        pytest.skip("its metric is summed by torchmetrics, which needs the processes themselves")
    scored = Scored(causal=True)
    kind = kinds.load(kinds.HEURISTICS, name)
    whole = measure(kind, scored.probe(kind))
    sums = []
    for rank in range(parts):
        changes = {"reduce": lambda value: sums.append(value.clone()) or value}
        measure(kind, _shard(scored, kind, rank, parts, **changes))
    total = None if not sums else sum(sums)
    replay = _shard(scored, kind, 0, parts, reduce=lambda value: total)
    assert measure(kind, replay) == whole


def _shard(scored, kind, rank, parts, **changes):
    part = copy.copy(scored)
    part.batches = scored.batches[: kind.max_batches][rank::parts]
    return part.probe(kind, **changes)


@pytest.mark.parametrize("causal", [False, True], ids=["classification", "language"])
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["grad_norm", "synflow"])
def test_layers_that_recompute_give_the_same_scores_and_keep_less(name, host, causal):
    if causal and host in ("roberta", "deberta-v2"):
        pytest.skip("an encoder")
    scored = Scored(host, causal=causal)
    stored, plain = kept(scored, name)
    scored.network.gradient_checkpointing_enable({"use_reentrant": False})
    before = scored.traces()
    recomputed, found = kept(scored, name)
    after = scored.traces()
    assert found == pytest.approx(plain, rel=1e-5)
    assert recomputed < 0.7 * stored
    assert {item for item in before if not same(before[item], after[item])} == set()


def kept(scored, name):
    """Return the bytes that are saved for backward passes, and the scores."""
    counted = []

    def count(tensor):
        counted.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        scores = scored.scores(name)
    return sum(counted), scores
