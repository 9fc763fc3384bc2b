"""Generate answers to prompts with an adapter, in the prompt template of its training.

Usage: python -m tools.generate --load BASE --adapter RUN_OR_ADAPTER [--prompt TEXT | --file FILE]

Without --prompt and --file each line of standard input is a prompt. Only answers go to standard output.
"""

import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

from configs.command_line.tool_flags import Flag, Text, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import read_regular
from configs.schema.number_values import Real, Whole
from configs.schema.values import Choice, PathText, Switch, Word
from dataset.rows.fields import text_field
from dataset.suites.prompt_template import ends_with_eos, fill, placeholders
from dataset.task import Example, Row, RowFault
from model.exchange.adapter_directory import BASES, AdapterFiles, base_format, checked_files, objective
from model.network.source import Source
from model.network.source_files import checked_source

_LOG = logging.getLogger(__name__)
_SAMPLING = ("--temperature", "--top-p", "--seed")
_FLAGS = (
    Flag("--load", Word(), "Base model: a directory, a .gguf file or a hub name.", required=True),
    Flag("--adapter", PathText(), "A PEFT adapter directory, or a run directory.", required=True),
    Flag("--prompt", Text(), "The prompt."),
    Flag(
        "--file",
        PathText(),
        "File with one prompt per line; .jsonl: one row with the template's fields per line.",
    ),
    Flag("--max-new-tokens", Whole(1), "Longest answer in tokens.", default=256),
    Flag("--beams", Whole(1, 64), "Beam size; 1 is greedy decoding.", default=1),
    Flag("--sample", Switch(), "Sample tokens instead of greedy decoding.", default=False),
    Flag("--temperature", Real(1e-4, 1e4), "Sampling temperature.", default=1.0),
    Flag("--top-p", Real(0, 1, low_open=True), "Nucleus sampling: probability mass.", default=1.0),
    Flag("--seed", Whole(0), "Seed of the sampling.", default=0),
    Flag(
        "--base-dtype",
        Choice("data type", BASES),
        "Data type of the base's linear layers; by default the one the adapter was trained with.",
    ),
    Flag("--offline", Switch(), "Do not access the Hugging Face Hub.", default=False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print an answer for each prompt and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.generate", "Answer prompts with an adapter.", _FLAGS, words)
        source, files, rows = checked(given)
        prompts = prompts_of(rows, files.template)
        console.configure_logging("warning")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from dataset.encoding.encode import encode_prompts
        from model.assembly.assembly import assemble
        from model.assembly.generation import Decoding, check_prompt_lengths, generate
        from model.assembly.placement import Plans
        from model.network.backbone import load_backbone, with_quantizer

        word = base_format(files, given.base_dtype)
        backbone = with_quantizer(load_backbone(source, "language_modeling"), word)
        assembled = assemble(backbone, Plans(), files.path, 0)
        for note in assembled.notes:
            _LOG.warning("%s", note)
        decoding = Decoding(
            given.max_new_tokens, given.beams, given.sample, given.temperature, given.top_p, given.seed
        )
        with_eos = files.template is not None and ends_with_eos(files.template)
        examples = [Example((prompt,), eos_after_prompt=with_eos) for prompt in prompts]
        encoded = encode_prompts(examples, assembled.backbone.tokenizer, sys.maxsize)
        check_prompt_lengths(assembled, encoded.lengths)
        for number in range(len(encoded)):
            ids = encoded[number]["input_ids"].tolist()
            console.say(shown(generate(assembled, ids, decoding, number), alone=given.prompt is not None))
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> tuple[Source, AdapterFiles, list[Row | str]]:
    """Read the inputs without importing a heavy library.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    findings.lines += word_faults(given)
    source = findings.attempt(lambda: checked_source(given.load, "--load", offline=given.offline))
    files = findings.attempt(lambda: _writing(given.adapter))
    if files is not None:
        findings.attempt(lambda: base_format(files, given.base_dtype))
    adapter = findings.settled(files)
    assert source is not None  # `settled` would give the union's common class, which is object
    return source, adapter, _rows(given)


def _rows(given: SimpleNamespace) -> list[Row | str]:
    if given.prompt is not None:
        return [given.prompt]
    if given.file is not None:
        return read_rows(given.file)
    try:
        return lines_of(sys.stdin.read())
    except UnicodeDecodeError:
        raise InputFault("standard input: not UTF-8") from None


def _writing(adapter: Path) -> AdapterFiles:
    """Read the adapter of a language model."""
    files = checked_files(adapter, "--adapter")
    task = None if files.template is None else "causal_language_modeling"
    if objective(files, task) != "language_modeling":
        raise InputFault(f"--adapter: {files.path} is a classifier and cannot generate text")
    return files


def word_faults(given: SimpleNamespace) -> list[str]:
    """Return a fault for each combination of flags that is not allowed."""
    faults = [f"{name}: only with --sample" for name in _SAMPLING if name in given.given and not given.sample]
    if given.prompt is not None and given.file is not None:
        faults.append("--file: cannot be combined with --prompt")
    return faults


def read_rows(path: Path) -> list[Row | str]:
    """Return the prompts of a text file, or the rows of a .jsonl file.

    Raises:
        InputFault: naming the file, and the line that is not a row.
    """
    try:
        text = read_regular(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputFault(f"{path}: is not UTF-8") from None
    except OSError as error:
        raise InputFault(f"--file: cannot read '{path}': {error.strerror}") from None
    if path.suffix != ".jsonl":
        return lines_of(text)
    rows: list[Row | str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputFault(f"{path}:{number}: is not a JSON object")
            rows.append(row)
    return rows


def lines_of(text: str) -> list[Row | str]:
    """Return the lines that are not blank."""
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def prompts_of(rows: Iterable[Row | str], template: str | None) -> list[str]:
    """Fill the template with each row, as in training; a plain text is its first field, others are empty.

    Raises:
        InputFault: naming the row, or when there is no prompt.
    """
    fields = [] if template is None else placeholders(template)
    prompts, faults = [], []
    for number, row in enumerate(rows, 1):
        try:
            prompts.append(_prompt(row, template, fields))
        except RowFault as fault:
            faults.append(f"prompt {number}: {fault}")
    if not prompts and not faults:
        faults.append("--prompt: no prompt was given")
    if faults:
        raise InputFault(*faults)
    return prompts


def _prompt(row: Row | str, template: str | None, fields: Sequence[str]) -> str:
    if isinstance(row, str):
        text = text_field({"prompt": row}, "prompt")
        if template is None or not fields:
            return text
        return fill(template, {**dict.fromkeys(fields, ""), fields[0]: text})
    if template is None or not fields:
        raise RowFault("the adapter has no prompt template with fields")
    return fill(template, row)


def shown(text: str, *, alone: bool) -> str:
    """Return an answer as it is printed; if there are several, each is one line with line ends escaped."""
    return text.strip() if alone else console.escaped(text.strip())


if __name__ == "__main__":
    sys.exit(main())
