"""Replace experts by a plain LoRA in which each expert has its mean weight over a set of texts.

Source: ours; Tian et al. 2024 (arXiv 2404.19245) keep the router. The delta that depends on the token,
(alpha / R) sum_i w_i(x) B_i A x, becomes (alpha / R) (sum_i mean(w_i) B_i) A x; the error of that is
measured on the same texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.runtime.files import replacing_directory
from configs.schema.batch_keys import IGNORE_INDEX
from model.assembly.assembly import Assembled
from model.assembly.router_usage import RouterRecorder, RouterUsage
from model.exchange.factors import Factors
from model.exchange.load import attach_peft
from model.exchange.peft_format import PeftAdapter, read, write
from model.injection.attachment import Attachment
from model.site import SiteKey
from model.training.objective import Batch, Objective, inputs

ROWS = 8
"""Texts of a batch."""
_LEFT_OUT = ("extra", "sha256", "training_alpha")
"""Keys of the metadata that describe tensors which the average replaces."""


@dataclass
class AveragingError:
    """The differences between experts and their average, over every position that is no padding.

    Args:
        largest: largest absolute difference of a logit.
        squares: sum of squared differences.
        size: sum of squared logits of the experts.
        agreed: positions (rows, for a classifier) with the same argmax.
        positions: how many there are.
        losses: summed next-token loss of the experts and of the average; zero for a classifier.
        targets: number of tokens of these sums.
        metrics: metrics of the experts and of the average on examples with labels; empty without labels.
    """

    largest: float = 0.0
    squares: float = 0.0
    size: float = 0.0
    agreed: int = 0
    positions: int = 0
    losses: tuple[float, float] = (0.0, 0.0)
    targets: int = 0
    metrics: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {})

    def add(self, experts: Tensor, average: Tensor) -> None:
        """Add logits of the same positions. experts, average: (positions, C)."""
        difference = (experts - average).double()
        self.largest = max(self.largest, difference.abs().max().item())
        self.squares += difference.square().sum().item()
        self.size += experts.double().square().sum().item()
        self.agreed += int((experts.argmax(-1) == average.argmax(-1)).sum())
        self.positions += len(experts)

    def lines(self) -> list[str]:
        """Return the report, line by line."""
        relative = (self.squares / self.size) ** 0.5 if self.size else 0.0
        lines = [
            f"logits: relative difference {relative:.3g} (root mean square), largest difference"
            f" {self.largest:.3g}",
            f"same prediction (argmax): {self.agreed} of {self.positions} positions",
        ]
        routed, averaged = self.metrics
        if self.targets:
            routed, averaged = ({"loss": loss / self.targets} for loss in self.losses)
        for name in sorted(routed, key=lambda name: (name != "loss", name)):
            a, b = routed[name], averaged[name]
            lines.append(f"{name}: {a:.6g} with routers, {b:.6g} averaged, {b - a:+.3g}")
        return lines


def export_average(
    assembled: Assembled,
    batches: Sequence[Batch],
    adapter: PeftAdapter,
    directory: Path,
    facts: Mapping[str, Any],
    objective: Objective | None = None,
) -> AveragingError:
    """Write the average as a PEFT adapter and return its error on the batches.

    Args:
        assembled: the network with the experts.
        batches: what the mean weights are taken over (`text_batches`, or examples with labels).
        adapter: the files of the experts, whose head and metadata the average keeps.
        directory: where the LoRA goes; it must not exist.
        facts: what `peft_format.write` takes: task_type, base, dropout.
        objective: evaluates examples with labels; None for texts without.

    Raises:
        InputFault: for adapters that have no average.
    """
    with RouterRecorder(assembled.network, assembled.attachments) as record, torch.no_grad():
        for batch in batches:
            assembled.network(**inputs(batch))
    modules = averaged_factors(assembled, record.usage().get("", {}))
    metadata = {name: value for name, value in adapter.metadata.items() if name not in _LEFT_OUT}
    count = sum(len(batch["input_ids"]) for batch in batches)
    metadata["averaged"] = {"texts": count, "methods": sorted(set(assembled.methods.values()))}
    saved = [name for name in assembled.head if any(one.startswith(f"{name}.") for one in adapter.head)]
    with replacing_directory(directory) as draft:
        write(draft, PeftAdapter(modules, adapter.head, metadata, saved), **facts)
        return _compared(assembled, read(draft), batches, objective)


def averaged_factors(assembled: Assembled, usage: Mapping[SiteKey, RouterUsage]) -> dict[str, Factors]:
    """Return the LoRA that averages the adapter of every module that is on, by the module's full name.

    Args:
        assembled: the network with the experts.
        usage: mean weights by site.

    Raises:
        InputFault: naming the first site whose adapter has no average.
    """
    modules = {}
    for key, attachment in assembled.attachments.items():
        if not attachment.active:
            continue
        kind = kinds.load(kinds.ADAPTERS, assembled.methods[key])
        adapter = attachment.adapter
        if kind.export is not None:
            a, b, scale = kind.export(adapter)
        elif kind.average is not None:
            weights = torch.tensor(usage[key].weights) if key in usage else None
            a, b, scale = kind.average(adapter, weights)
        else:
            raise InputFault(f"--adapter: {key}: no LoRA is an average of '{assembled.methods[key]}'")
        modules[attachment.site.path] = Factors(a.detach(), b.detach(), scale * attachment.strength)
    return modules


def text_batches(assembled: Assembled, texts: Sequence[str]) -> list[Batch]:
    """Return texts as batches of token ids, 512 tokens of each at most, padded on the right."""
    backbone, tokenizer = assembled.backbone, assembled.tokenizer
    limit = min(512, backbone.family.positions(backbone.network.config))
    batches: list[Batch] = []
    for start in range(0, len(texts), ROWS):
        encoded = tokenizer(
            list(texts[start : start + ROWS]),
            return_tensors="pt",
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=limit,
        )
        batches.append(dict(encoded))
    return batches


@torch.no_grad()
def _compared(
    assembled: Assembled,
    file: PeftAdapter,
    batches: Sequence[Batch],
    objective: Objective | None,
) -> AveragingError:
    """Compare the experts with the written LoRA, batch by batch; the experts are on again afterwards."""
    network, experts, errors = assembled.network, list(assembled.attachments.values()), AveragingError()
    were_on = [one for one in experts if one.enabled]
    fresh = list(attach_peft(network, assembled.sites, file).values())
    device = next(network.parameters()).device
    evaluations = [] if objective is None else [objective.evaluation(device) for _ in range(2)]
    for batch in batches:
        both = []
        for number, chosen in enumerate((were_on, fresh)):
            _switch(chosen, [*fresh, *experts])
            both.append(network(**inputs(batch)).logits.float())
            if objective is not None:
                objective.evaluate(network, batch, evaluations[number])
        _add(errors, batch, both, has_labels=objective is not None)
    _switch(were_on, [*fresh, *experts])
    if evaluations:
        errors.metrics = (evaluations[0].compute(), evaluations[1].compute())
    return errors


def _switch(chosen: Sequence[Attachment], everything: Sequence[Attachment]) -> None:
    """Put the chosen attachments on and all others off."""
    # First all off, then some on: one that goes off removes the forward of the other at its linear.
    for one in everything:
        one.enabled = False
    for one in chosen:
        one.enabled = True


def _add(errors: AveragingError, batch: Batch, both: Sequence[Tensor], *, has_labels: bool) -> None:
    """Add a batch's logits, (B, C) or (B, T, C), of experts and average, padding left out."""
    if both[0].ndim == 3:
        if not has_labels:
            _add_loss(errors, batch, both)
        keep = batch["attention_mask"].bool()
        both = [one[keep] for one in both]
    errors.add(*both)


def _add_loss(errors: AveragingError, batch: Batch, both: Sequence[Tensor]) -> None:
    """Add the next-token losses. both: logits (B, T, C) of experts and average."""
    targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)[:, 1:].flatten()
    sums = [
        F.cross_entropy(one[:, :-1].flatten(0, 1), targets, ignore_index=IGNORE_INDEX, reduction="sum").item()
        for one in both
    ]
    errors.losses = (errors.losses[0] + sums[0], errors.losses[1] + sums[1])
    errors.targets += int((targets != IGNORE_INDEX).sum())
