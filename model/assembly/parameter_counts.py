"""Count the parameters of a network with adapters from its configuration, without allocating weights."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from configs.runtime import kinds
from configs.runtime.faults import Fault, InputFault
from model.assembly.assembly import attach_decided
from model.assembly.decide import decide
from model.assembly.placement import Plans
from model.injection.attach import locate
from model.injection.attachment import Attachment
from model.network.family import Family
from model.network.modules_to_save import train_in_full
from model.network.snapshot import quiet_transformers
from model.network.source import LocalSource
from model.network.source_files import weight_files
from model.network.trained_modules import train_only
from model.plan.lora_toml import Plan
from model.site import SHORTCUT_ROLES, SiteKey
from model.tensors.weights import values_differ
from model.training.trainable_counts import trainable_counts


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters by purpose; a shared tensor counts once.

    Args:
        base: frozen parameters of the network.
        adapters: trainable parameters of adapters, routers and gates left out.
        router_or_gates: trainable parameters that weigh adapters or their parts.
        head: trainable parameters of the task's head.
        other: all other trainable parameters.
        sites_on: number of adapters that are on.
        sites: number of adapters.
        active: trainable parameters of the adapters that are on.
        freezable: trainable parameters that freezing stops during the run; None without freezing.
        is_untied: whether two embeddings are counted although config.json ties them.
    """

    base: int
    adapters: int
    router_or_gates: int
    head: int
    other: int
    sites_on: int
    sites: int
    active: int
    freezable: int | None = None
    is_untied: bool = False

    @property
    def trainable(self) -> int:
        """All trainable parameters."""
        return self.adapters + self.router_or_gates + self.head + self.other

    @property
    def trainable_at_the_end(self) -> int:
        """Trainable parameters once every matrix that can be frozen is frozen."""
        return self.trainable - (self.freezable or 0)

    @property
    def total(self) -> int:
        """All parameters."""
        return self.base + self.trainable

    @property
    def share_of_base(self) -> float:
        """Trainable parameters in percent of the frozen ones."""
        return 100 * self.trainable / self.base

    @property
    def share_without_mixing(self) -> float:
        """Trainable parameters without routers and gates, in percent of the frozen ones."""
        return 100 * (self.trainable - self.router_or_gates) / self.base

    @property
    def share_of_total(self) -> float:
        """Trainable parameters in percent of all parameters."""
        return 100 * self.trainable / self.total


def planned_counts(
    path: Path, family: Family, objective: str, outputs: int, plan: Plan, shortcuts: Plan | None = None
) -> Counts:
    """Count the parameters of a network with a head and planned adapters, on the meta device.

    Args:
        path: a directory with config.json.
        family: the network's.
        objective: classification, regression or language_modeling.
        outputs: number of outputs of a new head.
        plan: the LoRA configuration.
        shortcuts: the shortcut configuration, if there is one.

    Raises:
        InputFault: when plan and network do not fit each other.
    """
    head = family.heads[objective]
    with quiet_transformers(), torch.device("meta"):
        network, is_untied = _network(path, objective, outputs)
        decision = decide(network, family, head, Plans(plan, shortcuts))
        attachments = attach_decided(network, decision, 0)
        train_only(network, head)
        train_in_full(network, decision.modules_to_save, {})
    found = replace(count_parameters(network, attachments, head), is_untied=is_untied)
    if plan.freezing is None:
        return found
    return replace(found, freezable=_freezable(attachments, decision.methods))


def _freezable(attachments: Mapping[SiteKey, Attachment], methods: Mapping[SiteKey, str]) -> int:
    """Return the number of trainable parameters of modules that are on in matrices that can be frozen."""
    matrices = [
        getattr(attachments[key].adapter, name)
        for key, method in methods.items()
        for name in kinds.load(kinds.ADAPTERS, method).freezable
        if attachments[key].active
    ]
    return sum(parameter.numel() for parameter in matrices if parameter.requires_grad)


def planned_widths(path: Path, family: Family) -> dict[str, tuple[int, int]]:
    """Return (D_in, D_out) of each role from a configuration, residual-stream roles included.

    Args:
        path: a directory with config.json.
        family: the network's.

    Raises:
        InputFault: when no network can be built from the configuration.
    """
    with quiet_transformers(), torch.device("meta"):
        sites = locate(_network(path, next(iter(family.heads)), 2)[0], family, 1)
    widths = {key.role: (site.in_features, site.out_features) for key, site in sites.items()}
    stream = widths["w2"][1]
    return widths | dict.fromkeys(SHORTCUT_ROLES, (stream, stream))


def count_parameters(
    network: nn.Module, attachments: Mapping[SiteKey, Attachment], head: Collection[str]
) -> Counts:
    """Count a network with adapters, by what requires a gradient.

    Args:
        network: the host.
        attachments: by site.
        head: dotted names of the head modules.
    """
    on = {key: attachment for key, attachment in attachments.items() if attachment.active}
    groups = trainable_counts(network, attachments, head)
    return Counts(
        base=sum(p.numel() for p in network.parameters() if not p.requires_grad),
        adapters=groups["adapters"],
        router_or_gates=groups["router_or_gates"],
        head=groups["head"],
        other=groups["other"],
        sites_on=len(on),
        sites=len(attachments),
        active=sum(trainable_counts(nn.Module(), on, head).values()),
    )


def _network(path: Path, objective: str, outputs: int) -> tuple[PreTrainedModel, bool]:
    """Return the network of a configuration, and whether its two embeddings differ although it ties them."""
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        if objective == "language_modeling":
            is_untied = bool(config.tie_word_embeddings) and _has_two_embeddings(path)
            config.tie_word_embeddings = config.tie_word_embeddings and not is_untied
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False), is_untied
        config.num_labels = outputs
        return AutoModelForSequenceClassification.from_config(config, trust_remote_code=False), False
    except Fault:
        raise
    except Exception as error:
        # A damaged configuration makes transformers raise errors of any type.
        reason = f"{type(error).__name__}: {error}"
        raise InputFault(f"--load: no network can be built from '{path}' ({reason})") from None


def _has_two_embeddings(path: Path) -> bool:
    """Return whether a directory has weights in which input and output embedding differ."""
    source = LocalSource(str(path), "--load", path, "directory")
    try:
        files = weight_files(source)
    except InputFault:  # a configuration alone
        return False
    return values_differ(files, "embed_tokens.weight", "lm_head.weight")
