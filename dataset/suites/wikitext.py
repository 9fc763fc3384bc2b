"""WikiText-2 in its two published forms: encyclopedia articles as running text, without prompts.

Source: Merity et al. 2016, arXiv 1609.07843. The raw form has the text as it was written; the form of tokens
has rare words replaced by `<unk>`, so that perplexities of the two cannot be compared.
Differs: blocks of the longest length begin with the start token and the last one is shorter, where the usual
packing drops it, so that perplexity covers the whole text; blank lines between paragraphs are left out.
"""

from pathlib import Path

from dataset.rows.fields import text_field
from dataset.rows.readers import read_by_ending, read_lines
from dataset.task import Example, NoOptions, Row, Rows, Selection, Split, Task, TaskKind


def wikitext_kind(name: str, *, folder: str, endings: tuple[str, ...], hub: str) -> TaskKind:
    """Return the kind of one form.

    Args:
        name: the data set's word.
        folder: the official folder's name.
        endings: of its files, in the order in which they are looked for.
        hub: the configuration of `Salesforce/wikitext`.
    """

    def split(part: str, stored: str) -> Split:
        names = tuple(f"wiki.{part}.{ending}" for ending in endings)
        return Split((*names, f"{hub}/{stored}-00000-of-00001.parquet"), stored, _read)

    def build(options: NoOptions) -> Task:
        """Return the task of this form."""
        return Task(
            name=name,
            objective="language_modeling",
            splits={
                "train": split("train", "train"),
                "validation": split("valid", "validation"),
                "test": split("test", "test"),
            },
            example=_example,
            metrics=("loss", "perplexity"),
            selection=Selection("perplexity", maximise=False),
            hub=("Salesforce/wikitext", hub),
            folder=folder,
            select=_is_text,
            packed=True,
        )

    return TaskKind(build, NoOptions, ("causal_language_modeling",))


def _read(path: Path) -> Rows:
    return read_by_ending(path) if path.suffix == ".parquet" else read_lines(path)


def _is_text(row: Row) -> bool:
    # The hub writes a blank line as "", the files as a space.
    return row.get("text") != "" and text_field(row, "text").strip() != ""


def _example(row: Row) -> Example:
    return Example(("",), response=text_field(row, "text"))
