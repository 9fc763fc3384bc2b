"""Merge an adapter into its base and write a `transformers` checkpoint, checked against the unmerged model.

Usage: python -m tools.merge --load BASE --adapter DIR --output DIR [--task TASK]
"""

import os
import sys
from collections.abc import Sequence
from types import SimpleNamespace

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings
from configs.runtime.files import place_faults
from configs.schema.values import Choice, PathText, Switch, Word
from model.exchange.adapter_directory import (
    BASES,
    TASKS,
    AdapterFiles,
    base_format,
    checked_files,
    extra_methods,
    labels,
    objective,
)
from model.network.source import Source
from model.network.source_files import DTYPES, checked_source, weights_dtype

_FLAGS = (
    Flag("--load", Word(), "Base model: a directory, a .gguf file or a hub name.", required=True),
    Flag("--adapter", PathText(), "A PEFT adapter directory, or a run directory.", required=True),
    Flag("--output", PathText(), "Directory to create.", required=True),
    Flag("--task", Choice("task", TASKS), "Task of the adapter, if its files do not name it."),
    Flag(
        "--base-dtype",
        Choice("data type", BASES),
        "Data type of the base's linear layers; by default the one the adapter was trained with.",
    ),
    Flag("--dtype", Choice("data type", DTYPES), "Data type of the written weights; default: the base's."),
    Flag("--offline", Switch(), "Do not access the Hugging Face Hub.", default=False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge, write and compare, and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.merge", "Merge an adapter into its base.", _FLAGS, words)
        source, files = checked(given)
        purpose, names = objective(files, given.task), labels(files)
        console.configure_logging("warning")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import torch

        from model.assembly.assembly import assemble
        from model.assembly.merging import merge
        from model.assembly.placement import Plans
        from model.network.backbone import load_backbone, with_quantizer

        classes = names if purpose == "classification" else ()
        word = base_format(files, given.base_dtype)
        backbone = with_quantizer(load_backbone(source, purpose, classes), word)
        assembled = assemble(backbone, Plans(), files.path, 0)
        notes = (
            [f"merged into the base's linear layers as {word} represents them"] if backbone.quantizer else []
        )
        for note in (*assembled.notes, *notes):
            console.say(f"note: {note}")
        # Dequantized values are those of the network that was trained, which the base's type would round.
        dtype = given.dtype or ("float32" if backbone.quantizer else weights_dtype(backbone.files))
        found = merge(assembled, given.output, classes, getattr(torch, dtype))
        rounded = "" if dtype == "float32" else f"; rounding to {dtype} {found.rounding:.1e}"
        console.say(
            f"merged: {given.output} (read back as {dtype},"
            f" largest difference of logits {found.merging:.1e}{rounded})"
        )
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> tuple[Source, AdapterFiles]:
    """Read the inputs without importing a heavy library.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    source = findings.attempt(lambda: checked_source(given.load, "--load", offline=given.offline))
    files = findings.attempt(lambda: checked_files(given.adapter, "--adapter"))
    if files is not None:
        findings.attempt(lambda: objective(files, given.task))
        findings.attempt(lambda: base_format(files, given.base_dtype))
        if "shortcut" in extra_methods(files.metadata):
            findings.lines.append(
                f"--adapter: {files.path} has shortcuts between layers, which do not merge into the weights"
                " of a linear layer; use the adapter unmerged: main test --adapter, tools.generate --adapter"
            )
    findings.lines += place_faults("--output", given.output)
    adapter = findings.settled(files)
    assert source is not None  # `settled` would give the union's common class, which is object
    return source, adapter


if __name__ == "__main__":
    sys.exit(main())
