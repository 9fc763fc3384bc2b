"""An input that is made again has the bits of the one that was not kept, and it really is not kept."""

import copy
import pickle
import weakref
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from model.adapters import fused_experts, fused_lora, rematerialisation
from model.adapters.methods.lora import Lora
from model.adapters.rematerialisation import NormEpsilons, dropout_noise, flat_remake_of, remake_of
from model.injection.attach import attach, locate
from model.injection.linear_attachment import LinearAttachment, SharedInput
from model.network.family import dimensions, families
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey
from tests.support.tiny import tiny_network

_POST = {"do_layer_norm_before": False, "word_embed_proj_dim": 16}
_CASES = [
    pytest.param(family, overrides, id=f"{family.name}-{number}")
    for family in families()
    for number, overrides in enumerate([{}, _POST] if family.name == "opt" else [{}])
]
_SOME = [case for case in _CASES if case.values[0].name in ("llama", "roberta")]
_KEPT = {"opt": {"o_proj", "w2"}, "bert": set(), "roberta": set(), "deberta": {"q_proj"}}
"""Roles whose input costs nothing: the output of fused attention (none with dropout) and of ReLU, and the
frozen table of relative positions; in other families the output of attention alone."""


@pytest.fixture(autouse=True)
def _small_counts(monkeypatch):
    monkeypatch.setattr(rematerialisation, "WORTHWHILE", 0)


class Hosted:
    """A tiny network in training mode with LoRA everywhere and gradients from the embeddings on."""

    def __init__(self, family, *, dropout=0.0, base=torch.float32, method="lora", **overrides):
        is_decoder = "language_modeling" in family.heads
        auto_class = AutoModelForCausalLM if is_decoder else AutoModelForSequenceClassification
        self.network = tiny_network(family, auto_class, **overrides).requires_grad_(False).train().to(base)
        self.network.get_input_embeddings().register_forward_hook(lambda _, __, y: y.requires_grad_(True))
        self.sites = locate(self.network, family, dimensions(self.network.config).layers)
        config = AdapterConfig(3, 6.0, dropout, "default", disabled=False, init=False, method=method)
        self.attachments = attach(self.network, self.sites, dict.fromkeys(self.sites, config), 0, "here")
        self.factors = [p for one in self.attachments.values() for p in one.adapter.parameters()]

    def loss(self, shape=(2, 9)):
        torch.manual_seed(1)  # hosts and adapters drop
        ids = torch.randint(5, 200, shape, generator=torch.Generator().manual_seed(2))
        logits = self.network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))).mean()

    def gradients(self):
        return torch.autograd.grad(self.loss(), self.factors)


def _never(x, epsilons):
    return None


def _equal(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("drops", [0.0, 0.3, "evaluation"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
@pytest.mark.parametrize(("family", "overrides"), _CASES)
def test_gradients_are_those_of_kept_inputs_bit_for_bit(family, overrides, precision, drops, monkeypatch):
    base = torch.bfloat16 if precision == "bf16" else torch.float32
    host = Hosted(family, dropout=0.3 if drops == "evaluation" else drops, base=base, **overrides)
    host.network.train(drops != "evaluation")
    with torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else nullcontext():
        found = host.gradients()
        monkeypatch.setattr(fused_lora, "flat_remake_of", _never)
        wanted = host.gradients()
    assert max(float(gradient.abs().max()) for gradient in wanted) > 0
    assert _equal(found, wanted)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("method", ["hydra", "lora_moe", "lora_split"])
@pytest.mark.parametrize(("family", "overrides"), _SOME)
def test_experts_have_the_gradients_of_kept_inputs(family, overrides, method, autocast, dropout, monkeypatch):
    host = Hosted(family, dropout=dropout, method=method)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = host.gradients()
        monkeypatch.setattr(fused_experts, "flat_remake_of", _never)
        wanted = host.gradients()
    assert max(float(gradient.abs().max()) for gradient in wanted) > 0
    assert _equal(found, wanted)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_experts_do_not_keep_what_can_be_recomputed(dropout, monkeypatch):
    host = Hosted(_SOME[0].values[0], dropout=dropout, method="hydra")
    ours = _held(host)
    monkeypatch.setattr(fused_experts, "flat_remake_of", _never)
    kept = _held(host)
    config = host.network.config
    # o_proj's input, which may be kept, is the output of fused attention; with dropout others have copies.
    inputs = config.intermediate_size + 2 * config.hidden_size
    if dropout:
        roles = [site for key, site in host.sites.items() if key.layer == 0 and key.role != "o_proj"]
        inputs += sum(site.in_features for site in roles)
    assert kept - ours == 4 * 4 * 32 * config.num_hidden_layers * inputs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "overrides"), _CASES)
def test_inputs_are_kept_only_where_that_costs_nothing(family, overrides, attention, monkeypatch):
    if attention == "sdpa" and family.name == "deberta":
        pytest.skip("has eager attention alone")
    host, entered, kept = Hosted(family, attn_implementation=attention, **overrides), [], []

    def watch(x, epsilons):
        remake = flat_remake_of(x, epsilons)
        if remake is None:
            kept.append(entered[-1])
        else:
            assert torch.equal(remake().view_as(x), x)
        return remake

    for key, site in host.sites.items():
        linear = host.network.get_submodule(site.path)
        linear.register_forward_pre_hook(lambda module, args, role=key.role: entered.append(role))
    monkeypatch.setattr(fused_lora, "flat_remake_of", watch)
    host.loss()
    free = _KEPT.get(family.name, {"o_proj"}) | ({"q_proj"} if overrides else set())
    assert set(kept) == (free if attention == "sdpa" else free - {"o_proj"})


_H, _G = (torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(n)) for n in range(2))
_W = torch.randn(8, generator=torch.Generator().manual_seed(5))
_NORM = nn.LayerNorm(8, eps=0.3).requires_grad_(False)


def _norm_of_squares(h, g):
    """As transformers writes it out."""
    wide = h.float()
    return _W.to(h.dtype) * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(h.dtype)


def _in_place(h, g):
    return (h * 1.5).mul_(g.float())


_PRODUCERS = {
    "gelu": lambda h, g: F.gelu(h),
    "gelu_tanh": lambda h, g: F.gelu(h, approximate="tanh"),
    "gated": lambda h, g: F.silu(h) * g,
    "gated_gelu": lambda h, g: F.gelu(h) * g,
    "silu": lambda h, g: F.silu(h),
    "scaled": lambda h, g: F.silu(h) * 2.3,
    "scaled_left": lambda h, g: 2.3 * F.silu(h),
    "in_place": _in_place,
    "norm": lambda h, g: F.layer_norm(h, (8,), _NORM.weight.to(h.dtype), _NORM.bias.to(h.dtype), 0.3),
    "norm_of_squares": _norm_of_squares,
    "turned": lambda h, g: F.silu(h).transpose(-1, -2).reshape(2, 4, 6),
    "permuted": lambda h, g: F.silu(h).permute(2, 0, -2).contiguous(),
    "cast": lambda h, g: F.silu(h).to(torch.float16),
    "attended": lambda h, g: torch.matmul(h.softmax(-2).transpose(1, 2), g).transpose(0, 1).reshape(8, 16),
    "dropped": lambda h, g: F.dropout(F.silu(h), 0.4),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", _PRODUCERS)
def test_every_recipe_repeats_its_operation(name, dtype, monkeypatch):
    monkeypatch.setattr(NormEpsilons, "of", lambda self, weight: 0.3)
    h, g = (t.to(dtype, copy=True).requires_grad_() for t in (_H, _G))
    x = _PRODUCERS[name](h, g)
    remade = remake_of(x, NormEpsilons(_NORM))()
    assert remade.dtype == x.dtype
    assert remade.shape == x.shape
    assert torch.equal(remade, x)


@pytest.mark.parametrize(
    "name", ["parameter", "sum", "relu", "constant", "no_gradient", "unknown_norm", "strided"]
)
def test_other_inputs_are_kept(name):
    h = _H.clone().requires_grad_()
    with torch.no_grad() if name == "no_gradient" else nullcontext():
        made = {
            "parameter": lambda: h,
            "sum": lambda: F.gelu(h) + 1,
            "relu": lambda: F.relu(h),
            "constant": lambda: F.gelu(_H),
            "no_gradient": lambda: F.gelu(h),
            "unknown_norm": lambda: F.layer_norm(h, (8,), torch.ones(8), torch.zeros(8)),
            "strided": lambda: F.gelu(h).transpose(0, 1),
        }[name]()
        assert flat_remake_of(made, NormEpsilons(_NORM)) is None


def test_small_inputs_are_kept(monkeypatch):
    x = F.gelu(_H.clone().requires_grad_())
    monkeypatch.setattr(rematerialisation, "WORTHWHILE", x.nbytes)
    assert flat_remake_of(x, None) is not None
    monkeypatch.setattr(rematerialisation, "WORTHWHILE", x.nbytes + 1)
    assert flat_remake_of(x, None) is None


@pytest.mark.parametrize("name", ["gelu", "gated", "norm", "attended"])
def test_inputs_saved_by_hooks_are_not_touched(name, monkeypatch):
    monkeypatch.setattr(NormEpsilons, "of", lambda self, weight: 0.3)
    h, g = _H.clone().requires_grad_(), _G.clone().requires_grad_()
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        x = _PRODUCERS[name](h, g)
    assert remake_of(x, NormEpsilons(_NORM)) is None


def test_a_changed_operand_is_noticed():
    h = _H.clone().requires_grad_()
    inner = h * 1
    remake = remake_of(F.gelu(inner), None)
    with torch.no_grad():
        inner.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        remake()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_know_the_eps_of_their_own_norms(duplicate):
    norms = nn.ModuleList([nn.LayerNorm(4, eps=0.1), nn.LayerNorm(4, eps=0.2, elementwise_affine=False)])
    epsilons = NormEpsilons(norms)
    copied, theirs = duplicate((norms, epsilons))
    assert epsilons.of(norms[0].weight) == theirs.of(copied[0].weight) == 0.1
    assert theirs.of(norms[0].weight) is None
    norms[0].weight = nn.Parameter(torch.ones(4))  # as sharding and loading swap them
    assert epsilons.of(norms[0].weight) == 0.1


@pytest.mark.parametrize(("family", "overrides"), _SOME)
def test_recomputed_layers_have_the_same_gradients(family, overrides):
    host = Hosted(family, dropout=0.2)
    wanted = host.gradients()
    host.network.gradient_checkpointing_enable({"use_reentrant": False})
    assert _equal(host.gradients(), wanted)


def test_a_second_backward_pass_through_one_graph_is_like_the_first():
    host = Hosted(_CASES[0].values[0], dropout=0.2)
    loss = host.loss()
    first = torch.autograd.grad(loss, host.factors, retain_graph=True)
    assert _equal(torch.autograd.grad(loss, host.factors), first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, host.factors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_is_that_of_dropout(dtype):
    x = torch.randn(64, 33).to(dtype)
    torch.manual_seed(0)
    wanted = F.dropout(x, 0.3)
    torch.manual_seed(0)
    assert torch.equal(x * dropout_noise(x, 0.3), wanted)
    assert dropout_noise(x, 0.0) is None
    assert dropout_noise(x[:0], 0.3) is None


def _held(host):
    """Return the bytes of the tensors that the graph of one forward pass keeps, weights aside."""
    weights = [*host.network.parameters(), *host.network.buffers(), *host.factors]
    known = {t.untyped_storage().data_ptr() for t in weights}
    loss = host.loss((4, 32))
    found, open_nodes, seen = {}, [loss.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        open_nodes += [following for following, _ in node.next_functions]
        kept = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        kept += getattr(node, "saved_tensors", ())
        found |= {t.untyped_storage().data_ptr(): t for t in kept if isinstance(t, torch.Tensor)}
    return sum(t.untyped_storage().nbytes() for at, t in found.items() if at not in known)


def test_nothing_else_holds_an_input_that_is_not_kept():
    adapter = Lora(8, 4, rank=2, alpha=2.0, dropout=0.0)
    shared = SharedInput([_attachment(adapter), _attachment(copy.deepcopy(adapter))])
    x = F.gelu(_H.clone().requires_grad_())
    outputs = [shared.output(member, x) for member in shared.members]
    died = weakref.ref(x)
    del x
    assert died() is None
    sum(y.sum() for y in outputs).backward()
    assert adapter.A.grad is not None


def _attachment(adapter):
    site, linear = Site(SiteKey(0, "q_proj"), "q_proj", 8, 4), nn.Linear(8, 4).requires_grad_(False)
    return LinearAttachment(site, linear, adapter, fused_lora.fused_lora_forward)


@pytest.mark.parametrize(("family", "overrides"), _CASES)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_adapters_keep_little_beyond_the_frozen_network(family, overrides, dropout, monkeypatch):
    if family.name == "deberta":
        pytest.skip("its attention keeps more once relative keys have gradients")
    host = Hosted(family, dropout=dropout, **overrides)
    ours = _held(host)
    monkeypatch.setattr(fused_lora, "flat_remake_of", _never)
    kept = _held(host)
    for attachment in host.attachments.values():
        attachment.enabled = False
    floor = _held(host)
    # z, and a byte for each number of noise, of every token; where norms come after their part, the first
    # layer reads a sum, which nothing makes again.
    bytes_of_token = sum(4 * 3 + (site.in_features if dropout else 0) for site in host.sites.values())
    bytes_of_token += 4 * host.network.config.hidden_size if overrides else 0
    assert ours - floor == 4 * 32 * bytes_of_token
    assert kept - ours > 4 * 32 * host.network.config.num_hidden_layers * 4 * host.network.config.hidden_size
