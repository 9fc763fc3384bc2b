"""Saliencies of LoRA modules, and the gradients behind them, against golden cases."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from configs.runtime import kinds
from model.search.heuristic import Probe
from model.search.saliency import measure
from model.training.objective import inputs
from tests.support.golden import (
    assembled,
    backbone,
    batches,
    case_paths,
    cases,
    every_dtype,
    parts,
    word,
)

pytestmark = pytest.mark.golden
MEASURES = {
    "grad_norm": ("grad_norm", {}),
    "snip": ("snip", {}),
    "synflow": ("synflow", {"synflow_objective": "loss"}),
    "synflow_sum": ("synflow", {}),
}
"""The cases' name of a measure -> heuristic and its options."""
STARTS = {"trained": (), "b_zero": ("at_init_B_zero",)}
"""Values of B -> the key of its scores in the file."""


def _expected(case, adapter):
    return json.loads((case / f"expected_{adapter}.json").read_text())


def _at(meta, start):
    for key in STARTS[start]:
        meta = meta[key]
    return meta


@pytest.mark.parametrize("case", cases("saliency_*"))
def test_a_network_loads_whole(case):
    assert backbone(case).new_modules == ()


@every_dtype
@pytest.mark.parametrize(("case", "adapter"), parts("saliency_*", "expected_*.safetensors"))
def test_saliency_logits_and_gradients(case, adapter, dtype):
    meta = _expected(case, adapter)
    expected = load_file(case / f"expected_{adapter}.safetensors")
    whole, objective = assembled(case, f"adapter_{adapter}", dtype)
    rtol = meta["tolerance"]["grad_norm"][f"{word(dtype)}_rtol"]

    def close(ours, theirs):
        atol = rtol * float(theirs.abs().max())
        torch.testing.assert_close(ours.double(), theirs, rtol=rtol, atol=atol)

    for number, batch in enumerate(batches(case)):
        with torch.no_grad():
            close(whole.network(**inputs(batch)).logits, expected[f"logits.{number}"])
        loss = objective.loss(whole.network, batch)
        assert loss.item() == pytest.approx(meta["batch_losses"][number], rel=rtol)
        loss.backward()
    gradients = {}
    for attachment in whole.attachments.values():
        gradients[f"grad.{attachment.site.path}.lora_A"] = attachment.adapter.A.grad
        gradients[f"grad.{attachment.site.path}.lora_B"] = attachment.adapter.B.grad.t()
    assert set(gradients) == {name for name in expected if name.startswith("grad.")}
    for name, gradient in gradients.items():
        close(gradient, expected[name])


def _scored_cases():
    """Return (case, adapter, start, measure) for every table of scores that a case holds."""
    return [
        pytest.param(case, adapter, start, name, id=f"{case.name}-{adapter}-{start}-{name}")
        for case in case_paths("saliency_*")
        for adapter in sorted(path.stem.removeprefix("expected_") for path in case.glob("expected_*.json"))
        for start in STARTS
        for name in _at(_expected(case, adapter), start)["scores"]
        if name in MEASURES
    ]


@functools.cache
def _shared(case, adapter, dtype):
    """Return network, objective and trained B of each site: scoring leaves them as they are."""
    whole, objective = assembled(case, adapter, dtype)
    trained = {key: a.adapter.factors()["B"].detach().clone() for key, a in whole.attachments.items()}
    return whole, objective, trained


@every_dtype
@pytest.mark.parametrize(("case", "adapter", "start", "name"), _scored_cases())
def test_saliency_scores(case, adapter, start, name, dtype):
    meta = _expected(case, adapter)
    whole, objective, trained = _shared(case, f"adapter_{adapter}", dtype)
    for key, attachment in whole.attachments.items():
        attachment.adapter.factors()["B"].data.copy_(trained[key] * (start == "trained"))
    heuristic, options = MEASURES[name]
    kind = kinds.load(kinds.HEURISTICS, heuristic)
    probe = Probe(
        whole.network,
        objective,
        whole.attachments,
        batches(case)[: kind.max_batches],
        options=kind.options(**options),
    )
    scores = measure(kind, probe)
    tolerance, expected = meta["tolerance"][name], _at(meta, start)["scores"][name]
    rel = tolerance.get("rtol", tolerance.get(f"{word(dtype)}_rtol"))
    assert len(scores) == len(expected)
    for key, score in scores.items():
        path = whole.attachments[key].site.path
        if path in meta["ill_conditioned"].get(name, ()):
            close = pytest.approx(expected[path]["score"], abs=tolerance["atol"])
        else:
            close = pytest.approx(expected[path]["score"], rel=rel, abs=tolerance.get("atol", 1e-12))
        assert score == close, key
