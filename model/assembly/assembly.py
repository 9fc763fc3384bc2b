"""Put a backbone and its adapters together as a plan, a PEFT adapter or a checkpoint says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from model.assembly.placement import Plans
from model.exchange.extra_adapters import wiring
from model.exchange.load import load_adapter, load_head, plan_of
from model.exchange.peft_format import PeftAdapter, read
from model.injection.attach import attach, check_keys, locate, locate_stream
from model.injection.attachment import Attachment
from model.injection.residual_stream import NormMode, Stream
from model.network.backbone import Backbone
from model.network.family import dimensions
from model.network.modules_to_save import find, is_within, let_train
from model.network.quantization import quantize
from model.plan.adapter_config import AdapterConfig
from model.plan.freezing_rule import Freezing
from model.plan.lora_toml import Plan
from model.plan.resolution import resolve
from model.plan.shortcut_toml import resolve_shortcuts
from model.site import Site, SiteKey


@dataclass(frozen=True)
class Assembled:
    """A network ready to train or test.

    Args:
        backbone: network, tokenizer, family.
        sites: every linear site of the network.
        attachments: adapters by site; empty for a plain model.
        methods: kind of adapter by site.
        head: dotted names of the modules of the task's head, and of what the base lacked.
        notes: lines to show once.
        metadata: what a loaded adapter's files say about how it was trained.
        stream: the network's layers, where shortcuts are planned in them.
        switches: modules that a history decides about -> whether they are on.
        whole: dotted names of further modules that train and travel whole.
        freezing: when matrices stop training; None: never.
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
    whole: tuple[str, ...] = ()
    freezing: Freezing | None = None

    @property
    def saved(self) -> tuple[str, ...]:
        """Every module that trains and travels whole."""
        return (*self.head, *self.whole)

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


def assemble(
    backbone: Backbone, plans: Plans, adapter: Path | None, seed: int, norm: NormMode | None = None
) -> Assembled:
    """Attach what the plans say and load the adapter's tensors, or let the adapter decide sites and ranks.

    Args:
        backbone: the loaded network.
        plans: the configurations, and which modules are on; an empty one lets the adapter decide.
        adapter: a directory in PEFT format, or None.
        seed: the run's seed.
        norm: how shortcuts join the sums; None: as the adapter says.

    Raises:
        InputFault: when plans, adapter and network do not fit each other.
    """
    network, size = backbone.network, dimensions(backbone.network.config)
    plan, shortcuts = plans.lora, plans.shortcuts
    file = None if adapter is None else read(adapter)
    stream = _stream(backbone, size.layers, shortcuts is not None, file, str(adapter), norm)
    linears = locate(network, backbone.family, size.layers)
    sites = linears | ({} if stream is None else locate_stream(stream))
    named = {} if file is None else plan_of(file, sites, str(adapter))
    notes: tuple[str, ...] = ()
    if plan is not None:
        resolution = resolve(plan, size, tuple(backbone.family.roles))
        beside, notes = resolution.sites, tuple(resolution.notes)
    else:
        beside = {key: config for key, config in named.items() if key in linears}
    if shortcuts is not None:
        within = resolve_shortcuts(shortcuts, size).sites
        stream.wire(within)
    else:
        within = {key: config for key, config in named.items() if key not in linears}
    plans.require({**beside, **within})
    switches = plans.switches or {}
    beside, within = (_switched(configs, switches) for configs in (beside, within))
    attachments: dict[SiteKey, Attachment] = {}
    for configs, source in ((beside, plan), (within, shortcuts)):
        where = str(adapter if source is None else source.path)
        check_keys(configs, where)
        attachments |= attach(network, sites, configs, seed, where, stream)
    methods = {key: config.method for key, config in sorted((*beside.items(), *within.items()))}
    attachments = {key: attachments[key] for key in methods}
    whole = _whole(backbone, plan, attachments, file, str(adapter))
    notes += let_train(network, whole, {} if file is None else file.head)
    if file is not None:
        load_adapter(attachments, methods, file, str(adapter))
        load_head(network, file, str(adapter))
        notes += _base_note(backbone, file.metadata, adapter) + _head_note(backbone, file.head, adapter)
    metadata, head = None if file is None else file.metadata, backbone.trained_modules
    told = (notes, metadata, stream, switches, whole, plans.freezing)
    return _quantized(Assembled(backbone, linears, attachments, methods, head, *told))


def _quantized(assembled: Assembled) -> Assembled:
    """Quantize the layers' frozen linears if the backbone asks for it, now that it is known which train."""
    quantizer = assembled.backbone.quantizer
    if quantizer is not None:
        quantize(assembled.layers, kinds.load(kinds.QUANTIZERS, quantizer))
    return assembled


def _whole(
    backbone: Backbone,
    plan: Plan | None,
    attachments: Mapping[SiteKey, Attachment],
    file: PeftAdapter | None,
    where: str,
) -> tuple[str, ...]:
    """Return the modules that train whole beside the head: those of the plan, else those of the adapter."""
    network, head = backbone.network, backbone.trained_modules
    held = {name.rpartition(".")[0] for name in (() if file is None else file.head)}
    held = {name for name in held if not is_within(name, head)}
    if plan is None:
        return tuple(name for name, _ in network.named_modules(remove_duplicate=False) if name in held)
    adapted = {attachment.site.path for attachment in attachments.values()}
    found = find(network, plan.modules_to_save, adapted, str(plan.path))
    odd = sorted(held - set(found))
    if odd:
        raise InputFault(f"{where}: holds {odd[0]} whole, which modules_to_save of {plan.path} does not name")
    return tuple(name for name in found if not is_within(name, head))


def _switched(
    configs: Mapping[SiteKey, AdapterConfig], on: Mapping[SiteKey, bool]
) -> dict[SiteKey, AdapterConfig]:
    """Return what plans the sites, on or off as a search decided where it did."""
    return {
        key: replace(config, disabled=not on[key]) if key in on else config for key, config in configs.items()
    }


def _stream(
    backbone: Backbone,
    layers: int,
    is_planned: bool,
    file: PeftAdapter | None,
    where: str,
    norm: NormMode | None,
) -> Stream | None:
    """Return the network's layers where a plan or an adapter has shortcuts, wired as the adapter says."""
    told = None if file is None else wiring(file, where)
    if told is not None and norm not in (None, told.norm):
        raise InputFault(f"--shortcut-norm: {where} was trained with '{told.norm}', got '{norm}'")
    if told is None and not is_planned:
        return None
    stream = Stream(backbone.network, backbone.family, layers, norm or (told.norm if told else "exact"))
    if told is not None:
        places = {str(key): key for key in locate_stream(stream)}
        odd = sorted(set(told.renormed) - set(places))
        if odd:
            raise InputFault(f"{where}: metadata.json: shortcuts: {odd[0]} is no place of this network")
        stream.wire([places[name] for name in told.renormed])
    return stream


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


def require_shortcuts(assembled: Assembled, word: str, *, wanted: bool, where: str) -> None:
    """Refuse an adapter that has shortcuts where the model's word says none, and the other way round.

    Raises:
        InputFault: naming the flag that is missing or wrong.
    """
    if wanted and assembled.stream is None:
        raise InputFault(f"--shortcut-config: required by '{word}', {where} has no shortcuts")
    if not wanted and assembled.stream is not None:
        raise InputFault(f"--model: {where} has shortcuts; did you mean '{word}_ags'?")
