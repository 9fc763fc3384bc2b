"""The shortcut TOML: reading it, and resolving it against a model.

It is laid out like the LoRA TOML (`model.plan.lora_toml`), with keys of its own and the roles of the residual
stream.
"""

from pathlib import Path

from configs.runtime.faults import InputFault
from configs.schema.number_values import Real, Whole
from configs.schema.values import Switch, Word
from model.network.family import Dimensions
from model.plan.adapter_config import AdapterConfig
from model.plan.lora_toml import Plan, read_plan
from model.plan.resolution import Resolution, lookup, range_faults
from model.plan.toml_tables import Form
from model.site import EARLIER_NAMES, SHORTCUT, SHORTCUT_ROLES, SiteKey

SHORTCUT_FORM = Form(
    method=SHORTCUT,
    granularities=("network", "layer"),
    roles={
        **{role: role for role in SHORTCUT_ROLES},
        **{name: role for name, role in EARLIER_NAMES.items() if role in SHORTCUT_ROLES},
    },
    keys={
        "r": ("rank", Whole(0)),
        "shortcut_alpha": ("alpha", Real(1e-30, 1e30)),
        "proj_dropout": ("dropout", Real(0, 1, high_open=True)),
        "projector_name": ("adapter_name", Word(is_name=True)),
        "disable_projector": ("disabled", Switch()),
        "importance_beta": ("importance", Real(-1e30, 1e30)),
        "init_lora_weights": ("init", Switch()),
        "fan_in_fan_out": ("fan_in_fan_out", Switch()),
    },
    required=("r", "shortcut_alpha", "proj_dropout", "projector_name", "disable_projector"),
    strength="importance_beta",
    aliases={"init_lora_weghts": "init_lora_weights"},
)
"""The form of the shortcut TOML."""


def read_shortcuts(path: Path, where: str = "--shortcut-config") -> Plan:
    """Read a shortcut TOML and check everything that can be checked without a model.

    Args:
        path: the file.
        where: the flag that named the file, for the message when it cannot be read.

    Raises:
        InputFault: with one line for each fault, naming file, table and key.
    """
    return read_plan(path, where, SHORTCUT_FORM)


def site_exists(key: SiteKey) -> bool:
    """Return whether a network has this site: no layer precedes layer 0, so it has no shortcut2."""
    return key.role != "shortcut2" or key.layer > 0


def resolve_shortcuts(plan: Plan, dimensions: Dimensions) -> Resolution:
    """Resolve a shortcut plan against a model of L layers, which has 4 L - 1 shortcut sites.

    Raises:
        InputFault: for a layer that the model does not have, for shortcut2 of layer 0, for
            fan_in_fan_out = true, and for a plan that turns on no shortcut.
    """
    faults = range_faults(plan, dimensions)
    faults += [
        f"{plan.path}: [{name}] fan_in_fan_out: there is no linear here whose weight could be transposed"
        for name, config in {"default": plan.default, **plan.tables}.items()
        if config.fan_in_fan_out
    ]
    named = plan.tables.get("model_layer_0.shortcut2")
    if named is not None and named.rank:
        faults.append(
            f"{plan.path}: [model_layer_0.shortcut2]: layer 0 has no shortcut2, as no layer precedes it"
        )
    sites: dict[SiteKey, AdapterConfig] = {}
    for key in (SiteKey(layer, role) for layer in range(dimensions.layers) for role in SHORTCUT_ROLES):
        config = lookup(plan, key)[1]
        if site_exists(key) and config.rank:
            sites[key] = config
    if not faults and not any(config.is_on for config in sites.values()):
        what = f"every one is disabled, or has r = 0 or {SHORTCUT_FORM.strength} = 0"
        faults.append(f"{plan.path}: turns on no shortcut: {what}")
    if faults:
        raise InputFault(*faults)
    return Resolution(sites)
