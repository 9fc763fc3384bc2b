"""What sets of documents and their summaries share: the prompt, the answer, the score by ROUGE."""

from configs.runtime.kinds import import_late
from dataset.rows.fields import text_field
from dataset.suites.prompt_template import fill, is_closed, position, required, template_faults
from dataset.task import Example, Row


def document_faults(template: str, document: str) -> list[str]:
    """Say why a template cannot hold a document."""
    if template.count(f"{{{document}}}") != 1 or document not in required(template):
        return [f"data.template: must hold {{{document}}} once, in no part that depends on another field"]
    return [f"data.template: {fault}" for fault in template_faults(template)]


def summary_example(template: str, document: str, summary: str, row: Row) -> Example:
    """Return a row as a prompt whose document gives way, and its summary.

    Args:
        template: the prompt, with columns in braces.
        document: column of the document; the template holds it once.
        summary: column of the summary.
        row: the row.

    Raises:
        RowFault: when document or summary is missing, empty or no text.
    """
    begin, end = position(template, document, row)
    gold = text_field(row, summary)
    closed = is_closed(template)
    # Prompt and response are tokenised apart: the space between them belongs to the response.
    space = "" if closed or template[-1:].isspace() else " "
    prompt = fill(template, row)
    return Example((prompt,), response=f"{space}{gold}", gold=gold, closed=closed, document=(begin, end))


def score_summary(text: str, gold: str) -> dict[str, float]:
    """Return `rouge1`, `rouge2`, `rougeL` of a generated summary; their library is imported at first use."""
    return import_late("dataset.suites.rouge", "SCORE")(text, gold)
