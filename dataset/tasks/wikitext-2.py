"""WikiText-2: encyclopedia articles as running text, without prompts.

Source: Merity et al. 2016, 1609.07843; the raw files, or the tokens variant with its `<unk>`.
Differs: blocks of the longest length begin with the start token and the last one is shorter, where the usual
packing drops it, so that perplexity covers the whole text; blank lines between paragraphs are left out.
"""

from pathlib import Path

from dataset.rows.fields import text_field
from dataset.rows.readers import read_by_ending, read_lines
from dataset.task import Example, NoOptions, Row, Rows, Selection, Split, Task, TaskKind


def build(options: NoOptions) -> Task:
    """Build the task."""
    return Task(
        name="wikitext-2",
        objective="language_modeling",
        splits={
            "train": _split("train", "train"),
            "validation": _split("valid", "validation"),
            "test": _split("test", "test"),
        },
        example=_example,
        metrics=("loss", "perplexity"),
        selection=Selection("perplexity", maximise=False),
        hub=("Salesforce/wikitext", "wikitext-2-raw-v1"),
        folder="wikitext-2-raw",
        select=_is_text,
        packed=True,
    )


def _split(part: str, hub: str) -> Split:
    names = (f"wiki.{part}.raw", f"wiki.{part}.tokens", f"wikitext-2-raw-v1/{hub}-00000-of-00001.parquet")
    return Split(names, hub, _read)


def _read(path: Path) -> Rows:
    return read_by_ending(path) if path.suffix == ".parquet" else read_lines(path)


def _is_text(row: Row) -> bool:
    # The hub writes a blank line as "", the files as a space.
    return row.get("text") != "" and text_field(row, "text").strip() != ""


def _example(row: Row) -> Example:
    return Example(("",), response=text_field(row, "text"))


TASK = TaskKind(build, NoOptions, ("causal_language_modeling",))
