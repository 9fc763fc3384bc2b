"""Put a plain LoRA in the place of experts: each part weighs what its router gave it on average over texts.

Source: ours; Tian et al. 2024 (arXiv 2404.19245) keep the router. The delta that depends on the token,
(alpha / R) sum_i w_i(x) B_i A x, becomes (alpha / R) (sum_i mean(w_i) B_i) A x, and what that costs is
measured on the very texts.
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
from model.assembly.router_usage import RouterRecord, Usage
from model.exchange.load import attach_peft
from model.exchange.peft_format import Factors, PeftAdapter, read, write
from model.injection.attachment import Attachment
from model.site import SiteKey
from model.training.objective import Batch, Objective, inputs

ROWS = 8
"""Of a batch."""
_LEFT_OUT = ("extra", "sha256", "training_alpha")
"""What metadata says of the tensors that the average replaces."""


@dataclass
class Errors:
    """How far the average is from the experts, over every position that is no padding.

    Args:
        largest: largest difference of a logit.
        squares: sum of squared differences.
        size: sum of squared logits of the experts.
        agreed: positions (rows, for a classifier) whose largest logit is the same.
        positions: how many there are.
        losses: summed next-token loss of the experts and of the average; zero for a classifier.
        targets: tokens those are over.
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
        """Return what a person reads."""
        relative = (self.squares / self.size) ** 0.5 if self.size else 0.0
        said = [
            f"logits: differ by {relative:.3g} of their size (root mean square), {self.largest:.3g} at most",
            f"same first choice: {self.agreed} of {self.positions} positions",
        ]
        metrics = self.metrics
        if self.targets:
            metrics = tuple({"loss": loss / self.targets} for loss in self.losses)
        names = sorted(metrics[0], key=lambda name: (name != "loss", name))
        pairs = [(name, metrics[0][name], metrics[1][name]) for name in names]
        return said + [
            f"{name}: {a:.6g} with routers, {b:.6g} averaged, {b - a:+.3g}" for name, a, b in pairs
        ]


def average(
    assembled: Assembled,
    batches: Sequence[Batch],
    adapter: PeftAdapter,
    directory: Path,
    facts: Mapping[str, Any],
    objective: Objective | None = None,
) -> Errors:
    """Write the average as a PEFT adapter and return its error on the batches.

    Args:
        assembled: the network with the experts.
        batches: what the average is taken over (`text_batches`, or examples with labels).
        adapter: what the files of the experts hold; head and metadata are taken over.
        directory: where the LoRA goes; it must not exist.
        facts: what `peft_format.write` takes: task_type, base, dropout.
        objective: measures examples with labels; None for texts without.

    Raises:
        InputFault: for adapters that no LoRA can stand for.
    """
    with RouterRecord(assembled.network, assembled.attachments) as record, torch.no_grad():
        for batch in batches:
            assembled.network(**inputs(batch))
    modules = averaged(assembled, record.usage().get("", {}))
    metadata = {name: value for name, value in adapter.metadata.items() if name not in _LEFT_OUT}
    count = sum(len(batch["input_ids"]) for batch in batches)
    metadata["averaged"] = {"texts": count, "methods": sorted(set(assembled.methods.values()))}
    held = {name: any(one.startswith(f"{name}.") for one in adapter.head) for name in assembled.head}
    saved = [name for name, is_held in held.items() if is_held]
    with replacing_directory(directory) as draft:
        write(draft, PeftAdapter(modules, adapter.head, metadata, saved), **facts)
        return _compared(assembled, read(draft), batches, objective)


def averaged(assembled: Assembled, usage: Mapping[SiteKey, Usage]) -> dict[str, Factors]:
    """Return the LoRA of every module that is on, by its full name.

    Raises:
        InputFault: naming the first site whose adapter no LoRA can stand for.
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
            raise InputFault(f"--adapter: {key}: no LoRA can stand for '{assembled.methods[key]}'")
        modules[attachment.site.path] = Factors(a.detach(), b.detach(), scale * attachment.strength)
    return modules


def text_batches(assembled: Assembled, texts: Sequence[str]) -> list[Batch]:
    """Return texts as batches of tokens, 512 of each at most, padded on the right."""
    backbone = assembled.backbone
    limit = min(512, backbone.family.positions(backbone.network.config))
    found = []
    for start in range(0, len(texts), ROWS):
        rows = list(texts[start : start + ROWS])
        settings = {"padding": True, "padding_side": "right", "truncation": True, "max_length": limit}
        found.append(dict(backbone.tokenizer(rows, return_tensors="pt", **settings)))
    return found


@torch.no_grad()
def _compared(
    assembled: Assembled,
    file: PeftAdapter,
    batches: Sequence[Batch],
    objective: Objective | None,
) -> Errors:
    """Compare the experts with the written LoRA, batch by batch; the experts are on again afterwards."""
    network, experts, errors = assembled.network, list(assembled.attachments.values()), Errors()
    were_on = [one for one in experts if one.enabled]
    fresh = list(attach_peft(network, assembled.sites, file).values())
    device = next(network.parameters()).device
    measured = [None if objective is None else objective.evaluation(device) for _ in range(2)]
    for batch in batches:
        both = []
        for chosen, metrics in zip((were_on, fresh), measured):
            _switch(chosen, [*fresh, *experts])
            both.append(network(**inputs(batch)).logits.float())
            if objective is not None:
                objective.evaluate(network, batch, metrics)
        _add(errors, batch, both, has_labels=objective is not None)
    _switch(were_on, [*fresh, *experts])
    if objective is not None:
        errors.metrics = (measured[0].compute(), measured[1].compute())
    return errors


def _switch(chosen: Sequence[Attachment], among: Sequence[Attachment]) -> None:
    """Put the chosen attachments on and all others off."""
    # First all off, then some on: whoever goes takes the other's forward away.
    for one in among:
        one.enabled = False
    for one in chosen:
        one.enabled = True


def _add(errors: Errors, batch: Batch, both: Sequence[Tensor], *, has_labels: bool) -> None:
    """Add a batch's logits, (B, C) or (B, T, C), of experts and average; without padding."""
    if both[0].ndim == 3:
        if not has_labels:
            _add_loss(errors, batch, both)
        keep = batch["attention_mask"].bool()
        both = [one[keep] for one in both]
    errors.add(*both)


def _add_loss(errors: Errors, batch: Batch, both: Sequence[Tensor]) -> None:
    """Add the loss of every next token. both: logits (B, T, C)."""
    targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)[:, 1:].flatten()
    sums = [
        F.cross_entropy(one[:, :-1].flatten(0, 1), targets, ignore_index=IGNORE_INDEX, reduction="sum").item()
        for one in both
    ]
    errors.losses = (errors.losses[0] + sums[0], errors.losses[1] + sums[1])
    errors.targets += int((targets != IGNORE_INDEX).sum())
