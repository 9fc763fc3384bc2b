"""BillSum: bills of the US Congress and of California with their official summaries (arXiv 1910.00523).

Public domain (CC0). Bills have 5,000 to 20,000 characters: with the default `--max-token-len` of 512 they are
truncated; a summary is truncated only where it is longer than `max_new_tokens`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from configs.runtime.faults import InputFault
from configs.schema.number_values import Whole
from dataset.rows.readers import read_jsonl
from dataset.suites.summarization import document_faults, score_summary, summary_example
from dataset.task import Generation, Selection, Split, Task, TaskKind

_TESTS = {
    "us": Split(("us_test_data_final_OFFICIAL.jsonl",), "test", read_jsonl),
    "ca": Split(("ca_test_data_final_OFFICIAL.jsonl",), "ca_test", read_jsonl),
}


@dataclass(frozen=True)
class BillSumOptions:
    """The `[data]` table of BillSum."""

    template: str = "Bill: {text}\nSummary:"
    """The prompt; `{text}` is the bill, `{title}` is optional."""
    test: Literal["us", "ca"] = "us"
    """Test set: bills of the US Congress, like the training set, or of California."""
    validation_examples: Annotated[int, Whole(1)] | None = None
    """Number of training rows held out for validation; without it the last 5 %."""
    max_new_tokens: Annotated[int, Whole(1)] = 256
    """Longest generated summary in tokens; prompts leave as many of `--max-token-len` free, at most half."""


def build(options: BillSumOptions) -> Task:
    """Build the task.

    Raises:
        InputFault: for every fault of the template.
    """
    faults = document_faults(options.template, "text")
    if faults:
        raise InputFault(*faults)
    train = Split(("us_train_data_final_OFFICIAL.jsonl",), "train", read_jsonl)
    return Task(
        name="billsum",
        objective="language_modeling",
        splits={"train": train, "test": _TESTS[options.test]},
        example=partial(summary_example, options.template, "text", "summary"),
        metrics=("loss", "perplexity"),
        selection=Selection("loss", maximise=False),
        hub=("FiscalNote/billsum", None),
        generation=Generation(options.max_new_tokens, score_summary),
        template=options.template,
        folder="billsum_v4_1",
        holdout=options.validation_examples or 0.05,
    )


TASK = TaskKind(build, BillSumOptions, ("summarization",))
