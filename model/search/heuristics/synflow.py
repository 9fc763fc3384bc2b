"""SYNFLOW: how much of the flow through the network passes a module, without looking at data.

Source: Tanaka et al. 2020, arXiv 2006.05467, equations 1 and 3: under R = the network's output for an input
of ones with every weight replaced by its size, a weight's score is w * dR/dw; here summed over a module,
S = sum |A * dR/dA| + sum |B * dR/dB|.
Differs: the input of ones stands at the embeddings' output, under the attention mask of the first batch; R is
the sum of all outputs, or with `synflow_objective = "loss"` the task's loss on that batch's labels, as the
HeteroLoRA code has it. It is computed on a copy in double precision, since a product of many layers leaves
single precision's range; a copy also needs no restoring, while abs and sign would not give -0.0 back. With
equal embeddings everywhere attention weights cannot matter where positions are not added to them: q and k of
such decoders score 0 up to rounding. It is exactly zero where B = 0, so a static test draws B at random.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.network.quantization import dequantize
from model.search.eval_checkpointing import recomputed
from model.search.gradients import slopes, trained_factors
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey
from model.training.objective import Batch, inputs, is_frozen_linear


@dataclass(frozen=True)
class SynflowOptions:
    """Options of SYNFLOW.

    Args:
        synflow_objective: `sum` of all outputs, or the task's `loss`.
    """

    synflow_objective: str = "sum"


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    # Whoever holds the first batch computes; the sum over processes tells the others.
    scores = torch.zeros(len(probe.attachments), dtype=torch.float64, device=probe.device)
    for batch in probe.watch(probe.batches[:1], "scoring"):
        scores += _scores(probe, batch)
    return dict(zip(probe.attachments, probe.reduce(scores).tolist()))


def _scores(probe: Probe, batch: Batch) -> Tensor:
    """Return the score of every attachment in order, in float64."""
    network, attachments = copy.deepcopy((probe.network, dict(probe.attachments)))
    dequantize(network)
    for module in (network, *attachments.values()):
        module.double()
        for parameter in module.parameters():
            parameter.data.abs_()
    width = network.get_input_embeddings().weight.shape[1]
    shape = (*batch["input_ids"].shape, width)
    ones = {"inputs_embeds": torch.ones(shape, dtype=torch.float64, device=probe.device)}
    ones |= {name: tensor for name, tensor in batch.items() if name != "input_ids"}
    with torch.autocast(probe.device.type, enabled=False), recomputed(network):
        if probe.options.synflow_objective == "loss":
            flow = probe.objective.loss(network, ones)
        else:
            _collapse_head(network)
            flow = network(**inputs(ones)).logits.sum()
    found = slopes(flow, trained_factors(attachments)).values()
    return torch.stack([sum((s.weight * s.gradient).abs().sum() for s in group) for group in found]).detach()


def _collapse_head(network: nn.Module) -> None:
    """Let a plain language-model head put out the sum over its vocabulary at once: it is linear."""
    head = network.get_output_embeddings()
    if head is None or not is_frozen_linear(head, network.config):
        return
    total = nn.Linear(head.in_features, 1, bias=head.bias is not None, dtype=torch.float64)
    total.requires_grad_(False).to(head.weight.device)
    total.weight.copy_(head.weight.sum(0, keepdim=True))
    if head.bias is not None:
        total.bias.copy_(head.bias.sum(0, keepdim=True))
    network.set_output_embeddings(total)


HEURISTIC = HeuristicKind(_score, SynflowOptions, most_batches=1, random_b=True)
