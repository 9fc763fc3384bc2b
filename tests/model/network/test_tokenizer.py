"""Network and tokenizer agree on the pad token; tokenizers that do not fit are refused."""

import json

from tests.support.backbones import batch, load, refused, rewrite
from tests.support.tiny import save_host


def test_a_decoder_without_a_pad_token_pads_with_its_end(tmp_path):
    host = rewrite(save_host("llama", tmp_path), pad_token_id=None)
    settings = json.loads((host / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (host / "tokenizer_config.json").write_text(json.dumps(settings))
    backbone = load(host)
    assert backbone.tokenizer.pad_token == "</s>"
    assert backbone.network.config.pad_token_id == backbone.tokenizer.pad_token_id == 2
    assert backbone.network(**batch(backbone)).logits.shape == (2, 2)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    small = save_host("llama", tmp_path / "small", vocab_size=200)
    assert "the network has 200 embeddings" in refused(load, small)
    other = save_host("roberta", tmp_path / "other", pad_token_id=3, max_position_embeddings=132)
    assert "pads with id 1, config.json says 3" in refused(load, other)


def test_a_directory_without_tokenizer_loads_without_one(tmp_path):
    host = save_host("opt", tmp_path)
    (host / "tokenizer.json").unlink()
    assert load(host).tokenizer is None
