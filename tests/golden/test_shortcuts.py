"""Shortcuts in the residual stream, and their saliencies, against golden cases."""

import json

import pytest
import torch
from safetensors.torch import load_file

from configs.runtime import kinds
from model.injection.attach import attach, locate_stream
from model.injection.residual_stream import Stream
from model.network.family import dimensions
from model.plan.adapter_config import AdapterConfig
from model.search.heuristic import Probe
from model.search.saliency import measure
from model.site import SiteKey, role_named
from model.training.objective import inputs
from tests.support.golden import (
    assembled,
    batches,
    case_paths,
    computes_in_float32,
    every_dtype,
    parts,
)

pytestmark = pytest.mark.golden
NORMS = {"exact": "exact", "base": "exact"}
"""Variant -> norm mode of the wiring that gives it; `renorm`, the published one, where none is named."""
ZEROED, WITHOUT_CROSS = ("zero", "base"), ("residual_only",)
"""Variants whose shortcuts have B = 0, and those without the shortcuts between layers."""


def _adapter(case):
    """Return the name of the case's one adapter."""
    (directory,) = case.glob("adapter_*")
    return directory.name


def _with_shortcuts(case, whole, variant):
    """Attach the case's shortcuts as the variant has them; return them by site."""
    planned = json.loads((case / "info.json").read_text())["shortcuts"]
    tensors = load_file(case / "shortcuts.safetensors")
    layers = dimensions(whole.network.config).layers
    stream = Stream(whole.network, whole.backbone.family, layers, NORMS.get(variant, "renorm"))
    sites, configs, names = locate_stream(stream), {}, {role_named(name): name for name in planned}
    for key in sites:
        is_left_out = key.role.startswith("shortcut") and variant in WITHOUT_CROSS
        if key.role in names and not is_left_out:
            one = planned[names[key.role]]
            configs[key] = AdapterConfig(
                one["r"], one["shortcut_alpha"], 0.0, "default", False, method="shortcut"
            )
    attachments = attach(whole.network, sites, configs, 0, "plan", stream)
    for key, attachment in attachments.items():
        for factor, tensor in attachment.adapter.factors().items():
            value = tensors[f"layers.{key.layer}.{names[key.role]}.{factor}"]
            with torch.no_grad():
                tensor.copy_(value * (factor == "A" or variant not in ZEROED))
    stream.wire(configs)
    return {f"layers.{key.layer}.{names[key.role]}": one for key, one in attachments.items()}


def _tolerance(case, dtype):
    """Return what the cases' description allows; networks that compute in float32 are less exact."""
    if dtype is torch.float32:
        return {"rtol": 1e-3, "atol": 1e-4}
    return {"rtol": 1e-4, "atol": 1e-5} if computes_in_float32(case) else {"rtol": 1e-8, "atol": 1e-10}


@every_dtype
@pytest.mark.parametrize(("case", "variant"), parts("shortcut_*", "expected_*.safetensors"))
def test_shortcut(case, variant, dtype):
    expected = load_file(case / f"expected_{variant}.safetensors")
    whole, objective = assembled(case, _adapter(case), dtype)
    shortcuts = _with_shortcuts(case, whole, variant)
    for module in shortcuts.values():
        module.to(dtype)
    tolerance, prefix = _tolerance(case, dtype), "base_lora." if variant == "base" else ""
    for number, batch in enumerate(batches(case)):
        with torch.no_grad():
            logits = whole.network(**inputs(batch)).logits
        wanted = expected[f"{prefix}logits.{number}"]
        shown = batch["attention_mask"].bool() if logits.ndim == 3 else slice(None)
        torch.testing.assert_close(logits[shown].double(), wanted[shown], **tolerance)
        objective.loss(whole.network, batch).backward()
    gradients = {f"{name}.{factor}": p.grad for name, one in shortcuts.items()
                 for factor, p in one.adapter.factors().items()}  # fmt: skip
    for attachment in whole.attachments.values():
        gradients[f"{attachment.site.path}.lora_A"] = attachment.adapter.A.grad
        gradients[f"{attachment.site.path}.lora_B"] = attachment.adapter.B.grad.t()
    wanted = {name.removeprefix("grad."): g for name, g in expected.items() if name.startswith("grad.")}
    assert set(gradients) == set(wanted or gradients)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name].double(), gradient, **tolerance)


def _scored_cases():
    """Return (case, variant) for every table of scores that a case holds."""
    return [
        pytest.param(case, variant, id=f"{case.name}-{variant}")
        for case in case_paths("shortcut_*")
        if (case / "expected_scores.json").exists()
        for variant in json.loads((case / "expected_scores.json").read_text())["scores"]
    ]


@every_dtype
@pytest.mark.parametrize(("case", "variant"), _scored_cases())
def test_shortcut_scores(case, variant, dtype):
    """Every LoRA and shortcut module, ranked together, under the published wiring."""
    expected = json.loads((case / "expected_scores.json").read_text())
    whole, objective = assembled(case, _adapter(case), dtype)
    shortcuts = _with_shortcuts(case, whole, variant)
    modules = dict(whole.attachments) | {one.site.key: one for one in shortcuts.values()}
    for module in modules.values():
        module.to(dtype)
    kind = kinds.load(kinds.HEURISTICS, expected["measure"])
    probe = Probe(whole.network, objective, modules, batches(case), options=kind.options())
    scores = measure(kind, probe)
    theirs = {
        SiteKey(int(name.split(".")[-2]), role_named(name.split(".")[-1])): score
        for group in expected["scores"][variant].values()
        for name, score in group.items()
    }
    assert set(scores) == set(theirs)
    for key, score in scores.items():
        assert score == pytest.approx(theirs[key], rel=1e-3 if dtype is torch.float32 else 1e-5), key
