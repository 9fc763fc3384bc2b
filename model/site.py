"""Sites: where an adapter can be attached, given by a layer and a role that all families share."""

from dataclasses import dataclass

from configs.runtime.faults import unknown

LINEAR_ROLES = ("q_proj", "k_proj", "v_proj", "o_proj", "w1", "gate", "w2")
"""Linears of a transformer layer that can be adapted, in the order of files."""

HEAD_ROLES = ("q_proj", "k_proj", "v_proj")
"""Roles whose outputs are divided among attention heads."""

SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate", "w1"))
"""Groups of roles that read the same tensor in stock networks."""

SHORTCUT_ROLES = ("residual1", "residual2", "shortcut1", "shortcut2")
"""Low-rank edits of the residual stream."""

SHORTCUT = "shortcut"
"""The kind of adapter for the roles of the residual stream, and for no other role."""

FLOW = "flow"
"""The kind of adapter that fuses trained sets, which their files plan and no TOML."""

_ORDER = {role: position for position, role in enumerate(LINEAR_ROLES + SHORTCUT_ROLES)}


@dataclass(frozen=True)
class SiteKey:
    """A layer's number, from 0, and a role; ordered by layer, then as the roles are listed above."""

    layer: int
    role: str

    def __str__(self) -> str:
        return f"layer_{self.layer}/{self.role}"

    def __lt__(self, other: "SiteKey") -> bool:
        return (self.layer, _ORDER[self.role]) < (other.layer, _ORDER[other.role])


@dataclass(frozen=True)
class Site:
    """A site of a given network.

    Args:
        key: layer and role.
        path: dotted path of the module in the network, e.g. `model.layers.0.self_attn.q_proj`.
        in_features: D_in, the width of its input.
        out_features: D_out, the width of its output.
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
"""Module name in score and history files of the earlier implementation -> role."""


def role_named(name: str) -> str:
    """Return the role of a name in a score or history file.

    Raises:
        ValueError: for a name that is neither a role nor an earlier name; its message lacks the place.
    """
    role = EARLIER_NAMES.get(name, name)
    if role not in _ORDER:
        raise ValueError(unknown("module", name, (*_ORDER, *EARLIER_NAMES)))
    return role


def is_shortcut(key: SiteKey) -> bool:
    """Return whether a site is a low-rank edit of the residual stream."""
    return key.role in SHORTCUT_ROLES
