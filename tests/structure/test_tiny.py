"""The tiny hosts and rows are what other tests take them for."""

import json

import pytest
import torch

from model.network.backbone import load_backbone
from model.network.source import resolve
from tests.support.tiny import rte_rows, save_host, write_gsm8k, write_rte


def _load(directory):
    return load_backbone(resolve(str(directory), "--load"), "classification", ("no", "yes"))


@pytest.mark.parametrize("family", ["bert", "llama", "opt", "roberta"])
def test_the_byte_tokenizer_survives_saving(tmp_path, family):
    tokenizer = _load(save_host(family, tmp_path)).tokenizer
    text = "Héllo  world\n12"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids[0] == 0
    pair = tokenizer("a", "b")
    assert ("token_type_ids" in pair) == (family == "bert")
    assert (ids[-1] == 2) == (family in ("bert", "roberta"))


def test_the_rows_have_the_official_layout(tmp_path):
    lines = (write_rte(tmp_path / "RTE") / "train.tsv").read_text().splitlines()
    assert lines[0] == "index\tsentence1\tsentence2\tlabel"
    assert len(lines) == 33
    assert "label" not in (tmp_path / "RTE" / "test.tsv").read_text()
    row = json.loads((write_gsm8k(tmp_path / "g") / "train.jsonl").read_text().splitlines()[0])
    assert "#### " in row["answer"]


def test_a_tiny_host_can_learn_the_rows(tmp_path):
    backbone, rows = _load(save_host("opt", tmp_path)), rte_rows(32)
    inputs = backbone.tokenizer([r[0] for r in rows], [r[1] for r in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([int(row[2] == "not_entailment") for row in rows])
    backbone.network.requires_grad_(True)
    optimizer = torch.optim.AdamW(backbone.network.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        losses.append(backbone.network(**inputs, labels=labels).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]
