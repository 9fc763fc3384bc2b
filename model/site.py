"""Where an adapter can sit: a layer and a family-neutral role."""

from dataclasses import dataclass

from configs.runtime.faults import unknown

LINEAR_ROLES = ("q_proj", "k_proj", "v_proj", "o_proj", "w1", "gate", "w2")
"""Adaptable linear layers of a transformer layer, in the order files list them."""

HEAD_ROLES = ("q_proj", "k_proj", "v_proj")
"""Roles whose output rows belong to attention heads."""

SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate", "w1"))
"""Roles of one layer that read the same tensor in stock networks."""

SHORTCUT_ROLES = ("residual1", "residual2", "shortcut1", "shortcut2")
"""Low-rank edits of the residual stream."""

SHORTCUT = "shortcut"
"""The kind of adapter that sits at the roles of the residual stream, and nowhere else."""

_ORDER = {role: place for place, role in enumerate(LINEAR_ROLES + SHORTCUT_ROLES)}


@dataclass(frozen=True)
class SiteKey:
    """A layer number (from 0) and a role; sorts by layer, then in the order of the role table."""

    layer: int
    role: str

    def __str__(self) -> str:
        return f"layer_{self.layer}/{self.role}"

    def __lt__(self, other: "SiteKey") -> bool:
        return (self.layer, _ORDER[self.role]) < (other.layer, _ORDER[other.role])


@dataclass(frozen=True)
class Site:
    """A site of a given network: its key, the host module's path and its widths.

    Args:
        key: layer and role.
        path: dotted module name in the host network, e.g. `model.layers.0.self_attn.q_proj`.
        in_features: D_in.
        out_features: D_out.
    """

    key: SiteKey
    path: str
    in_features: int
    out_features: int


EARLIER_NAMES = {
    "out_proj": "o_proj",
    "fc1": "w1",
    "fc2": "w2",
    "up_proj": "w1",
    "gate_proj": "gate",
    "down_proj": "w2",
    "residual_1": "residual1",
    "residual_2": "residual2",
    "shortcut_sa": "shortcut1",
    "shortcut_ffn": "shortcut2",
}
"""Names of modules (OPT, LLaMA, shortcuts) in score and history files of the earlier implementation."""


def role_named(name: str) -> str:
    """Return the role that a name in a score or history file stands for.

    Raises:
        ValueError: with the words after `WHERE: `, for a name that is neither a role nor an earlier name.
    """
    role = EARLIER_NAMES.get(name, name)
    if role not in _ORDER:
        raise ValueError(unknown("module", name, (*_ORDER, *EARLIER_NAMES)))
    return role


def is_shortcut(key: SiteKey) -> bool:
    """Tell whether a module edits the residual stream."""
    return key.role in SHORTCUT_ROLES
