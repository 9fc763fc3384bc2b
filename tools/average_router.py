"""Write the LoRA that weighs experts as their routers do on average over texts, and tell its error there.

Usage: python -m tools.average_router --load BASE --adapter DIR --texts FILE --output DIR [--task TASK]
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from configs import console
from configs.faults import Findings, InputFault
from configs.files import place_faults
from configs.number_values import Whole
from configs.tool_flags import Flag, ended, read_words
from configs.values import Choice, PathText, Switch, Word
from model import source as sources
from model.adapter_files import (
    BASES,
    TASKS,
    AdapterFiles,
    base_format,
    beside,
    labels,
    objective,
    read_files,
)

_FLAGS = (
    Flag("--load", Word(), "The frozen base: a directory, a .gguf file, a hub name.", required=True),
    Flag("--adapter", PathText(), "A directory with experts, or a run's.", required=True),
    Flag("--texts", PathText(), "A text a line: what the average is taken over.", required=True),
    Flag("--output", PathText(), "Directory that is made, in PEFT format.", required=True),
    Flag("--rows", Whole(1), "At most so many texts, from the first.", default=256),
    Flag("--task", Choice("task", TASKS), "What the adapter is for, where it does not say so."),
    Flag("--base-dtype", Choice("data type", BASES), "Of the base's linears; else as the adapter says."),
    Flag("--offline", Switch(), "Never ask a hub.", default=False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Average, compare and write; return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.average_router", "Average routers into a LoRA.", _FLAGS, words)
        source, files, texts = checked(given)
        purpose, names = objective(files, given.task), labels(files)
        console.configure_logging("warning")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from model.assembly import assemble
        from model.averaging import average
        from model.backbone import load_backbone, stored_as
        from model.peft_format import read
        from model.plans import Plans

        classes = names if purpose == "classification" else ()
        word = base_format(files, given.base_dtype)
        backbone = stored_as(load_backbone(source, purpose, classes), word)
        assembled = assemble(backbone, Plans(), files.path, 0)
        facts = {
            "task_type": "CAUSAL_LM" if purpose == "language_modeling" else "SEQ_CLS",
            "base": files.config.get("base_model_name_or_path") or "",
            "dropout": 0.0,
        }
        errors = average(assembled, texts, read(files.path, "--adapter"), given.output, facts)
        console.say(f"averaged: {given.output} (over {len(texts)} texts, read back)")
        for line in errors.lines():
            console.say(line)
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> tuple[sources.Source, AdapterFiles, list[str]]:
    """Read what the words name, as far as that needs no heavy library.

    Raises:
        InputFault: with the faults of all of them, a line each.
    """
    findings = Findings()
    source = findings.attempt(lambda: sources.checked(given.load, "--load", offline=given.offline))
    files = findings.attempt(lambda: read_files(given.adapter, "--adapter"))
    texts = findings.attempt(lambda: read_texts(given.texts)[: given.rows])
    if files is not None:
        findings.attempt(lambda: objective(files, given.task))
        findings.attempt(lambda: base_format(files, given.base_dtype))
        methods = beside(files.metadata)
        if not methods:
            findings.lines.append(f"--adapter: {files.path} is a plain LoRA already; nothing is averaged")
        if "shortcut" in methods:
            findings.lines.append(f"--adapter: {files.path} has shortcuts, which no LoRA can stand for")
    findings.lines += place_faults("--output", given.output)
    findings.settle()
    return source, files, texts


def read_texts(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises:
        InputFault: when it cannot be read, is not UTF-8 or holds no text.
    """
    try:
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputFault(f"--texts: {path} is not UTF-8") from None
    except OSError as error:
        raise InputFault(f"--texts: cannot read '{path}': {error.strerror}") from None
    if not texts:
        raise InputFault(f"--texts: {path} holds no text")
    return texts


if __name__ == "__main__":
    sys.exit(main())
