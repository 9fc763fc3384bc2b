"""One linear layer with two LoRA modules, small enough to write every formula out by hand."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from model.adapters.methods.lora import Lora
from model.injection.linear_attachment import LinearAttachment
from model.search.heuristic import Probe
from model.site import Site, SiteKey


class Host(nn.Module):
    """y = W2 tanh(W1 x), with the embedding of ids as x."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.config = SimpleNamespace()
        self.embedding = nn.Embedding(9, 5)
        self.first = nn.Linear(5, 4, bias=False)
        self.second = nn.Linear(4, 3, bias=False)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        self.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None) -> SimpleNamespace:
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        return SimpleNamespace(logits=self.second(torch.tanh(self.first(x))).mean(1))


@dataclass
class Squares:
    """The loss: the mean square of the outputs."""

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        named = {name: tensor for name, tensor in batch.items() if name in ("input_ids", "inputs_embeds")}
        return network(**named).logits.square().mean()


FIRST, SECOND = SiteKey(0, "w1"), SiteKey(0, "w2")


def scene(**changes) -> Probe:
    """Return a probe over the host's two modules, B away from zero, and two batches."""
    host, draw = Host(), torch.Generator().manual_seed(1)
    attachments = {}
    for key, linear in ((FIRST, host.first), (SECOND, host.second)):
        lora = Lora(linear.in_features, linear.out_features, rank=2, alpha=3.0, dropout=0.0).double()
        for parameter in lora.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        attachments[key] = LinearAttachment(
            Site(key, str(key), linear.in_features, linear.out_features), linear, lora
        )
    batches = [{"input_ids": torch.tensor([[1, 2], [3, 4]])}, {"input_ids": torch.tensor([[5, 6]])}]
    return Probe(host.eval(), Squares(), attachments, batches, **changes)


def by_hand(probe: Probe, x: Tensor, tensors: dict[SiteKey, tuple[Tensor, Tensor]], weights=None) -> Tensor:
    """Return the outputs of plain tensors: A (R, D_in) and B (D_out, R) of each module; scale 3 / 2."""
    first, second = weights or (probe.network.first.weight, probe.network.second.weight)
    (a1, b1), (a2, b2) = tensors[FIRST], tensors[SECOND]
    hidden = torch.tanh(x @ (first + 1.5 * b1 @ a1).T)
    return (hidden @ (second + 1.5 * b2 @ a2).T).mean(1)


def plain_factors(probe: Probe) -> dict[SiteKey, tuple[Tensor, Tensor]]:
    """Return copies of A and B that require gradients."""
    return {
        key: tuple(attachment.adapter.factors()[name].detach().clone().requires_grad_() for name in "AB")
        for key, attachment in probe.attachments.items()
    }


def batch_gradients(probe: Probe) -> tuple[dict, list[list[Tensor]]]:
    """Return the plain factors and, for each batch, the gradients of its loss at A1, B1, A2, B2."""
    factors = plain_factors(probe)
    flat = [tensor for pair in factors.values() for tensor in pair]
    losses = [
        by_hand(probe, probe.network.embedding(batch["input_ids"]), factors).square().mean()
        for batch in probe.batches
    ]
    return factors, [list(torch.autograd.grad(loss, flat)) for loss in losses]
