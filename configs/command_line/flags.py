"""Read the command line: an action, flags with their values, and the two positional aliases."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.command_line.named_run import is_run
from configs.runtime.faults import suggestion, unknown
from configs.schema.foreign_names import foreign_advice, foreign_option
from configs.schema.lookup import OptionSpec, flags, keys, option_specs
from configs.schema.options import ACTIONS, RETIRED
from configs.schema.settings import NONE_WORD, Layer, Setting
from configs.schema.values import Repeated

SOURCE = "command line"
_POSITIONALS = ("model", "dataset")
_BOOLEANS = ("true", "false", "yes", "no", "on", "off", "0", "1")


@dataclass
class CommandLine:
    """The typed command line.

    Args:
        action: ACTION; None when it is missing or unknown, which is then one of `layer.faults`.
        layer: the options.
        wants_help: `--help` or `-h` is among the words.
        wants_version: `--version` is among the words.
    """

    action: str | None = None
    layer: Layer = field(default_factory=Layer)
    wants_help: bool = False
    wants_version: bool = False


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Read every argument; faults are collected, not raised.

    This is a scanner of its own and not argparse, which stops at the first fault, takes `-1e-3` and `-inf`
    for flags, and silently lets an option be given twice.
    """
    line = CommandLine()
    words, positionals = deque(argv), []
    while words:
        word = words.popleft()
        if word in ("-h", "--help"):
            line.wants_help = True
        elif word == "--version":
            line.wants_version = True
        elif word.startswith("-") and word != "-":
            _read_flag(line.layer, word, words)
        else:
            positionals.append(word)
    _read_positionals(line, positionals)
    return line


def _read_positionals(line: CommandLine, words: list[str]) -> None:
    if not words:
        line.layer.faults.insert(0, f"ACTION: required, one of {', '.join(ACTIONS)}")
        return
    if words[0] in ACTIONS:
        line.action = words[0]
    else:
        line.layer.faults.insert(0, f"ACTION: {unknown('action', words[0], ACTIONS)}")
    for name, word in zip(_POSITIONALS, words[1:]):
        if _as_flag(word):
            line.layer.faults.append(f"{word}: unexpected argument{_as_flag(word)}")
        else:
            _store(line.layer, option_specs()[name], word)
    line.layer.faults.extend(
        f"{word}: unexpected argument{_as_flag(word)}" for word in words[1 + len(_POSITIONALS) :]
    )


def _as_flag(word: str) -> str:
    """Return advice for `key=value`, the form of Hydra and OmegaConf; empty for every other word."""
    key, equals, value = word.partition("=")
    key = key.rpartition(".")[2]
    if not equals:
        return ""
    advice = foreign_advice(key, dashes=True)
    if key in keys():
        return f"; write {keys()[key].flag} {value}"
    return f"; {advice}" if advice else ""


def _read_flag(layer: Layer, word: str, words: deque[str]) -> None:
    flag, has_value, value = word.partition("=")
    if flag not in flags():
        _refuse_flag(layer, flag, words if not has_value else deque())
        return
    spec, is_negated = flags()[flag]
    if spec.is_switch:
        names = getattr(spec.kind, "names", None) if not is_negated else None
        if names is not None and (has_value or (words and is_run(words[0]))):
            _keep(layer, spec, True)
            _store(layer, option_specs()[names], value if has_value else words.popleft())
        elif has_value:
            layer.faults.append(f"{flag}: takes no value, got {value}")
            layer.touched.add(spec.name)
        else:
            _keep(layer, spec, not is_negated)
            if words and words[0].lower() in _BOOLEANS:
                value = words.popleft()
                layer.faults.append(
                    f"{flag}: takes no value, got {value}; write {spec.flag} or {_negated(spec)}"
                )
    elif has_value:
        _store(layer, spec, value)
    elif words and not words[0].startswith("--"):
        _store(layer, spec, words.popleft())
    else:
        layer.faults.append(f"{flag}: needs a value, {spec.kind.words()}")
        layer.touched.add(spec.name)


def _negated(spec: OptionSpec) -> str:
    return f"--no-{spec.flag.removeprefix('--')}"


def _refuse_flag(layer: Layer, flag: str, words: deque[str]) -> None:
    retired = RETIRED.get(flag[2:].replace("-", "_")) or foreign_advice(flag, dashes=True)
    near = "" if retired else _nearest(flag)
    hint = f"; did you mean '{near}'?" if near else f"; {retired}" if retired else ""
    layer.faults.append(f"{flag}: unknown option{hint}")
    spec = flags()[near][0] if near else keys().get(foreign_option(flag) or "")
    if spec:
        layer.touched.add(spec.name)
    # Its value must not pass for MODEL or DATASET.
    if words and not words[0].startswith("--") and not (spec and spec.is_switch):
        words.popleft()


def _nearest(flag: str) -> str:
    longer = sorted((known for known in flags() if known.startswith(flag)), key=len)
    if len(flag) > 2 and longer:
        return longer[0]
    hint = suggestion(f"--{flag.lstrip('-')}", flags())
    return hint.split("'")[1] if hint else ""


def _store(layer: Layer, spec: OptionSpec, text: str) -> None:
    try:
        value = spec.default if text == NONE_WORD else spec.kind.read(text)
    except ValueError as refusal:
        layer.faults.append(f"{spec.flag}: {refusal}")
        layer.touched.add(spec.name)
        return
    _keep(layer, spec, value)


def _keep(layer: Layer, spec: OptionSpec, value: Any) -> None:
    before = layer.settings.get(spec.name)
    if before and isinstance(spec.kind, Repeated):
        value = (*before.value, *value)
    elif before:
        layer.faults.append(f"{spec.flag}: given twice")
        return
    layer.settings[spec.name] = Setting(value, SOURCE, spec.flag)
