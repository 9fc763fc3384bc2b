"""The text of `--help`, made from the schema."""

import textwrap

from configs.schema.lookup import Entry, entries, meanings
from configs.schema.options import ACTIONS

_WIDTH = 100


def help_text(action: str | None) -> str:
    """Return the options in groups, with values and defaults; those the action uses when there is one."""
    shown = [one for one in entries().values() if action is None or action in one.option.actions]
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
                lines += _entry(one)
    return "\n".join(lines)


def _entry(entry: Entry) -> list[str]:
    spellings = [entry.flag, *(f"--{alias}" for alias in entry.option.flags)]
    if entry.is_switch:
        spellings.append(f"--no-{entry.flag[2:]}")
    facts = [] if entry.is_switch else [entry.kind.words()]
    facts.append(f"default: {_default(entry)}")
    text = f"{meanings()[entry.name]} ({'; '.join(facts)})"
    return [
        f"  {', '.join(spellings)}",
        *textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]


def _default(entry: Entry) -> str:
    if entry.default in (None, "", ()):
        return "none"
    if isinstance(entry.default, bool):
        return "on" if entry.default else "off"
    return str(entry.default)
