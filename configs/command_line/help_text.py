"""The text of `--help`, made from the schema."""

import textwrap

from configs.schema.lookup import OptionSpec, meanings, option_specs
from configs.schema.options import ACTIONS

_WIDTH = 100


def help_text(action: str | None) -> str:
    """Return the options in groups, with values and defaults; those the action uses when there is one."""
    shown = [one for one in option_specs().values() if action is None or action in one.option.actions]
    lines = [
        f"usage: python -m main {action or 'ACTION'} [MODEL [DATASET]] [options]",
        "",
        f"ACTION is one of {', '.join(ACTIONS)}.",
        "MODEL and DATASET may stand for --model and --dataset. An option that is given wins over --config,",
        "which wins over the default. TOML keys are the option names with underscores.",
    ]
    for group in dict.fromkeys(one.option.group for one in shown):
        lines += ["", f"{group}:"]
        for one in shown:
            if one.option.group == group:
                lines += _lines(one)
    return "\n".join(lines)


def _lines(spec: OptionSpec) -> list[str]:
    spellings = [spec.flag, *(f"--{alias}" for alias in spec.option.flags)]
    if spec.is_switch:
        spellings.append(f"--no-{spec.flag[2:]}")
    facts = [] if spec.is_switch else [spec.kind.words()]
    facts.append(f"default: {_default(spec)}")
    text = f"{meanings()[spec.name]} ({'; '.join(facts)})"
    return [
        f"  {', '.join(spellings)}",
        *textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]


def _default(spec: OptionSpec) -> str:
    if spec.default in (None, "", ()):
        return "none"
    if isinstance(spec.default, bool):
        return "on" if spec.default else "off"
    return str(spec.default)
