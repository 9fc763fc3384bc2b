"""wikitext-2-raw-v1: only the files of this form are read, as perplexities of two forms differ."""

from configs.runtime import kinds
from tests.support.wikitext import ROWS, assert_reads_only, form_files

TASK = kinds.load(kinds.TASKS, "wikitext-2-raw-v1")
FILES = form_files("raw")
__all__ = ["FILES", "ROWS", "TASK"]


def test_only_files_of_its_form_are_read(tmp_path):
    task = TASK.build(TASK.options())
    assert task.hub == ("Salesforce/wikitext", "wikitext-2-raw-v1")
    assert_reads_only(task, "raw", "tokens", tmp_path)
