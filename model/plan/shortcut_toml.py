"""The shortcut TOML: read it without a model, resolve it against one.

It has the form of the LoRA TOML (`model.plan.lora_toml`) with the roles of the residual stream and its own
keys.
"""

from pathlib import Path

from configs.runtime.faults import InputFault
from configs.schema.number_values import Real, Whole
from configs.schema.values import Switch, Word
from model.network.family import Dimensions
from model.plan.lora_toml import Plan, Resolution, lookup, outside, read_plan
from model.plan.toml_tables import Form
from model.site import EARLIER_NAMES, SHORTCUT, SHORTCUT_ROLES, SiteKey

FORM = Form(
    method=SHORTCUT,
    granularities=("network", "layer"),
    roles={
        **{role: role for role in SHORTCUT_ROLES},
        **{name: role for name, role in EARLIER_NAMES.items() if role in SHORTCUT_ROLES},
    },
    keys={
        "r": ("rank", Whole(0)),
        "shortcut_alpha": ("alpha", Real(0, low_open=True)),
        "proj_dropout": ("dropout", Real(0, 1, high_open=True)),
        "projector_name": ("adapter_name", Word(is_name=True)),
        "disable_projector": ("disabled", Switch()),
        "importance_beta": ("importance", Real()),
    },
    required=("r", "shortcut_alpha", "proj_dropout", "projector_name", "disable_projector"),
    strength="importance_beta",
)
"""The shortcut TOML."""


def read_shortcuts(path: Path, where: str = "--shortcut-config") -> Plan:
    """Read a shortcut TOML and check all that needs no model.

    Raises:
        InputFault: a line for each fault, naming file, table and key.
    """
    return read_plan(path, where, FORM)


def exists(key: SiteKey) -> bool:
    """Tell whether a network has this place: nothing comes before layer 0 that could be passed to it."""
    return key.role != "shortcut2" or key.layer > 0


def resolve_shortcuts(plan: Plan, dimensions: Dimensions) -> Resolution:
    """Lay a shortcut plan over a model: 4 L - 1 places in all.

    Raises:
        InputFault: for a layer outside the model, for the place that layer 0 lacks, and for a plan that turns
            on no place.
    """
    faults = outside(plan, dimensions)
    named = plan.tables.get("model_layer_0.shortcut2")
    if named is not None and named.rank:
        faults.append(f"{plan.path}: [model_layer_0.shortcut2]: no layer before layer 0; it has no shortcut2")
    layers, sites = [], {}
    for layer in range(dimensions.layers):
        keys = [key for key in (SiteKey(layer, role) for role in SHORTCUT_ROLES) if exists(key)]
        found = {key.role: lookup(plan, layer, key.role, 0)[1] for key in keys}
        sites |= {key: found[key.role] for key in keys if found[key.role].rank}
        layers.append(found)
    if not faults and not any(config.is_on for config in sites.values()):
        what = f"every one is disabled, or has r = 0 or {FORM.strength} = 0"
        faults.append(f"{plan.path}: turns on no shortcut: {what}")
    if faults:
        raise InputFault(*faults)
    return Resolution(tuple(layers), sites)
