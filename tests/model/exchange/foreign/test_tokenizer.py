"""A tokenizer that another tool saved beside an adapter: silent where it is the base's, else named."""

import json

import pytest
from transformers import AutoTokenizer

from model.exchange.foreign.tokenizer import differences, tokenizer_note
from tests.support.tiny import save_host


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_host("llama", tmp_path_factory.mktemp("base") / "llama")


def _tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


def test_the_same_tokenizer_and_none_need_no_note(base, tmp_path):
    tokenizer = _tokenizer(base)
    assert tokenizer_note(tmp_path, tokenizer) == ()
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_note(tmp_path, tokenizer) == ()


def test_added_tokens_and_another_end_are_named(base, tmp_path):
    other = _tokenizer(base)
    end = other.eos_token
    other.add_tokens(["<one>", "<two>"], special_tokens=True)
    other.eos_token = "<two>"
    other.save_pretrained(tmp_path)
    assert tokenizer_note(tmp_path, _tokenizer(base)) == (
        f"{tmp_path}: its tokenizer differs from the base's, which is used: 2 tokens more ('<one>', '<two>');"
        f" eos_token '<two>' instead of {end!r}",
    )
    assert differences(_tokenizer(base), other)[0] == "2 tokens less ('<one>', '<two>')"


def test_another_way_to_split_is_found_by_probing(base, tmp_path):
    _tokenizer(base).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    table = json.loads(path.read_text())
    table["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(table))
    (line,) = tokenizer_note(tmp_path, _tokenizer(base))
    assert line.endswith("it splits text differently")


def test_one_that_cannot_be_read_is_said_and_not_used(base, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    (line,) = tokenizer_note(tmp_path, _tokenizer(base))
    assert "its tokenizer cannot be read (" in line
    assert line.endswith("the base's is used")
