"""SYNFLOW: how much of the synaptic flow through the network passes a module, independent of data.

    S = sum |A * dR/dA| + sum |B * dR/dB|
    R = the network's output for an input of ones, every weight replaced by its absolute value

Source: Tanaka et al. 2020, arXiv 2006.05467, equations 1 and 3, summed over a module.
Differs: the input of ones replaces the embeddings' output, under the attention mask of the first batch; R is
the sum of all outputs, or with `synflow_objective = "loss"` the task's loss on that batch's labels, as in the
HeteroLoRA code. It is computed on a copy in double precision, since a product of many layers leaves the range
of single precision; a copy also needs no restoring, where abs and sign would lose -0.0. With equal embeddings
at all positions attention weights cannot matter in decoders that do not add positions to them: their q and k
score 0 up to rounding. S is exactly zero where B = 0, so a static test draws B at random for it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.network.quantization import dequantize
from model.search.eval_checkpointing import checkpointing_in_eval
from model.search.gradients import factor_gradients, trained_factors
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
    # The process that has the first batch computes; the sum over processes gives all of them the scores.
    scores = torch.zeros(len(probe.attachments), dtype=torch.float64, device=probe.device)
    for batch in probe.progress(probe.batches[:1], "scoring"):
        scores += _scores(probe, batch)
    return dict(zip(probe.attachments, probe.reduce(scores).tolist()))


def _scores(probe: Probe, batch: Batch) -> Tensor:
    """Return the score of every attachment in order: (attachments,), in float64."""
    network, attachments = copy.deepcopy((probe.network, dict(probe.attachments)))
    dequantize(network)
    for module in (network, *attachments.values()):
        module.double()
        for parameter in module.parameters():
            parameter.data.abs_()
    embeddings: Any = network.get_input_embeddings()  # typed as a module; it has a weight (vocabulary, D)
    shape = (*batch["input_ids"].shape, embeddings.weight.shape[1])
    ones = {"inputs_embeds": torch.ones(shape, dtype=torch.float64, device=probe.device)}
    ones |= {name: tensor for name, tensor in batch.items() if name != "input_ids"}
    with torch.autocast(probe.device.type, enabled=False), checkpointing_in_eval(network):
        if probe.options.synflow_objective == "loss":
            flow = probe.objective.loss(network, ones)
        else:
            _collapse_head(network)
            flow = network(**inputs(ones)).logits.sum()
    zero = torch.zeros((), dtype=torch.float64, device=probe.device)
    found = factor_gradients(flow, trained_factors(attachments)).values()
    scores = [sum(((one.weight * one.gradient).abs().sum() for one in group), start=zero) for group in found]
    return torch.stack(scores).detach()


def _collapse_head(network: PreTrainedModel) -> None:
    """Replace a linear language-model head by one that outputs the sum over its vocabulary."""
    head = network.get_output_embeddings()
    if not is_frozen_linear(head, network.config):
        return
    total = nn.Linear(head.in_features, 1, bias=head.bias is not None, dtype=torch.float64)
    total.requires_grad_(False).to(head.weight.device)
    total.weight.copy_(head.weight.sum(0, keepdim=True))
    if head.bias is not None:
        total.bias.copy_(head.bias.sum(0, keepdim=True))
    network.set_output_embeddings(total)


HEURISTIC = HeuristicKind(_score, SynflowOptions, max_batches=1, random_b=True)
