"""Config files: one bad line per row, named with file and line."""

import os

import pytest

from configs.runtime.faults import InputFault
from configs.toml.reader import read_document

BATCHES = "must be a whole number of at least 1, or a ratio in (0, 1] written with a dot"

TOMLS = [
    ("learning_rte = 1e-4", "unknown key 'learning_rte'; did you mean 'learning_rate'?"),
    ('max_epochs = "3"', 'max_epochs: must be a whole number of at least 1, got "3"'),
    ("max_epochs = 3.0", "max_epochs: must be a whole number of at least 1, got 3.0"),
    ("max_epochs = true", "max_epochs: must be a whole number of at least 1, got true"),
    ('learning_rate = "1e-4"', 'learning_rate: must be a finite number of at least 0, got "1e-4"'),
    ("learning_rate = nan", "learning_rate: must be a finite number of at least 0, got nan"),
    ("learning_rate = 1" + "0" * 400, "learning_rate: must be a finite number of at least 0"),
    ('offline = "true"', 'offline: must be true or false, got "true"'),
    ("offline = 1", "offline: must be true or false, got 1"),
    ('realloc_N = "0.5"', f'realloc_N: {BATCHES}, got "0.5"'),
    ("realloc_N = true", f"realloc_N: {BATCHES}, got true"),
    ("seeds = 1", "seeds: must be a list"),
    ("seeds = [1, 1]", "seeds: must be a non-empty list without repetitions"),
    ("optimizer = 3", "optimizer: must be a string, one of adam, sgd, adamw, got 3"),
    ("load = 3", "load: must be a string, got 3"),
    ('config = "x.toml"', "config: only allowed on the command line"),
    ("data = 3", "data: must be a table, [data]"),
    ("broken line", "Expected '=' after a key"),
    ("max_epochs = ", "Invalid value"),
    ("[dta]\nx = 1", "unknown table 'dta'; did you mean 'data'?"),
    ("[max_epochs]\nx = 1", "max_epochs: must be a whole number of at least 1, got a table"),
]


@pytest.mark.parametrize(("line", "message"), TOMLS)
def test_a_bad_config_line_is_named(bound, here, line, message):
    (here / "run.toml").write_text(f'# one\n\nproject_dir = "x"\n\n\n{line}\n')
    with pytest.raises(InputFault) as refusal:
        bound("--config", "run.toml")
    assert len(refusal.value.lines) == 1
    assert refusal.value.lines[0].startswith(f"{here / 'run.toml'}:6: ")
    assert message in refusal.value.lines[0]


def test_lines_are_found_behind_texts_that_look_like_keys(bound, here):
    (here / "run.toml").write_text('load = """\nseed = 1\n[seed]\n"""\nseed = -1\n')
    with pytest.raises(InputFault) as refusal:
        bound("--config", "run.toml")
    assert any(line.startswith(f"{here / 'run.toml'}:5: seed: ") for line in refusal.value.lines)


def test_bytes_that_are_not_text_are_refused(bound, here):
    (here / "run.toml").write_bytes(b"seed = 1\nload = '\xff'\n")
    with pytest.raises(InputFault, match=r"run\.toml:2: not UTF-8"):
        bound("--config", "run.toml")
    (here / "run.toml").write_text("x = " + "[" * 5000)
    with pytest.raises(InputFault, match=r"run\.toml: TOML inline arrays/tables are nested"):
        bound("--config", "run.toml")
    (here / "run.toml").write_text("seed = " + "1" * 5000)
    with pytest.raises(InputFault, match=r"run\.toml: "):
        bound("--config", "run.toml")


def test_a_byte_order_mark_is_no_text(bound, here):
    (here / "run.toml").write_bytes(b"\xef\xbb\xbfseed = 3\r\nmax_epochs = 2\r\n")
    assert bound("--config", "run.toml").options.seed == 3
    (here / "run.toml").write_bytes(b"\xef\xbb\xbfsed = 3\n")
    with pytest.raises(InputFault, match=r"run\.toml:1: unknown key 'sed'"):
        bound("--config", "run.toml")


def test_one_key_under_two_names_is_refused(bound, here):
    (here / "run.toml").write_text('load = "a"\nload_name = "b"\n')
    with pytest.raises(InputFault, match=r"run\.toml:2: load_name: given twice"):
        bound("--config", "run.toml")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InputFault, match="--config: cannot read .*: it is not a regular file"):
        read_document(tmp_path / "pipe.toml", "--config")


def test_more_tables_than_any_plan_has_are_refused_unread(tmp_path):
    path = tmp_path / "many.toml"
    path.write_text("".join(f"\n[model_layer_{n}.q_proj]" for n in range(100_001)))
    with pytest.raises(InputFault, match="has 100,001 tables, more than 100,000"):
        read_document(path, "--lora-config")
