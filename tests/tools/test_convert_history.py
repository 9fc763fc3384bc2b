"""Typed histories take the form of today."""

from model.search.history import read_history
from tests.tools.words import refused
from tools.convert_history import main

TYPED = """max_alpha = 10
[dyrealloc_0]
epoch = 0
step = 3
turn_on = [[0, "out_proj", 0.25, false], [0, "residual_1", 2, true]]
"""


def test_items_become_strings_and_names_roles(tmp_path, capsys):
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(TYPED)
    assert main([str(old), "--output", str(new)]) == 0
    assert capsys.readouterr().out == f"written: {new} (1 reallocations)\n"
    assert new.read_text() == (
        "max_alpha = 10\n\n[dyrealloc_0]\nepoch = 0\nstep = 3\n"
        'turn_on = [["0", "o_proj", "0.25", "False"], ["0", "residual1", "2.0", "True"]]\n'
    )
    assert read_history(new) == read_history(old)


def test_all_faults_are_reported_together(tmp_path):
    (tmp_path / "old.toml").write_text("[dyrealloc_0]\nepoch = 0\nstep = 0\nturn_on = [[0, 1, 2]]\n")
    assert refused("tools.convert_history", tmp_path / "old.toml", "--output", tmp_path / "old.toml") == [
        f"error: {tmp_path / 'old.toml'}: [dyrealloc_0] turn_on[0]: must be [layer, module, score, enabled]",
        f"error: --output: '{tmp_path / 'old.toml'}' already exists and is not overwritten",
    ]
