"""What the summarization tasks share: prompt, response, and the score by ROUGE."""

from configs.runtime.kinds import import_late
from dataset.rows.fields import text_field
from dataset.suites.prompt_template import ends_with_eos, field_span, fill, required_fields, template_faults
from dataset.task import Example, Row


def document_faults(template: str, document: str) -> list[str]:
    """Return the faults of a template for summarization."""
    if template.count(f"{{{document}}}") != 1 or document not in required_fields(template):
        return [f"data.template: must hold {{{document}}} once, and not in an optional part"]
    return [f"data.template: {fault}" for fault in template_faults(template)]


def summary_example(template: str, document: str, summary: str, row: Row) -> Example:
    """Return a row as a prompt whose document may be truncated, and its summary.

    Args:
        template: the prompt, with columns in braces.
        document: column of the document; the template holds it once.
        summary: column of the summary.
        row: the row.

    Raises:
        RowFault: when document or summary is missing, empty or not a text.
    """
    begin, end = field_span(template, document, row)
    gold = text_field(row, summary)
    with_eos = ends_with_eos(template)
    # Prompt and response are tokenised separately: the space between them belongs to the response.
    space = "" if with_eos or template[-1:].isspace() else " "
    prompt = fill(template, row)
    return Example(
        (prompt,), response=f"{space}{gold}", gold=gold, eos_after_prompt=with_eos, document_span=(begin, end)
    )


def score_summary(text: str, gold: str) -> dict[str, float]:
    """Return `rouge1`, `rouge2`, `rougeL` of a generated summary, 0 to 1; imports their library late."""
    return import_late("dataset.suites.rouge", "SCORE")(text, gold)
