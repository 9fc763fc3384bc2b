"""Look an option up in the schema, by field, flag or TOML key."""

import ast
from dataclasses import dataclass, fields
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args, get_type_hints

from configs.schema import options
from configs.schema.options import Option, Options
from configs.schema.values import Switch, ValueKind


@dataclass(frozen=True)
class OptionSpec:
    """The specification of one option.

    Args:
        name: its field of `Options`, and its key in TOML.
        kind: the values it may have.
        option: group, actions and aliases.
        default: the value when none is given; None where it is computed from other options.
    """

    name: str
    kind: ValueKind
    option: Option
    default: Any

    @property
    def flag(self) -> str:
        """Return the flag as users type it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Return whether the flag takes no value and has a `--no-` form."""
        return isinstance(self.kind, Switch)


@cache
def option_specs() -> dict[str, OptionSpec]:
    """Return every option by its field name, in the order of the schema."""
    hints = get_type_hints(Options, include_extras=True)
    found = {}
    for one in fields(Options):
        _, kind, option = get_args(hints[one.name])
        default = None if option.derived else one.default
        found[one.name] = OptionSpec(one.name, kind, option, default)
    return found


@cache
def flags() -> dict[str, tuple[OptionSpec, bool]]:
    """Return flag spelling -> (option, whether the flag is a `--no-` form)."""
    found = {}
    for spec in option_specs().values():
        for spelling in (spec.flag, *(f"--{alias}" for alias in spec.option.flags)):
            found[spelling] = (spec, False)
        if spec.is_switch:
            found[f"--no-{spec.flag[2:]}"] = (spec, True)
    return found


@cache
def keys() -> dict[str, OptionSpec]:
    """Return TOML key -> option; `config` is allowed only on the command line."""
    own = {name: spec for name, spec in option_specs().items() if name != "config"}
    return own | {alias: spec for spec in own.values() for alias in spec.option.keys}


@cache
def meanings() -> dict[str, str]:
    """Return field name -> the docstring under it, read from the schema's source."""
    tree = ast.parse(Path(options.__file__).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options")
    found = {}
    for node, after in zip(body, body[1:]):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            text = ast.literal_eval(after.value)
            found[ast.unparse(node.target)] = " ".join(cleandoc(text).split())
    return found
