"""LoRA-Flow: word problems in Chinese, Russian and Spanish, to fuse the adapters of a language and of a task.

Source: Wang et al. 2024, arXiv 2402.11455, released data and code. A pair has 200 training rows and 100 of
development (MetaMathQA, translated) and 250 test problems (MGSM).
Differs: the step-by-step suffix is an option for training and evaluation alike, where the released training
code always adds a Chinese one and the released evaluation none. The response begins with a space, so that
prompt and response, tokenised separately, give the same tokens as the whole text.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from configs.runtime.faults import InputFault
from configs.schema.number_values import Whole
from dataset.rows.fields import text_field
from dataset.rows.json_values import json_value
from dataset.rows.readers import read_jsonl
from dataset.suites.final_answers import final_number, score_final_number
from dataset.suites.number_answers import parse_number
from dataset.suites.prompt_template import fill
from dataset.task import Example, Generation, Refused, Row, RowFault, Rows, Selection, Split, Task, TaskKind

Pair = Literal["zh_math", "ru_math", "es_math", "zh_code", "ru_code", "es_code"]
_FOLDER = "lora_flow"
_SYSTEM_FILE = "system_prompts.json"
_PHRASES = {"zh": "答案是：", "ru": "Ответ:", "es": "La respuesta es:"}


@dataclass(frozen=True)
class LoraFlowOptions:
    """The `[data]` table of LoRA-Flow."""

    pair: Pair
    """Language and task; the code pairs are refused, as running generated programs is not offered yet."""
    suffix: str = ""
    """Text after the instruction, such as `Let's think step by step.`, in training and evaluation alike."""
    system: str | None = None
    """System text of the prompt; by default the pair's in system_prompts.json. Empty: no system tags."""
    answer_phrase: str | None = None
    """The words before the number in a generated answer; by default those of the training rows."""
    max_new_tokens: Annotated[int, Whole(1)] = 512
    """Longest generated answer in tokens."""


def build(options: LoraFlowOptions) -> Task:
    """Build the task.

    Raises:
        InputFault: for every fault of the options.
    """
    _check(options)
    template = _template(options.system or "", options.suffix)
    phrase = options.answer_phrase or _PHRASES[options.pair[:2]]
    return Task(
        name="lora_flow",
        objective="language_modeling",
        splits={
            "train": Split((f"train/{options.pair}_train.jsonl",), None, read_jsonl),
            "validation": Split((f"dev/{options.pair}_dev.jsonl",), None, read_jsonl),
            "test": Split((f"test/{options.pair}_test.jsonl",), None, _read_problems),
        },
        example=partial(_example, template, phrase),
        metrics=("loss", "perplexity"),
        selection=Selection("loss", maximise=False),
        generation=Generation(options.max_new_tokens, partial(score_final_number, phrase)),
        template=template,
        folder=_FOLDER,
        default_max_token_len=4096,
    )


def _with_system(options: LoraFlowOptions, directory: Path | None) -> LoraFlowOptions:
    """Return the options with the pair's system text, if none is given and it is stored with the rows.

    Raises:
        InputFault: when the pair is refused, no directory is given, or the file is damaged or lacks the pair.
    """
    faults = _pair_faults(options.pair)
    if directory is None:
        faults.append("--dataset-dir: required for lora_flow, which is not on the hub")
    if faults or directory is None:
        raise InputFault(*faults)
    files = [folder / _SYSTEM_FILE for folder in (directory, directory / _FOLDER)]
    path = next((file for file in files if file.is_file()), None)
    if options.system is not None or path is None:
        return options
    return replace(options, system=_stored_system(path, options.pair))


def _stored_system(path: Path, pair: str) -> str:
    try:
        prompts = json_value(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise InputFault(f"{path}: is not UTF-8") from None
    except OSError as error:
        raise InputFault(f"{path}: cannot be read: {error.strerror}") from None
    except RowFault as fault:
        raise InputFault(f"{path}: {fault}") from None
    text = prompts.get(pair) if isinstance(prompts, dict) else None
    if not isinstance(text, str):
        raise InputFault(f"{path}: has no text for '{pair}', needed without data.system")
    return text


def _pair_faults(pair: str) -> list[str]:
    if pair.endswith("_math"):
        return []
    return [
        f"data.pair: '{pair}' is scored by running generated programs, which is not offered yet;"
        " zh_math, ru_math and es_math are"
    ]


def _check(options: LoraFlowOptions) -> None:
    faults = _pair_faults(options.pair)
    if not faults and options.system is None:
        faults.append(f"data.system: required, --dataset-dir has no {_SYSTEM_FILE}")
    for name, text in (("suffix", options.suffix), ("system", options.system or "")):
        if "{" in text or "}" in text:
            faults.append(f"data.{name}: must not hold braces, which are fields in a prompt template")
    if options.answer_phrase is not None and not options.answer_phrase.strip(" \n:\uff1a"):
        faults.append("data.answer_phrase: must hold a word")
    if faults:
        raise InputFault(*faults)


def _template(system: str, suffix: str) -> str:
    tags = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return f"[INST] {tags}{{question}} [/INST]{suffix}"


def _read_problems(path: Path) -> Rows:
    """Read test rows; one whose answer is no number is refused, as no answer to it could be right."""
    found, read = Rows(), read_jsonl(path)
    for numbered in read.rows:
        gold = numbered.row.get("answer")
        if isinstance(gold, str) and gold and parse_number(gold) is None:
            found.refused.append(Refused(numbered.line, "field 'answer' is not a number"))
        else:
            found.rows.append(numbered)
    return Rows(found.rows, sorted([*read.refused, *found.refused]))


def _example(template: str, phrase: str, row: Row) -> Example:
    """Return the example of a row of any split: query and response to train on, else question and answer."""
    is_training = "query" in row or "response" in row
    names = ("query", "response") if is_training else ("question", "answer")
    question, answer = (text_field(row, name) for name in names)
    written = parse_number(answer)
    number = final_number(answer, phrase) if written is None else written
    gold = None if number is None else format(number, "f")
    return Example((fill(template, {"question": question}),), response=f" {answer}", gold=gold)


TASK = TaskKind(build, LoraFlowOptions, ("causal_language_modeling",), with_files=_with_system)
