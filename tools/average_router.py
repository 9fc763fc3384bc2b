"""Average the routers of a mixture of experts over texts: write one LoRA and report its error on those texts.

Usage: python -m tools.average_router --load BASE --adapter DIR --output DIR [--task TASK]
       (--texts FILE | --dataset mrpc --dataset-dir DIR | --config run.toml)
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import place_faults, read_regular
from configs.schema.number_values import Whole
from configs.schema.options import MIXTURE
from configs.schema.values import Choice, PathText, Switch, Word
from dataset.mixture.bind_parts import bind_parts
from dataset.mixture.gather_parts import Request, gather_parts
from dataset.mixture.run_rows import RunRows, fetch_rows
from dataset.mixture.tool_data import bound_for_tool
from dataset.rows.task_rows import TaskRows
from model.exchange.adapter_directory import (
    BASES,
    TASKS,
    AdapterFiles,
    base_format,
    checked_files,
    extra_methods,
    labels,
    objective,
    trained_prompt,
)
from model.network.source import Source
from model.network.source_files import checked_source

_FLAGS = (
    Flag("--load", Word(), "Base model: a directory, a .gguf file or a hub name.", required=True),
    Flag("--adapter", PathText(), "Adapter directory with experts, or a run directory.", required=True),
    Flag("--texts", PathText(), "Text file, one text per line, to average over."),
    Flag(
        "--dataset",
        Word(),
        f"Average over the validation set of this data set ({MIXTURE}: see --config) instead.",
    ),
    Flag("--dataset-dir", PathText(), "Directory of the data set's files."),
    Flag(
        "--config",
        PathText(),
        "TOML of a run: data set, its directory and the [data] table are taken from it.",
    ),
    Flag("--max-bad-rows", Whole(0), "Number of malformed rows that may be skipped.", default=0),
    Flag("--output", PathText(), "PEFT adapter directory to create.", required=True),
    Flag("--rows", Whole(1), "Use the first so many texts or examples.", default=256),
    Flag("--task", Choice("task", TASKS), "Task of the adapter, if its files do not name it."),
    Flag(
        "--base-dtype",
        Choice("data type", BASES),
        "Data type of the base's linear layers; by default the one the adapter was trained with.",
    ),
    Flag("--offline", Switch(), "Do not access the Hugging Face Hub.", default=False),
)
_OF_SETS = {"--dataset", "--dataset-dir", "--config", "--max-bad-rows"}


@dataclass(frozen=True)
class Checked:
    """The inputs, read without any heavy library.

    Args:
        source: the base.
        files: the adapter.
        texts: the texts; empty with a data set.
        data: the rows of the data set that are in local files; None with texts.
    """

    source: Source
    files: AdapterFiles
    texts: Sequence[str]
    data: RunRows | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Average, write the adapter, print its error, and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.average_router", "Average routers into a LoRA.", _FLAGS, words)
        one = checked(given)
        purpose, classes = objective(one.files, given.task), labels(one.files)
        console.configure_logging("warning")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        rows = None if one.data is None else fetch_rows(one.data, offline=given.offline, use_cache=True)
        if rows is not None:
            require_match(rows, one.files, given.task)
        from dataset.batches.evaluation_batches import validation_batches
        from model.assembly.assembly import assemble
        from model.assembly.placement import Plans
        from model.assembly.router_averaging import ROWS, export_average, text_batches
        from model.exchange.peft_format import read
        from model.network.backbone import load_backbone, max_tokens, with_quantizer
        from model.training.objective import Batch, build

        backbone = load_backbone(one.source, purpose, classes if purpose == "classification" else ())
        backbone = with_quantizer(backbone, base_format(one.files, given.base_dtype))
        assembled = assemble(backbone, Plans(), one.files.path, 0)
        batches: Sequence[Batch]
        if rows is None:
            batches, measure = text_batches(assembled, one.texts), None
        else:
            length = partial(_length, partial(max_tokens, backbone), one.files)
            batches = validation_batches(rows, backbone.tokenizer, length, most=given.rows, batch_size=ROWS)
            measure = build(purpose, rows.task.metrics, len(classes))
        file = read(one.files.path, "--adapter")
        errors = export_average(assembled, batches, file, given.output, _facts(one.files, purpose), measure)
        count = sum(len(batch["input_ids"]) for batch in batches)
        console.say(f"averaged: {given.output} (over {count} texts, read back)")
        console.say("\n".join(errors.lines()))
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> Checked:
    """Read the inputs without importing a heavy library.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    findings.lines += _word_faults(given)
    source = findings.attempt(lambda: checked_source(given.load, "--load", offline=given.offline))
    files = findings.attempt(lambda: checked_files(given.adapter, "--adapter"))
    texts = findings.attempt(lambda: read_texts(given.texts)[: given.rows]) if given.texts else []
    if files is not None:
        findings.attempt(lambda: objective(files, given.task))
        findings.attempt(lambda: base_format(files, given.base_dtype))
        methods = extra_methods(files.metadata)
        if not methods:
            findings.lines.append(
                f"--adapter: {files.path} is a plain LoRA without routers; there is nothing to average"
            )
        if "shortcut" in methods:
            findings.lines.append(f"--adapter: {files.path} has shortcuts, which a LoRA cannot represent")
    findings.lines += place_faults("--output", given.output)
    adapter, lines = findings.settled(files), findings.settled(texts)
    assert source is not None  # `settled` would give the union's common class, which is object
    return Checked(source, adapter, lines, _data(given, adapter) if given.texts is None else None)


def _word_faults(given: SimpleNamespace) -> list[str]:
    if given.texts is None:
        return (
            []
            if given.given & {"--dataset", "--config"}
            else ["--texts: required, unless --dataset is given"]
        )
    others = sorted(given.given & _OF_SETS)
    return [f"{flag}: cannot be combined with --texts" for flag in others]


def _data(given: SimpleNamespace, files: AdapterFiles) -> RunRows:
    """Return the rows, those in local files already read; the prompt is the one of the adapter's training."""
    bound = bound_for_tool(given)
    bound, parts = bind_parts(bound, trained_prompt([files.path], bound.options.dataset))
    request = Request("validation", False, bound.options.max_bad_rows)
    data = RunRows(parts, request, gather_parts(parts, request, {}))
    if data.is_complete:
        require_match(data.joined(), files, given.task)
    return data


def require_match(rows: TaskRows, files: AdapterFiles, task: str | None) -> None:
    """Compare the objective and labels of a data set with those the adapter was trained for.

    Args:
        rows: the data set's.
        files: the adapter.
        task: the value of `--task`, for an adapter whose files do not name it.

    Raises:
        InputFault: when they differ.
    """
    purpose, known = objective(files, task), labels(files)
    name, where = rows.task.name, files.path
    if rows.task.objective != purpose:
        raise InputFault(f"--dataset: {name} is {rows.task.objective}, {where} was trained for {purpose}")
    is_named = bool(files.metadata.get("labels"))
    ours, theirs = (list(names) if is_named else len(names) for names in (rows.task.labels, known))
    if purpose == "classification" and ours != theirs:
        raise InputFault(f"--dataset: {name} has labels {ours}, {where} has {theirs}")


def _length(cut: Callable[..., int], files: AdapterFiles, own: int) -> int:
    """Return the maximum input length in tokens: the adapter's, or else the data set's."""
    trained = files.metadata.get("evaluation", {}).get("max_token_len")
    return cut(own if trained is None else trained, given=trained is not None)


def _facts(files: AdapterFiles, purpose: str) -> dict[str, Any]:
    """Return the configuration of the written adapter."""
    return {
        "task_type": "CAUSAL_LM" if purpose == "language_modeling" else "SEQ_CLS",
        "base": files.config.get("base_model_name_or_path") or "",
        "dropout": 0.0,
    }


def read_texts(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises:
        InputFault: when it cannot be read, is not UTF-8 or contains no text.
    """
    try:
        texts = [line for line in read_regular(path).decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputFault(f"--texts: {path} is not UTF-8") from None
    except OSError as error:
        raise InputFault(f"--texts: cannot read '{path}': {error.strerror}") from None
    if not texts:
        raise InputFault(f"--texts: {path} contains no text")
    return texts


if __name__ == "__main__":
    sys.exit(main())
