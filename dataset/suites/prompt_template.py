"""Put a row's fields into the prompt of language modelling.

A template holds fields in braces, `Question: {question}`; parts that stand only where a field is not empty,
`{?input:Text: {input}}`; and at its very end `{eos}` when the end-of-sequence token closes the prompt.
"""

import re
from collections.abc import Mapping

from dataset.rows.fields import text_field
from dataset.task import Row, RowFault

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SECTION = r"\{\?([^{}:]+):((?:[^{}]|\{[^{}?][^{}]*\})*)\}"
_PART = re.compile(rf"{_SECTION}|{_PLACEHOLDER.pattern}")
_END = "{eos}"


def placeholders(template: str) -> list[str]:
    """Return the field names a template such as `Question: {question}` asks for; optional ones come last."""
    parts = list(_PART.finditer(template.removesuffix(_END)))
    optional = [name for part in parts if part[1] for name in (part[1], *_PLACEHOLDER.findall(part[2]))]
    needed = required(template)
    return needed + [name for name in dict.fromkeys(optional) if name not in needed]


def required(template: str) -> list[str]:
    """Return the field names that every row must have: those outside of `{?name:...}`."""
    return [part[3] for part in _PART.finditer(template.removesuffix(_END)) if not part[1]]


def is_closed(template: str) -> bool:
    """Tell whether the end-of-sequence token stands between prompt and response."""
    return template.endswith(_END)


def template_faults(template: str) -> list[str]:
    """Say what a template lacks: a field, or the end of a part that depends on one."""
    faults = [] if placeholders(template) else ["must hold a column in braces, such as {question}"]
    if "{?" in _PART.sub("", template):
        faults.append("a part {?name:...} is never closed, or holds another one")
    return faults


def fill(template: str, row: Row) -> str:
    """Put a row's text fields into a template, without `{eos}`; braces inside the fields stay as they are.

    Raises:
        RowFault: when a field is missing or no text, or all are empty.
    """
    wanted = placeholders(template)
    is_empty = _emptiness(template, row)
    if all(is_empty.values()):
        raise RowFault(f"field '{wanted[0]}' is empty")
    return _filled(template, row, is_empty)


def position(template: str, name: str, row: Row) -> tuple[int, int]:
    """Return where a required field that a template holds once stands in what `fill` returns: begin, end.

    Raises:
        RowFault: when it is missing, empty or no text, or a field before it is missing or no text.
    """
    before = template.partition(f"{{{name}}}")[0]
    begin = len(_filled(before, row, _emptiness(template, row)))
    return begin, begin + len(text_field(row, name))


def _emptiness(template: str, row: Row) -> dict[str, bool]:
    wanted = placeholders(template)
    optional = set(wanted) - set(required(template))
    # Instruction sets leave the second field empty, or out, where a task has no input.
    return {name: row.get(name) == "" or (name in optional and row.get(name) is None) for name in wanted}


def _filled(template: str, row: Row, is_empty: Mapping[str, bool]) -> str:
    def value(name: str) -> str:
        return "" if is_empty[name] else text_field(row, name)

    def part(match: re.Match[str]) -> str:
        if match[1] is None:
            return value(match[3])
        return _PLACEHOLDER.sub(lambda inner: value(inner[1]), match[2]) if value(match[1]) else ""

    return _PART.sub(part, template.removesuffix(_END))
