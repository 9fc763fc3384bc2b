"""Write the LoRA or shortcut TOML that plans given sites."""

from collections.abc import Mapping
from typing import Any

from configs.toml.writer import toml_text
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import head_configs
from model.plan.lora_toml import LORA_FORM
from model.plan.toml_tables import Form
from model.site import HEAD_ROLES, SiteKey


def plan_text(
    sites: Mapping[SiteKey, AdapterConfig], adapter_name: str = "default", form: Form = LORA_FORM
) -> str:
    """Return the text of a plan: the given sites; r = 0 and disabled everywhere else.

    The granularity is layer, or head where projections are planned by head.

    Args:
        sites: the configuration of each planned site.
        adapter_name: `adapter_name` of the table `[default]`.
        form: the form of the file: LoRA or shortcut TOML.

    Raises:
        ValueError: when some projections are planned by head and others as a whole.
    """
    by_head = {bool(config.heads) for key, config in sites.items() if key.role in HEAD_ROLES}
    if len(by_head) > 1:
        raise ValueError("a plan holds projections by head or whole projections, not both")
    off = AdapterConfig(rank=0, alpha=1.0, dropout=0.0, adapter_name=adapter_name, disabled=True)
    table: dict[str, Any] = {"granularity": "head" if True in by_head else "layer"}
    table["default"] = _table(off, form)
    for key in sorted(sites):
        config = sites[key]
        heads = {f"head_{number}": _table(head, form) for number, head in enumerate(head_configs(config))}
        table.setdefault(f"model_layer_{key.layer}", {})[key.role] = heads or _table(config, form)
    return toml_text(table)


def _table(config: AdapterConfig, form: Form) -> dict[str, Any]:
    values = {key: getattr(config, field_name) for key, (field_name, _) in form.keys.items()}
    return values | dict(config.extra)
