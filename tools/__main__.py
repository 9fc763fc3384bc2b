"""The installed command `lora-research`, and `python -m tools`, which runs a tool by its name.

Usage: lora-research ACTION ... | lora-research tools NAME ... | python -m tools NAME ...

An installation holds the checkout's folders in one package folder `lora_research`, because top-level packages
named `model` or `dataset` would collide with others. This module puts that folder on the path before anything
of the program is imported, so its own imports of the program are inside functions.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def command() -> int:
    """Run the command line of `lora-research` and return the exit code."""
    sys.path.insert(0, str(_ROOT))
    words = sys.argv[1:]
    if words[:1] == ["tools"]:
        return main(words[1:])
    return int(import_module("main").main(words))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool that the first argument names; without arguments, list the tools.

    Args:
        arguments: the tool's name and its arguments; None for those of the process.
    """
    console, faults = import_module("configs.runtime.console"), import_module("configs.runtime.faults")
    words = sys.argv[1:] if arguments is None else list(arguments)
    known = sorted(path.stem for path in (_ROOT / "tools").glob("*.py") if not path.stem.startswith("__"))
    if not words or words[0] in ("-h", "--help"):
        console.say("\n".join(f"{name:22}{_summary(name)}" for name in known))
        return 0
    if words[0] == "--version":
        version = import_module("configs.runtime.version")
        console.say(f"{version.DISTRIBUTION} {version.program_version()}")
        return 0
    if words[0] not in known:
        return int(console.report(faults.InputFault(f"tools: {faults.unknown('tool', words[0], known)}")))
    return int(import_module(f"tools.{words[0]}").main(words[1:]))


def _summary(name: str) -> str:
    """Return the first sentence of a tool's docstring."""
    text = (_ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8")
    return text.removeprefix('"""').split("\n", 1)[0]


if __name__ == "__main__":
    sys.exit(main())
