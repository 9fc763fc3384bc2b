"""AFLoRA at one linear and its freezing rule against golden cases."""

import json

import pytest
import torch
from safetensors.torch import load_file

from model.freezing.sensitivity import Sensitivity, matrix_score, select_frozen
from model.plan.adapter_config import AdapterConfig
from model.plan.freezing_rule import ByScore, RunLength
from tests.support.golden import LinearCase, case_paths, cases, described, every_dtype, every_way

pytestmark = pytest.mark.golden
NAMES = {"A": "lora_A", "B": "lora_B", "d": "lora_d", "b": "lora_db"}


def _scaled_cases():
    """Return (case, name of a scale) for every scale of every case."""
    return [
        pytest.param(path, scale, id=f"{path.stem}-{scale}")
        for path in case_paths("aflora_layer_*.safetensors")
        for scale in described(path)["scales"]
    ]


@every_dtype
@every_way
@pytest.mark.parametrize(("path", "scale"), _scaled_cases())
def test_aflora(path, scale, way, dtype):
    """The case's scales, also one that no published code applies, nor an option here."""
    case = LinearCase(path, dtype, prefix=f"expected.{scale}")
    config = AdapterConfig(case.meta["r"], case.meta["lora_alpha"], 0.0, "default", False, method="aflora")
    options = {"scaling": "alpha_over_r", "uv_rule": "all"}
    attachments = case.attached(way, ("gate", "w1"), config, options, NAMES)
    for attachment in attachments:
        if scale == "scale_alpha_over_r":
            assert attachment.adapter.scale == pytest.approx(case.meta["scales"][scale])
        attachment.adapter.scale = case.meta["scales"][scale]
    case.run(attachments)
    for adapter in (attachment.adapter for attachment in attachments):
        case.close(adapter.A.grad, "grad.lora_A")
        case.close(adapter.B.grad.t(), "grad.lora_B")
        case.close(adapter.d.grad, "grad.lora_d")
        case.close(adapter.b.grad, "grad.lora_db")


def _freezing_rule(meta):
    """Return the case's rule and the length of its run."""
    config, units = meta["config"], "epochs" if meta["variant"] == "cubic" else "ratio"
    rule = ByScore(
        schedule=meta["variant"],
        window_steps=config["deltaT"],
        sensitivity_decay=config["beta1"],
        uncertainty_decay=config["beta2"],
        initial_share=config["initial_threshold"],
        final_share=config["final_threshold"],
        **{f"{name}_{units}": config[name] for name in ("initial_warmup", "final_warmup")},
    )
    return rule, RunLength(config["total_steps"], config["num_train_epochs"])


def _freezing_steps(rule, length, tensors, names, magnitude):
    """Yield (step, remembered, means before the decision, decision or None) as a run takes the steps."""
    remembered = {name: Sensitivity.zeros_like(tensors[f"param.{name}"]) for name in names}
    for step in range(length.steps):
        for name, one in remembered.items():
            place = step % rule.window_steps
            one.observe(magnitude(name, step), place, rule.sensitivity_decay, rule.uncertainty_decay)
        scores = {name: one.score() for name, one in remembered.items()}
        means = {name: matrix_score(score) for name, score in scores.items()}
        stop = (
            select_frozen(scores, rule.share(step, length)) if rule.decides(step, length) and scores else None
        )
        yield step, dict(remembered), means, stop
        for name in stop.names if stop else ():
            del remembered[name]


STATES = {"window": "window_mean", "average": "sensitivity_avg", "deviation": "uncertainty_avg"}
"""What a matrix remembers -> the cases' name of it."""


@every_dtype
@pytest.mark.parametrize("path", cases("aflora_freeze_*.safetensors"))
def test_aflora_freezing(path, dtype):
    """The published rule; where weights are zero its sensitivity is zero too."""
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    rule, length = _freezing_rule(meta)
    tolerance = meta["tolerance"]["states" if dtype is torch.float64 else "states_float32"]
    close = {"rel": tolerance["rtol"], "abs": tolerance["atol"]}
    threshold = {"rel": meta["tolerance"]["threshold"]["rtol"], "abs": meta["tolerance"]["threshold"]["atol"]}
    stopped, trained = {}, []
    sizes = {name: tensors[f"param.{name}"].numel() for name in meta["matrices"]}

    def magnitude(name, step):
        return (tensors[f"param.{name}"].sign() * tensors[f"grad.{name}"][step]).abs()

    for step, remembered, means, stop in _freezing_steps(rule, length, tensors, meta["matrices"], magnitude):
        expected = meta["steps"][step]
        assert rule.share(step, length) == pytest.approx(expected["threshold"], **threshold)
        assert rule.decides(step, length) == expected["evaluates"]
        for name, one in remembered.items():
            for ours, theirs in STATES.items():
                key = f"state.{step}.{name}.{theirs}"
                if key in tensors:
                    torch.testing.assert_close(getattr(one, ours), tensors[key], **tolerance)
        if stop is not None:
            assert stop.threshold == pytest.approx(expected["mask_threshold"], **close)
            assert means == pytest.approx(expected["mean_scores"], **close)
            assert sorted(stop.names) == sorted(expected["frozen"])
            stopped |= dict.fromkeys(stop.names, step)
        trained.append(sum(size for name, size in sizes.items() if name not in stopped))
    assert stopped == meta["freeze_step"]
    assert sum(trained) / len(trained) == pytest.approx(meta["average_trainable_elements"])


@pytest.mark.parametrize("path", cases("aflora_freeze_*.safetensors"))
def test_aflora_freezing_by_plain_gradients(path):
    """Our sensitivity is |g| everywhere; without weights that are exactly zero it is the published one."""
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors, (rule, length) = load_file(path), _freezing_rule(meta)
    steps = _freezing_steps(
        rule, length, tensors, meta["matrices"], lambda name, step: tensors[f"grad.{name}"][step].abs()
    )
    stopped = {name: step for step, _, _, stop in steps if stop for name in stop.names}
    assert stopped == meta.get("freeze_step_plain_abs_grad", meta["freeze_step"])
    assert meta["has_zero_weights"] == ("freeze_step_plain_abs_grad" in meta)
