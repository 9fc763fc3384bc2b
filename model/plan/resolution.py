"""Resolve a LoRA plan against a model: one configuration for each of the model's sites."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from configs.runtime.faults import InputFault
from model.network.family import Dimensions
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import head_conflicts, projection_config
from model.plan.lora_toml import Plan
from model.plan.toml_tables import head_of, layer_of
from model.site import HEAD_ROLES, LINEAR_ROLES, SiteKey


@dataclass(frozen=True)
class Resolution:
    """A plan resolved against a model.

    Args:
        sites: the model's sites with r > 0 and their configurations, disabled ones included, in order.
        notes: lines to show once.
    """

    sites: Mapping[SiteKey, AdapterConfig]
    notes: tuple[str, ...] = ()


def resolve(plan: Plan, dimensions: Dimensions, roles: Collection[str]) -> Resolution:
    """Resolve a LoRA plan against a model.

    Args:
        plan: the plan.
        dimensions: the model's numbers of layers and heads.
        roles: the linear roles that the model's family has.

    Raises:
        InputFault: for a layer or head that the model does not have, heads of one projection that differ in a
            setting they share, and a plan that turns on no site.
    """
    faults = range_faults(plan, dimensions)
    sites: dict[SiteKey, AdapterConfig] = {}
    absent = set()
    for key in (SiteKey(layer, role) for layer in range(dimensions.layers) for role in LINEAR_ROLES):
        config = _config_of(plan, key, dimensions, faults)
        if config.rank and key.role in roles:
            sites[key] = config
        elif config.rank:
            absent.add(key.role)
    if not faults and not any(config.is_on for config in sites.values()):
        faults.append(
            f"{plan.path}: turns on no site: every one is disabled, has r = 0 or importance_alpha = 0,"
            " or is of a role that the model does not have"
        )
    if faults:
        raise InputFault(*faults)
    names = ", ".join(role for role in LINEAR_ROLES if role in absent)
    notes = (f"{plan.path}: the model has no {names}; ignored",) if absent else ()
    return Resolution(sites, notes)


def _config_of(plan: Plan, key: SiteKey, dimensions: Dimensions, faults: list[str]) -> AdapterConfig:
    """Return a site's configuration; conflicts between its heads are appended to `faults`."""
    if plan.granularity != "head" or key.role not in HEAD_ROLES:
        return lookup(plan, key)[1]
    heads = [lookup(plan, key, head) for head in range(_head_count(key.role, dimensions))]
    where = f"{key.role} in layer {key.layer}"
    faults += [f"{plan.path}: {text}" for text in head_conflicts(where, heads)]
    return projection_config([config for _, config in heads])


def _head_count(role: str, dimensions: Dimensions) -> int:
    if role not in HEAD_ROLES:
        return 1
    return dimensions.heads if role == "q_proj" else dimensions.key_value_heads


def lookup(plan: Plan, key: SiteKey, head: int = 0) -> tuple[str, AdapterConfig]:
    """Return name and configuration of the most specific table for a site.

    Args:
        plan: the plan.
        key: the site.
        head: number of the attention head; used for q, k and v of a plan by head.
    """
    if plan.granularity == "network":
        names = [f"all_layers.{key.role}"]
    elif plan.granularity == "layer":
        names = [f"model_layer_{key.layer}.{key.role}"]
    else:
        end = f"{key.role}.head_{head}" if key.role in HEAD_ROLES else key.role
        names = [f"model_layer_{key.layer}.{end}", f"headwise_default.{end}"]
    found = next((name for name in names if name in plan.tables), "default")
    return found, plan.tables.get(found, plan.default)


def range_faults(plan: Plan, dimensions: Dimensions) -> list[str]:
    """Return a fault for each table of a layer or head that the model does not have."""
    faults = []
    for name in plan.tables:
        layer, head = layer_of(name), head_of(name)
        where = f"{plan.path}: [{name}]"
        if layer is not None and layer >= dimensions.layers:
            faults.append(f"{where}: no layer {layer}, the model has layers 0 to {dimensions.layers - 1}")
        count = _head_count(name.split(".")[1], dimensions)
        if head is not None and head >= count:
            faults.append(f"{where}: no head {head}, this projection has heads 0 to {count - 1}")
    return faults
