"""Running text in two forms: blank lines are not examples, the end of a line stays."""

from dataset.suites.wikitext import wikitext_kind


def test_a_form_names_its_files_in_order():
    kind = wikitext_kind("one", folder="folder", endings=("raw", "tokens"), hub="config")
    task = kind.build(kind.options())
    assert task.splits["validation"].files == (
        "wiki.valid.raw",
        "wiki.valid.tokens",
        "config/validation-00000-of-00001.parquet",
    )
    assert (task.name, task.folder, task.hub) == ("one", "folder", ("Salesforce/wikitext", "config"))


def test_a_blank_line_is_no_example():
    kind = wikitext_kind("one", folder="folder", endings=("raw",), hub="config")
    task = kind.build(kind.options())
    assert [task.select({"text": text}) for text in ("", " \n", " a \n")] == [False, False, True]
    assert task.example({"text": " a \n"}).response == " a \n"
