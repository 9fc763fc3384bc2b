"""A folder of files is a registry."""

import sys

import pytest

from configs.runtime import kinds
from configs.runtime.faults import InputFault

ANIMALS = kinds.Registry("zoo.animals", "ANIMAL", "animal")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Give a registry of its own, not the fixed lists of this folder's other tests."""
    folder = tmp_path / "zoo" / "animals"
    folder.mkdir(parents=True)
    for name in ("__init__", "cat", "dog"):
        (folder / f"{name}.py").write_text(f'"""A kind."""\nANIMAL = "{name}"\n')
    (folder / "notes.txt").write_text("")
    (tmp_path / "zoo" / "__init__.py").write_text('"""A floor."""\n')
    monkeypatch.setattr(kinds, "_ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        del sys.modules[name]


def test_names_are_the_files_sorted_and_nothing_is_imported(here):
    (here / "cow.py").write_text("raise RuntimeError")
    assert kinds.names(ANIMALS) == ("cat", "cow", "dog")
    assert "zoo.animals" not in sys.modules


def test_a_kind_is_loaded_by_its_name(here):
    assert kinds.load(ANIMALS, "dog") == "dog"
    assert "zoo.animals.cat" not in sys.modules


def test_an_unknown_kind_is_refused_with_the_nearest(here):
    kinds.check(ANIMALS, "cat", "--animal")
    with pytest.raises(InputFault) as caught:
        kinds.check(ANIMALS, "dgo", "--animal")
    assert str(caught.value) == "--animal: no animal 'dgo', one of cat, dog; did you mean 'dog'?"


def test_a_folder_that_is_absent_holds_no_kinds(here):
    assert kinds.names(kinds.Registry("zoo.plants", "PLANT", "plant")) == ()
