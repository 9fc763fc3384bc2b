"""The values an option may have: each kind reads the text of a flag and checks a TOML value."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from configs.runtime.faults import unknown

_LONGEST = 200
_LONGEST_NAME = 200
"""Bytes; file systems allow 255, of which temporary names need some."""


class ValueKind(Protocol):
    """A kind of value; both readers raise ValueError with the text that follows `WHERE: `."""

    def read(self, text: str) -> Any:
        """Read the text of a flag."""

    def take(self, value: Any) -> Any:
        """Check a value of TOML or JSON by its type; a string is never taken for a number."""

    def words(self) -> str:
        """Describe the allowed values for `--help`."""


def shown(value: Any) -> str:
    """Return a value as it was written, cut to a readable length for a message."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, dict):
        text = "a table"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_clean(text: str) -> bool:
    """Return whether there is no control character and no half of a surrogate pair (undecodable bytes)."""
    return not any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in text)


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")


def refusal(expected: str, got: str) -> ValueError:
    """Return the error `must be EXPECTED, got GOT`."""
    return ValueError(f"must be {expected}, got {got if len(got) <= _LONGEST else got[:_LONGEST] + '...'}")


@dataclass(frozen=True)
class Choice:
    """One of a fixed set of words.

    Args:
        what: what the words are, in the message `no WHAT 'WORD', one of ...`.
        allowed: the words.
        aliases: other spelling -> word; a whole number in TOML counts as its decimal spelling.

    Capitals, and dashes where the word has underscores, make no difference: GRAD-NORM is grad_norm.
    """

    what: str
    allowed: Collection[str]
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    def read(self, text: str) -> str:
        """Read the text of a flag."""
        spelt = {**{_folded(word): word for word in self.allowed}, **self.aliases}
        word = self.aliases.get(text, text)
        if word not in self.allowed:
            word = spelt.get(_folded(text), word)
        if word not in self.allowed:
            raise ValueError(unknown(self.what, text, self.allowed))
        return word

    def take(self, value: Any) -> str:
        """Check a TOML value."""
        if type(value) is int and str(value) in self.aliases:
            return self.aliases[str(value)]
        if not isinstance(value, str):
            raise refusal(f"a string, one of {', '.join(self.allowed)}", shown(value))
        return self.read(value)

    def words(self) -> str:
        """List the words."""
        also = f" (also {', '.join(self.aliases)})" if self.aliases else ""
        return f"one of {', '.join(self.allowed)}{also}"


@dataclass(frozen=True)
class Word:
    """A text without control characters; with `is_name` it must be usable as the name of a directory."""

    is_name: bool = False

    def read(self, text: str) -> str:
        """Read the text of a flag."""
        if not text.strip() or not _is_clean(text):
            raise refusal("a non-empty text without control characters", shown(text))
        if self.is_name and len(text.encode()) > _LONGEST_NAME:
            raise refusal(f"a name of at most {_LONGEST_NAME} bytes", shown(text))
        if self.is_name and ("/" in text or text.startswith(".")):
            raise refusal("the name of a directory, without '/' and not beginning with '.'", shown(text))
        return text

    def take(self, value: Any) -> str:
        """Check a TOML value."""
        if not isinstance(value, str):
            raise refusal("a string", shown(value))
        return self.read(value)

    def words(self) -> str:
        """Describe the text."""
        return "a name" if self.is_name else "a text"


@dataclass(frozen=True)
class PathText:
    """A path, made absolute from the current directory."""

    def read(self, text: str) -> Path:
        """Read the text of a flag."""
        if not text or not _is_clean(text):
            raise refusal("a path", shown(text))
        return Path(text).absolute()

    def take(self, value: Any) -> Path:
        """Check a TOML value."""
        if not isinstance(value, str):
            raise refusal("a string with a path", shown(value))
        return self.read(value)

    def words(self) -> str:
        """Describe the text."""
        return "a path"


@dataclass(frozen=True)
class Switch:
    """A flag: `--x` or `--no-x`, true or false in TOML.

    Args:
        names: the option that a run behind the flag is the value of, e.g. `--resume-training RUN`.
    """

    names: str | None = None

    def read(self, text: str) -> bool:
        """Raise: a flag takes no value."""
        raise ValueError(f"takes no value, got {text}")

    def take(self, value: Any) -> bool:
        """Check a TOML value."""
        if not isinstance(value, bool):
            raise refusal("true or false", shown(value))
        return value

    def words(self) -> str:
        """Describe the flag."""
        return "a flag"


@dataclass(frozen=True)
class Listed:
    """Several values of one kind, as a tuple; separated by commas in a flag's text."""

    kind: ValueKind

    def read(self, text: str) -> tuple[Any, ...]:
        """Read the text of a flag."""
        return self._check(tuple(self.kind.read(part) for part in text.split(",")))

    def take(self, value: Any) -> tuple[Any, ...]:
        """Check a TOML value."""
        if not isinstance(value, list | tuple):
            raise refusal(f"a list, each item {self.kind.words()}", shown(value))
        return self._check(tuple(self.kind.take(item) for item in value))

    def words(self) -> str:
        """Describe the list."""
        return f"a list (a,b,c in a flag), each item {self.kind.words()}"

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if not items or len(set(items)) < len(items):
            raise refusal("a non-empty list without repetitions", shown(list(map(str, items))))
        return items


@dataclass(frozen=True)
class Repeated:
    """An option that may be given several times; one value or a list in TOML."""

    kind: ValueKind

    def read(self, text: str) -> tuple[Any, ...]:
        """Read the text of one occurrence of the flag."""
        return (self.kind.read(text),)

    def take(self, value: Any) -> tuple[Any, ...]:
        """Check a TOML value."""
        return tuple(self.kind.take(item) for item in (value if isinstance(value, list) else [value]))

    def words(self) -> str:
        """Describe one value."""
        return f"{self.kind.words()}; repeatable"
