"""Answers follow this program's settings, and the base's file is kept as it is."""

import json

import pytest
import torch

from model.network.generation_settings import FILE, read_settings, unused_settings
from model.network.snapshot import quiet_transformers, save_network
from tests.support.backbones import load, rewrite
from tests.support.tiny import save_host

RECOMMENDED = {
    "bos_token_id": 0,
    "eos_token_id": [2, 7],
    "pad_token_id": 1,
    "temperature": 0.9,
    "suppress_tokens": [5, 6],
    "repetition_penalty": 1.0,
    "do_sample": False,
}
NOTE = (
    "generation_config.json of the base is not followed: eos_token_id [2, 7], suppress_tokens [5, 6],"
    " temperature 0.9; an answer ends at the tokenizer's end token (2)"
)


@pytest.fixture
def host(tmp_path):
    host = save_host("llama", tmp_path / "host")
    (host / FILE).write_text(json.dumps(RECOMMENDED))
    return host


def test_what_is_not_followed_is_noted(host):
    backbone = load(host, "language_modeling")
    assert backbone.notes == (NOTE,)
    neutral = {"eos_token_id": [2], "use_cache": True, "num_beams": 1, "transformers_version": "4.1"}
    assert unused_settings(neutral, backbone.tokenizer) is None
    assert unused_settings(None, None) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 1.7},
        {"num_beams": 3},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(5, 100))},
        {"do_sample": True, "temperature": 5.0},
        {"min_new_tokens": 9},
        {"forced_eos_token_id": 9},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_no_setting_changes_an_answer(host, setting):
    ids = torch.tensor([[0, 10, 11, 12]])
    call = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1, "eos_token_id": 2}
    (host / FILE).unlink()
    with quiet_transformers():
        expected = load(host, "language_modeling").network.generate(ids, **call)
        (host / FILE).write_text(json.dumps(setting))
        assert load(host, "language_modeling").network.generate(ids, **call).equal(expected)


def test_settings_in_an_old_config_are_noted_and_not_followed(host):
    (host / FILE).unlink()
    ids = torch.tensor([[0, 10, 11, 12]])
    call = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1, "eos_token_id": 2}
    with quiet_transformers():
        expected = load(host, "language_modeling").network.generate(ids, **call)
        rewrite(host, num_beams=3, repetition_penalty=1.5, use_cache=True, eos_token_id=2)
        backbone = load(host, "language_modeling")
        assert backbone.network.generate(ids, **call).equal(expected)
    assert backbone.notes == (
        "config.json of the base is not followed: num_beams 3, repetition_penalty 1.5; an answer ends at the"
        " tokenizer's end token (2)",
    )


@pytest.mark.parametrize("text", ["[]", "{", '{"temperature": "hot"}', '{"temperature": 0.1}'])
def test_a_file_that_transformers_refuses_neither_stops_loading_nor_saving(host, tmp_path, text):
    (host / FILE).write_text(text)
    backbone = load(host, "language_modeling")
    (tmp_path / "out").mkdir()
    with quiet_transformers():
        save_network(backbone.network, backbone.tokenizer, backbone.settings, tmp_path / "out")
    is_table = text.endswith("}")
    assert (read_settings(tmp_path / "out") == json.loads(text)) is is_table if is_table else True
    assert load(tmp_path / "out", "language_modeling").digest
