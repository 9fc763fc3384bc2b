"""The text of `--help`, generated from the schema."""

import textwrap

from configs.schema.lookup import OptionSpec, meanings, option_specs
from configs.schema.options import ACTIONS

_WIDTH = 100


def help_text(action: str | None) -> str:
    """Return the options by group, with values and defaults; with an action, only those that it uses."""
    shown = [one for one in option_specs().values() if action is None or action in one.option.actions]
    lines = [
        f"usage: python -m main {action or 'ACTION'} [MODEL [DATASET]] [options]",
        "",
        f"ACTION is one of {', '.join(ACTIONS)}.",
        "MODEL and DATASET are short for --model and --dataset. The command line overrides --config, which",
        "overrides the defaults. TOML keys are the option names with underscores.",
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
    if spec.default not in (None, "", ()):
        facts.append(f"default: {_default(spec)}")
    text = meanings()[spec.name] + (f" ({'; '.join(facts)})" if facts else "")
    return [
        f"  {', '.join(spellings)}",
        *textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]


def _default(spec: OptionSpec) -> str:
    if isinstance(spec.default, bool):
        return "on" if spec.default else "off"
    return str(spec.default)
