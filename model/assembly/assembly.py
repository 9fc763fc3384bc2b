"""Put a backbone and its adapters together: decide what goes where, attach it, load its tensors."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.runs.adapter_record import FLOW
from configs.runtime import kinds
from configs.runtime.faults import InputFault
from model.assembly.decide import Decision, decide
from model.assembly.memory import require_memory
from model.assembly.outside_layers import add_outside, split_outside
from model.assembly.placement import Plans
from model.exchange.factors import Factors
from model.exchange.foreign.tokenizer import tokenizer_note
from model.exchange.fusion import at_sites
from model.exchange.load import load_adapter
from model.exchange.peft_format import PeftAdapter, read
from model.injection.attach import attach, locate
from model.injection.attachment import Attachment
from model.injection.residual_stream import NormMode, Stream
from model.network.backbone import Backbone
from model.network.family import Family, dimensions
from model.network.modules_to_save import train_in_full
from model.network.quantization import quantize
from model.plan.freezing_rule import Freezing
from model.site import Site, SiteKey


@dataclass(frozen=True)
class Assembled:
    """A network ready to train or test.

    Args:
        backbone: network, tokenizer, family.
        sites: every linear site of the network.
        attachments: adapters by site; empty for a plain model.
        methods: kind of adapter by site.
        head: dotted names of the task's head and of modules whose weights the base lacked.
        notes: lines to show once.
        metadata: the metadata.json of a loaded adapter.
        stream: the network's layers, where shortcuts sit in them.
        switches: modules that a history of reallocations decides about -> whether they are on.
        modules_to_save: dotted names of further modules that train and are saved whole.
        freezing: when matrices stop training; None: never.
        outside: modules outside the layers whose LoRA was added to their weight.
        fused: the record of the trained LoRA sets that gates weigh; None without any.
    """

    backbone: Backbone
    sites: Mapping[SiteKey, Site]
    attachments: Mapping[SiteKey, Attachment]
    methods: Mapping[SiteKey, str]
    head: tuple[str, ...]
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    stream: Stream | None = None
    switches: Mapping[SiteKey, bool] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    freezing: Freezing | None = None
    outside: tuple[str, ...] = ()
    fused: Mapping[str, Any] | None = None

    @property
    def saved_modules(self) -> tuple[str, ...]:
        """Every module that trains and is saved whole."""
        return (*self.head, *self.modules_to_save)

    @property
    def network(self) -> PreTrainedModel:
        """The host network."""
        return self.backbone.network

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of a network that reads or writes text."""
        assert self.backbone.tokenizer is not None  # a base without one is refused where it is loaded
        return self.backbone.tokenizer

    @property
    def layers(self) -> list[nn.Module]:
        """The network's layers in order."""
        family, network = self.backbone.family, self.network
        count = dimensions(network.config).layers
        return [network.get_submodule(family.layer.format(layer=number)) for number in range(count)]

    def counts_by_role(self) -> dict[str, int]:
        """Return the number of attached adapters by role."""
        counts: dict[str, int] = {}
        for key in self.attachments:
            counts[key.role] = counts.get(key.role, 0) + 1
        return counts


def assemble(
    backbone: Backbone,
    plans: Plans,
    adapter: Path | None,
    seed: int,
    norm: NormMode | None = None,
    opened: PeftAdapter | None = None,
) -> Assembled:
    """Attach adapters as the plans or an adapter's files decide, and load the adapter's tensors.

    Args:
        backbone: the loaded network.
        plans: the configurations, and which modules are on; an empty one lets the adapter decide.
        adapter: a directory in PEFT format, or None.
        seed: the run's seed, which initial values are drawn from.
        norm: how shortcuts join the residual stream; None: as the adapter records it.
        opened: what was read of the adapter already, of sets to fuse, or of a Flow adapter whose sets moved.

    Raises:
        InputFault: when plans, adapter and network do not fit each other.
    """
    network, head = backbone.network, backbone.trained_modules
    file: PeftAdapter | None = None
    outside: dict[str, Factors] = {}
    if adapter is not None:
        read_file = read(adapter) if opened is None else opened
        file, outside = split_outside(network, backbone.family, _in_order(backbone, read_file))
        layers = dimensions(network.config).layers
        file = at_sites(file, locate(network, backbone.family, layers).values(), network.config.hidden_size)
        _require_tokens(file, backbone.family)
    decision = decide(network, backbone.family, head, plans, file, norm)
    attachments = attach_decided(network, decision, seed)
    saved = {} if file is None else file.head
    notes = backbone.notes + decision.notes + train_in_full(network, decision.modules_to_save, saved)
    if file is not None and adapter is not None:
        notes += tokenizer_note(adapter, backbone.tokenizer)
        load_adapter(network, attachments, decision.methods, file)
        notes += add_outside(network, outside)
        notes += file.notes + _base_note(backbone, file) + _head_note(backbone, file)
    if file is not None and file.sets:
        _freeze_head(network, head)
    assembled = Assembled(
        backbone,
        decision.linears,
        attachments,
        decision.methods,
        head,
        notes=notes,
        metadata=None if file is None else file.metadata,
        stream=decision.stream,
        switches=plans.switches or {},
        modules_to_save=decision.modules_to_save,
        freezing=plans.freezing,
        outside=tuple(outside),
        fused=None if file is None else file.metadata.get(FLOW),
    )
    if backbone.quantizer is not None:  # last, when it is known which linears stay frozen
        quantize(assembled.layers, kinds.load(kinds.QUANTIZERS, backbone.quantizer))
    return assembled


def attach_decided(network: nn.Module, decision: Decision, seed: int) -> dict[SiteKey, Attachment]:
    """Attach an adapter with its initial values at every site that has a configuration, and wire shortcuts.

    Args:
        network: the host; its state-dict keys do not change.
        decision: which adapter goes where.
        seed: each adapter's initial values depend on it and the site alone.

    Raises:
        InputFault: naming file and key, when a kind cannot be built as it is configured.
    """
    sites, stream = decision.sites, decision.stream
    if stream is not None:
        stream.wire(decision.renormed)
    attachments: dict[SiteKey, Attachment] = {}
    on_meta = next(network.parameters()).device.type == "meta"
    for part in (decision.lora, decision.shortcuts):
        if not on_meta:
            require_memory(sites, part.configs, part.source)
        attachments |= attach(network, sites, part.configs, seed, part.source, stream)
    return {key: attachments[key] for key in sorted(attachments)}


def _require_tokens(file: PeftAdapter, family: Family) -> None:
    """Refuse gates by token at linears that also project what has no token."""
    keys = [one.recipe.keys for one in file.extra.values()] if file.sets else []
    roles = {name.rpartition("/")[2] for name in file.extra} & set(family.not_only_tokens)
    if roles and any(one.get("combine") == "gate" for one in keys):
        raise InputFault(
            f"--adapter: {file.source} adapts {min(roles)}, which in a {family.name} network also projects"
            ' positions, and a position has no token to weigh by; [flow] combine = "bias", "uniform" or'
            ' "constant" can be used'
        )


def _freeze_head(network: nn.Module, head: Collection[str]) -> None:
    """Leave the head as the last set has it: of fused sets only the gates train."""
    for name in head:
        network.get_submodule(name).requires_grad_(False)


def fully_trained(backbone: Backbone) -> Assembled:
    """Return a network without adapters whose every weight trains."""
    backbone.network.requires_grad_(True)
    return Assembled(backbone, {}, {}, {}, backbone.trained_modules, backbone.notes)


def _in_order(backbone: Backbone, file: PeftAdapter) -> PeftAdapter:
    """Put the head of an adapter that names no classes into the order of the base's reordered head."""
    if not backbone.order or file.metadata.get("labels"):
        return file
    order = list(backbone.order)
    head = {
        name: value[order] if name.startswith(f"{backbone.output}.") else value
        for name, value in file.head.items()
    }
    return replace(file, head=head)


def _base_note(backbone: Backbone, adapter: PeftAdapter) -> tuple[str, ...]:
    """Note a base other than the one that the adapter was trained on."""
    recorded, loaded = adapter.metadata.get("base_digest"), backbone.digest
    if not isinstance(recorded, str) or recorded == loaded:
        return ()
    return (f"{adapter.source}: was trained on another base (digest {recorded[:12]}, loaded {loaded[:12]})",)


def _head_note(backbone: Backbone, adapter: PeftAdapter) -> tuple[str, ...]:
    """Name what neither base nor adapter holds: by itself PEFT saves DeBERTa's classifier, not its pooler."""
    modules = backbone.new_modules
    lacking = [one for one in modules if not any(name.startswith(f"{one}.") for name in adapter.head)]
    if not lacking:
        return ()
    what = ", ".join(lacking)
    return (f"{adapter.source}: neither the adapter nor the base holds {what}; initialised at random",)


def require_base(backbone: Backbone, facts: Mapping[str, Any]) -> None:
    """Refuse a base other than the one a checkpoint was trained on.

    Raises:
        InputFault: naming both digests.
    """
    if facts["base_digest"] != backbone.digest:
        raise InputFault(
            f"--backbone-model: {backbone.word} has digest {backbone.digest[:12]}, the checkpoint was trained"
            f" on {facts['base']} with digest {facts['base_digest'][:12]}"
        )


def require_shortcuts(assembled: Assembled, word: str, *, wanted: bool, where: str) -> None:
    """Refuse an adapter with shortcuts for a model without them, and the other way round.

    Args:
        assembled: the network with its adapters.
        word: the value of `--model`.
        wanted: whether that model has shortcuts.
        where: the adapter's directory.

    Raises:
        InputFault: naming the flag that is missing or wrong.
    """
    if wanted and assembled.stream is None:
        raise InputFault(f"--shortcut-config: required with '{word}', as {where} has no shortcuts")
    if not wanted and assembled.stream is not None:
        raise InputFault(f"--model: {where} has shortcuts; did you mean '{word}_ags'?")
