"""Command lines of the tools: reads the flags and reports all faults at once."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from configs.command_line.cli import HelpRequested
from configs.runtime import console
from configs.runtime.faults import InputFault, suggestion
from configs.schema.values import Switch, ValueKind, refusal


@dataclass(frozen=True)
class Flag:
    """One flag or positional argument of a tool.

    Args:
        name: `--name`, or the name of a positional argument in capitals.
        kind: the kind of its value; `Switch` takes none.
        meaning: its line of `--help`.
        required: whether it must be given.
        default: its value when it is not given.
        repeats: a positional argument that takes all remaining words; its value is a tuple.
    """

    name: str
    kind: ValueKind
    meaning: str
    required: bool = False
    default: Any = None
    repeats: bool = False

    @property
    def is_positional(self) -> bool:
        """Whether it is a positional argument."""
        return not self.name.startswith("--")

    @property
    def key(self) -> str:
        """The attribute of its value in the result."""
        return self.name.removeprefix("--").replace("-", "_").lower()


@dataclass(frozen=True)
class Text:
    """Any text that is not blank; it may contain line ends."""

    def read(self, text: str) -> str:
        """Read the text of a flag."""
        if not text.strip():
            raise refusal("a text that is not blank", f'"{text}"')
        return text

    def take(self, value: Any) -> str:
        """Check a value that did not come from a command line."""
        if not isinstance(value, str):
            raise refusal("a text", str(value))
        return self.read(value)

    def words(self) -> str:
        """Describe the text."""
        return "a text"


def read_words(module: str, purpose: str, flags: Sequence[Flag], argv: Sequence[str]) -> SimpleNamespace:
    """Read a tool's command line; the result's `given` is the set of flags on it.

    Args:
        module: the tool, e.g. `tools.merge`.
        purpose: the first line of `--help`.
        flags: the known flags; abbreviations are refused.
        argv: the words.

    Raises:
        HelpRequested: when `--help` is given.
        InputFault: a line for each fault.
    """
    console.prepare_process()
    known = {flag.name: flag for flag in flags if not flag.is_positional}
    places = deque(flag for flag in flags if flag.is_positional)
    faults: list[str] = []
    values: dict[str, Any] = {}
    named: set[str] = set()
    words = deque(argv)
    while words:
        word = words.popleft()
        if word in ("-h", "--help"):
            raise HelpRequested(_help(module, purpose, flags))
        flag, text = _next(word, words, known, places, faults)
        if flag is None:
            continue
        if flag.name in named and not flag.repeats:
            faults.append(f"{flag.name}: given twice")
        named.add(flag.name)
        try:
            value = _value(flag, text)
            values[flag.key] = (*values.get(flag.key, ()), value) if flag.repeats else value
        except ValueError as fault:
            faults.append(f"{flag.name}: {fault}")
    faults += [f"{flag.name}: required" for flag in flags if flag.required and flag.name not in named]
    if faults:
        raise InputFault(*faults)
    return SimpleNamespace(**{flag.key: flag.default for flag in flags} | values, given=named)


def ended(error: BaseException) -> int:
    """Print the error (or the help) that ended a tool and return its exit code."""
    if isinstance(error, HelpRequested):
        console.say(error.text)
        return 0
    return console.report(error)


def _next(
    word: str, words: deque[str], known: Mapping[str, Flag], places: deque[Flag], faults: list[str]
) -> tuple[Flag | None, str | None]:
    """Return the flag of a word and its value's text; None for a word that is no flag."""
    if not word.startswith("--"):
        if places:
            return places[0] if places[0].repeats else places.popleft(), word
        faults.append(f"{word}: unexpected argument")
        return None, None
    name, has_text, text = word.partition("=")
    if name not in known:
        longer = next((one for one in sorted(known) if len(name) > 3 and one.startswith(name)), None)
        near = f"; did you mean '{longer}'?" if longer else suggestion(name, known)
        faults.append(f"{name}: unknown option{near}")
        if not has_text and words and not words[0].startswith("--"):
            words.popleft()  # its value must not pass for a positional word
        return None, None
    if has_text:
        return known[name], text
    takes_text = not isinstance(known[name].kind, Switch)
    return known[name], words.popleft() if takes_text and words and not words[0].startswith("--") else None


def _value(flag: Flag, text: str | None) -> Any:
    if text is None and isinstance(flag.kind, Switch):
        return True
    if text is None:
        raise ValueError(f"needs a value, {flag.kind.words()}")
    return flag.kind.read(text)


def _help(module: str, purpose: str, flags: Sequence[Flag]) -> str:
    places = "".join(f" {f.name}{' ...' if f.repeats else ''}" for f in flags if f.is_positional)
    lines = [f"usage: python -m {module}{places} [options]", "", purpose, ""]
    for flag in flags:
        facts = [] if isinstance(flag.kind, Switch) else [flag.kind.words()]
        facts += ["required"] if flag.required else []
        facts += (
            [f"default: {flag.default}"] if flag.default is not None and flag.default is not False else []
        )
        lines.append(f"  {flag.name}  {flag.meaning}" + (f" ({'; '.join(facts)})" if facts else ""))
    return "\n".join(lines)
