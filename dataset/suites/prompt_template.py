"""Fill a prompt template with the fields of a row.

A template holds fields in braces, `Question: {question}`; optional parts, which are left out where a field is
empty, `{?input:Text: {input}}`; and at its very end `{eos}` when an end-of-sequence token follows the prompt.
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
    """Return the names of the fields in a template, those that only optional parts hold last."""
    parts = list(_PART.finditer(template.removesuffix(_END)))
    optional = [name for part in parts if part[1] for name in (part[1], *_PLACEHOLDER.findall(part[2]))]
    needed = required_fields(template)
    return needed + [name for name in dict.fromkeys(optional) if name not in needed]


def required_fields(template: str) -> list[str]:
    """Return the names of the fields that every row must have: those outside of `{?name:...}`."""
    return [part[3] for part in _PART.finditer(template.removesuffix(_END)) if not part[1]]


def ends_with_eos(template: str) -> bool:
    """Return whether an end-of-sequence token follows the prompt."""
    return template.endswith(_END)


def template_faults(template: str) -> list[str]:
    """Return the faults of a template: no field, or an optional part that is not closed."""
    faults = [] if placeholders(template) else ["must hold a column in braces, such as {question}"]
    if "{?" in _PART.sub("", template):
        faults.append("an optional part {?name:...} is not closed, or holds another one")
    return faults


def fill(template: str, row: Row) -> str:
    """Return a template filled with a row's text fields, without `{eos}`; braces inside fields are kept.

    Raises:
        RowFault: when a field is missing or not a text, or all are empty.
    """
    wanted = placeholders(template)
    is_empty = _emptiness(template, row)
    if all(is_empty.values()):
        raise RowFault(f"field '{wanted[0]}' is empty")
    return _filled(template, row, is_empty)


def field_span(template: str, name: str, row: Row) -> tuple[int, int]:
    """Return begin and end, in characters of the filled template, of a required field that it holds once.

    Raises:
        RowFault: when it is missing, empty or not a text, or a field before it is missing or not a text.
    """
    before = template.partition(f"{{{name}}}")[0]
    begin = len(_filled(before, row, _emptiness(template, row)))
    return begin, begin + len(text_field(row, name))


def _emptiness(template: str, row: Row) -> dict[str, bool]:
    wanted = placeholders(template)
    optional = set(wanted) - set(required_fields(template))
    # In instruction sets the second field is empty or missing where a task has no input.
    return {name: row.get(name) == "" or (name in optional and row.get(name) is None) for name in wanted}


def _filled(template: str, row: Row, is_empty: Mapping[str, bool]) -> str:
    def value(name: str) -> str:
        return "" if is_empty[name] else text_field(row, name)

    def part(match: re.Match[str]) -> str:
        if match[1] is None:
            return value(match[3])
        return _PLACEHOLDER.sub(lambda inner: value(inner[1]), match[2]) if value(match[1]) else ""

    return _PART.sub(part, template.removesuffix(_END))
