"""Put a backbone and its adapters together as a plan, a PEFT adapter or a checkpoint says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from configs.faults import InputFault
from model.attachment import Attachment
from model.backbone import Backbone
from model.exchange import load_head, load_peft, plan_of
from model.family import dimensions
from model.injection import attach, check_keys, locate
from model.peft_format import read
from model.plan import Plan, resolve
from model.site import Site, SiteKey


@dataclass(frozen=True)
class Assembled:
    """A network ready to train or test.

    Args:
        backbone: network, tokenizer, family.
        sites: every linear site of the network.
        attachments: adapters by site; empty for a plain model.
        methods: kind of adapter by site.
        head: dotted names of modules that train and travel whole.
        notes: lines to show once.
        evaluation: what a loaded adapter's metadata says about how it was trained.
    """

    backbone: Backbone
    sites: Mapping[SiteKey, Site]
    attachments: Mapping[SiteKey, Attachment]
    methods: Mapping[SiteKey, str]
    head: tuple[str, ...]
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None

    @property
    def network(self) -> nn.Module:
        """The host network."""
        return self.backbone.network

    @property
    def layers(self) -> list[nn.Module]:
        """The network's layers in order."""
        family, network = self.backbone.family, self.network
        count = dimensions(network.config).layers
        return [network.get_submodule(family.layer.format(layer=number)) for number in range(count)]

    def matched(self) -> dict[str, int]:
        """Return the number of attached modules by role."""
        counts: dict[str, int] = {}
        for key in self.attachments:
            counts[key.role] = counts.get(key.role, 0) + 1
        return counts


def assemble(backbone: Backbone, plan: Plan | None, adapter: Path | None, seed: int) -> Assembled:
    """Attach what the plan says and load the adapter's tensors, or let the adapter decide sites and ranks.

    Args:
        backbone: the loaded network.
        plan: the LoRA configuration, or None.
        adapter: a directory in PEFT format, or None.
        seed: the run's seed.

    Raises:
        InputFault: when plan, adapter and network do not fit each other.
    """
    size = dimensions(backbone.network.config)
    sites = locate(backbone.network, backbone.family, size.layers)
    file = None if adapter is None else read(adapter)
    notes: tuple[str, ...] = ()
    if plan is not None:
        resolution = resolve(plan, size, tuple(backbone.family.roles))
        entries, where, notes = resolution.sites, str(plan.path), tuple(resolution.notes)
        check_keys(entries, where)
    else:
        entries, where = plan_of(file, sites, str(adapter)), str(adapter)
    attachments = attach(backbone.network, sites, entries, seed, where)
    methods = {key: entry.method for key, entry in entries.items()}
    if file is not None:
        load_peft(attachments, methods, file, str(adapter))
        load_head(backbone.network, file, str(adapter))
        notes += _base_note(backbone, file.metadata, adapter) + _head_note(backbone, file.head, adapter)
    metadata = None if file is None else file.metadata
    return Assembled(backbone, sites, attachments, methods, backbone.trained_modules, notes, metadata)


def plain(backbone: Backbone) -> Assembled:
    """Return a network whose every weight trains."""
    backbone.network.requires_grad_(True)
    return Assembled(backbone, {}, {}, {}, backbone.trained_modules)


def _base_note(backbone: Backbone, metadata: Mapping[str, Any], adapter: Path | None) -> tuple[str, ...]:
    recorded = metadata.get("base_digest")
    if recorded is None or recorded == backbone.digest:
        return ()
    return (
        f"{adapter}: was trained on another base (digest {recorded[:12]}, loaded {backbone.digest[:12]})",
    )


def _head_note(backbone: Backbone, head: Collection[str], adapter: Path | None) -> tuple[str, ...]:
    """Name what neither base nor adapter holds: by itself PEFT saves DeBERTa's classifier, not its pooler."""
    lacking = [m for m in backbone.new_modules if not any(name.startswith(f"{m}.") for name in head)]
    if not lacking:
        return ()
    return (f"{adapter}: does not hold {', '.join(lacking)}, nor does the base; drawn at random",)


def require_base(backbone: Backbone, facts: Mapping[str, Any]) -> None:
    """Refuse another base than the one a checkpoint's run stood on.

    Raises:
        InputFault: naming both digests.
    """
    if facts["base_digest"] != backbone.digest:
        raise InputFault(
            f"--backbone-model: {backbone.word} has digest {backbone.digest[:12]}, the checkpoint's run stood"
            f" on {facts['base']} with {facts['base_digest'][:12]}"
        )
