"""Numbers that independent implementations gave for fixed inputs; a function for each kind of case.

Cases are found by glob in `$GOLDEN_DIR`; kinds that have no function here are passed over.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from configs.runtime import kinds
from configs.runtime.seeds import draws
from model.adapters.adapter import Part, PlannedSite
from model.adapters.methods.lora import ADAPTER, Lora, joint
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.freezing.sensitivity import Sensitivity, decide, matrix_score
from model.injection.attach import attach, locate_stream
from model.injection.attachment import Attachment, join
from model.injection.residual_stream import Stream
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.adapter_config import AdapterConfig
from model.plan.freezing_rule import ByScore, Length
from model.search.allocation import allocate, groups, rounded
from model.search.heuristic import Probe
from model.search.saliency import measure
from model.search.score_file import read_scores
from model.site import SHARED_INPUT, Site, SiteKey, role_named
from model.training.objective import Classification, LanguageModeling, inputs

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).resolve().parents[1] / "data" / "golden"))
DTYPES = (torch.float64, torch.float32)

pytestmark = pytest.mark.golden


def _cases(pattern):
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDEN.glob(pattern))]


def _word(dtype):
    return str(dtype).removeprefix("torch.")


def test_there_are_cases():
    assert _cases("lora_*.safetensors"), f"no cases in {GOLDEN}"
    assert _cases("hydra_*.safetensors"), f"no cases in {GOLDEN}"
    assert _cases("aflora_layer_*.safetensors"), f"no cases in {GOLDEN}"
    assert _cases("aflora_freeze_*.safetensors"), f"no cases in {GOLDEN}"
    assert _cases("saliency_*"), f"no cases in {GOLDEN}"
    assert _cases("realloc_*.json"), f"no cases in {GOLDEN}"
    assert _cases("shortcut_*"), f"no cases in {GOLDEN}"


def _attached(tensors, meta, dtype, roles, form):
    """Return linears of one layer with the case's weights, and their attachments by site."""
    attachments = {}
    for role in roles:
        linear = nn.Linear(meta["in_features"], meta["out_features"], bias=meta["bias"], dtype=dtype)
        linear.weight.data.copy_(tensors["param.weight"])
        if meta["bias"]:
            linear.bias.data.copy_(tensors["param.bias"])
        linear.requires_grad_(False)
        adapter = Lora(
            meta["in_features"], meta["out_features"], rank=meta["r"], alpha=meta["lora_alpha"], dropout=0.0
        ).to(dtype)
        scale = meta["lora_alpha"] / meta["r"]
        ADAPTER.load(adapter, tensors["param.lora_A"], tensors["param.lora_B"], scale)
        key = SiteKey(0, role)
        site = Site(key, role, meta["in_features"], meta["out_features"])
        attachments[key] = Attachment(site, linear, adapter, form)
    join(attachments, SHARED_INPUT)
    return list(attachments.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("manner", ["plain", "node", "joint"])
@pytest.mark.parametrize("path", _cases("lora_*.safetensors"))
def test_lora(path, manner, dtype):
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    roles = ("q_proj", "k_proj", "v_proj") if manner == "joint" else ("w2",)
    attachments = _attached(tensors, meta, dtype, roles, None if manner == "plain" else joint)
    tolerance = meta["tolerance"][_word(dtype)]

    def close(ours, name):
        torch.testing.assert_close(ours, tensors[f"expected.{name}"], **tolerance)

    x = tensors["input.x"].clone().requires_grad_()
    outputs = [attachment.linear(x) for attachment in attachments]
    sum((y * tensors["input.g"]).sum() for y in outputs).backward()
    close(x.grad / len(attachments), "grad.x")
    for y, attachment in zip(outputs, attachments):
        close(y, "y")
        close(attachment.adapter.A.grad, "grad.lora_A")
        close(attachment.adapter.B.grad.t(), "grad.lora_B")
        attachment.merge()
        close(attachment.linear.weight, "merged_weight")
        close(attachment.linear(x), "y_merged")
        attachment.unmerge()
        close(attachment.linear(x), "y")


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("manner", ["plain", "node", "joint"])
@pytest.mark.parametrize("path", _cases("hydra_*.safetensors"))
def test_hydra(path, manner, dtype):
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    attachments = _with_experts(tensors, meta, dtype, ("gate", "w1") if manner == "joint" else ("w2",))
    if manner == "plain":
        attachments[0].joint = None
    tolerance = {key: meta["tolerance"][_word(dtype)][key] for key in ("rtol", "atol")}

    def close(ours, name):
        torch.testing.assert_close(ours, tensors[f"expected.{name}"], **tolerance)

    x = tensors["input.x"].clone().requires_grad_()
    for attachment in attachments:
        attachment.adapter.observer = lambda w: close(w, "router_weights_flat")
    tensors["expected.router_weights_flat"] = tensors["expected.router_weights"].flatten(0, 1)
    outputs = [attachment.linear(x) for attachment in attachments]
    sum((y * tensors["input.g"]).sum() for y in outputs).backward()
    close(x.grad / len(attachments), "grad.x")
    for y, attachment in zip(outputs, attachments):
        close(y, "y")
        close(attachment.adapter.A.grad, "grad.lora_A")
        close(attachment.adapter.router.grad, "grad.router")
        for number, b in enumerate(attachment.adapter.B.grad.split(meta["r"])):
            close(b.t(), f"grad.lora_B.{number}")


@pytest.mark.parametrize("path", _cases("hydra_*.safetensors"))
def test_hydra_is_what_a_router_over_equal_as_computes(path):
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    kind = kinds.load(kinds.ADAPTERS, "lora_split")
    site = Site(SiteKey(0, "w2"), "w2", meta["in_features"], meta["out_features"])
    config = AdapterConfig(meta["r"], meta["lora_alpha"], 0.0, "default", False, method="lora_split")
    options = kind.options(heads=meta["n_experts"], combine="routed")
    adapter = kind.build([PlannedSite(site, config, options)], 0)[site.key]
    with torch.no_grad():
        for name, factor in adapter.factors().items():
            plain = {"A": "lora_A", "r": "router"}.get(name[0], f"lora_B.{name[1:]}")
            factor.copy_(tensors[f"param.{plain}"])
    x, tolerance = tensors["input.x"].requires_grad_(), meta["tolerance"]["float32"]
    weight, bias = tensors["param.weight"], tensors.get("param.bias")
    (y,) = kind.joint(x, [Part(weight, bias, adapter, 1.0)])
    (y * tensors["input.g"]).sum().backward()
    found = {"y": y, "grad.x": x.grad, "grad.router": adapter.router.grad}
    for name, value in found.items():
        wanted = tensors[f"expected.{name}"]
        torch.testing.assert_close(value, wanted, rtol=tolerance["rtol"], atol=tolerance["atol"])


def _with_experts(tensors, meta, dtype, roles):
    """Return the attachments of linears of one layer with the case's weights, base and HydraLoRA."""
    attachments, shape = {}, (meta["in_features"], meta["out_features"])
    kind = kinds.load(kinds.ADAPTERS, "hydra")
    for role in roles:
        linear = nn.Linear(*shape, bias=meta["bias"], dtype=dtype).requires_grad_(False)
        linear.weight.copy_(tensors["param.weight"])
        if meta["bias"]:
            linear.bias.copy_(tensors["param.bias"])
        site = Site(SiteKey(0, role), role, *shape)
        config = AdapterConfig(meta["r"], meta["lora_alpha"], 0.0, "default", False, method="hydra")
        planned = PlannedSite(site, config, kind.options(heads=meta["n_experts"]))
        adapter = kind.build([planned], 0)[site.key].to(dtype)
        with torch.no_grad():
            for name, factor in adapter.factors().items():
                plain = "router" if name == "router" else f"lora_{name[0]}{'.' * (name != 'A')}{name[1:]}"
                factor.copy_(tensors[f"param.{plain}"])
        attachments[site.key] = Attachment(site, linear, adapter, kind.joint)
    join(attachments, SHARED_INPUT)
    return list(attachments.values())


AFLORA_SCALES = ("scale_1", "scale_alpha_over_r", "scale_alpha_over_sqrt_r")


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("manner", ["plain", "node", "joint"])
@pytest.mark.parametrize("scale", AFLORA_SCALES)
@pytest.mark.parametrize("path", _cases("aflora_layer_*.safetensors"))
def test_aflora(path, scale, manner, dtype):
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    attachments = _with_vectors(tensors, meta, dtype, ("gate", "w1") if manner == "joint" else ("w2",))
    if manner == "plain":
        attachments[0].joint = None
    tolerance = {key: meta["tolerance"][_word(dtype)][key] for key in ("rtol", "atol")}

    def close(ours, name):
        torch.testing.assert_close(ours, tensors[f"expected.{scale}.{name}"], **tolerance)

    for attachment in attachments:
        if scale == "scale_alpha_over_sqrt_r":  # no published code applies it, nor does an option here
            attachment.adapter.scale = meta["scales"][scale]
        elif scale == "scale_1":
            attachment.adapter.scale = 1.0
        assert attachment.adapter.scale == pytest.approx(meta["scales"][scale])
    x = tensors["input.x"].clone().requires_grad_()
    outputs = [attachment.linear(x) for attachment in attachments]
    sum((y * tensors["input.g"]).sum() for y in outputs).backward()
    close(x.grad / len(attachments), "grad.x")
    for y, attachment in zip(outputs, attachments):
        close(y, "y")
        adapter = attachment.adapter
        for name, ours in (("A", adapter.A.grad), ("B", adapter.B.grad.t())):
            close(ours, f"grad.lora_{name}")
        close(adapter.d.grad, "grad.lora_d")
        close(adapter.b.grad, "grad.lora_db")


def _with_vectors(tensors, meta, dtype, roles):
    """Return the attachments of linears of one layer with the case's weights, base and AFLoRA."""
    attachments, shape = {}, tensors["param.weight"].shape[::-1]
    kind = kinds.load(kinds.ADAPTERS, "aflora")
    names = {"A": "lora_A", "B": "lora_B", "d": "lora_d", "b": "lora_db"}
    for role in roles:
        linear = nn.Linear(*shape, bias="param.bias" in tensors, dtype=dtype).requires_grad_(False)
        linear.weight.copy_(tensors["param.weight"])
        if "param.bias" in tensors:
            linear.bias.copy_(tensors["param.bias"])
        site, rank = Site(SiteKey(0, role), role, *shape), tensors["param.lora_A"].shape[0]
        config = AdapterConfig(rank, meta["scales"]["scale_alpha_over_r"] * rank, 0.0, "default", False)
        options = kind.options(scaling="alpha_over_r", uv_rule="all")
        adapter = kind.build([PlannedSite(site, config, options)], 0)[site.key].to(dtype)
        with torch.no_grad():
            for name, factor in adapter.factors().items():
                factor.copy_(tensors[f"param.{names[name]}"])
        attachments[site.key] = Attachment(site, linear, adapter, kind.joint)
    join(attachments, SHARED_INPUT)
    return list(attachments.values())


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
    return rule, Length(config["total_steps"], config["num_train_epochs"])


def _freezing_steps(rule, length, tensors, names, magnitude):
    """Yield (step, remembered, means before the decision, decision or None) as a run takes the steps."""
    remembered = {name: Sensitivity.of(tensors[f"param.{name}"]) for name in names}
    for step in range(length.steps):
        for name, one in remembered.items():
            place = step % rule.window_steps
            one.observe(magnitude(name, step), place, rule.sensitivity_decay, rule.uncertainty_decay)
        scores = {name: one.score() for name, one in remembered.items()}
        means = {name: matrix_score(score) for name, score in scores.items()}
        stop = decide(scores, rule.share(step, length)) if rule.decides(step, length) and scores else None
        yield step, dict(remembered), means, stop
        for name in stop.names if stop else ():
            del remembered[name]


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("path", _cases("aflora_freeze_*.safetensors"))
def test_aflora_freezing(path, dtype):
    """The published rule; where weights are zero its sensitivity is zero too."""
    meta = json.loads(path.with_suffix(".json").read_text())
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    rule, length = _freezing_rule(meta)
    tolerance = meta["tolerance"]["states" if dtype is torch.float64 else "states_float32"]
    close = {"rel": tolerance["rtol"], "abs": tolerance["atol"]}
    stopped, trained = {}, []
    names = {"window": "window_mean", "average": "sensitivity_avg", "deviation": "uncertainty_avg"}
    sizes = {name: tensors[f"param.{name}"].numel() for name in meta["matrices"]}

    def magnitude(name, step):
        return (tensors[f"param.{name}"].sign() * tensors[f"grad.{name}"][step]).abs()

    for step, remembered, means, stop in _freezing_steps(rule, length, tensors, meta["matrices"], magnitude):
        expected = meta["steps"][step]
        assert rule.share(step, length) == pytest.approx(expected["threshold"], rel=1e-9)
        assert rule.decides(step, length) == expected["evaluates"]
        for name, one in remembered.items():
            for ours, theirs in names.items():
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


@pytest.mark.parametrize("path", _cases("aflora_freeze_*.safetensors"))
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


def _assembled(path, adapter):
    config = json.loads((path / "model" / "config.json").read_text())
    causal = config["architectures"][0].endswith("CausalLM")
    labels = () if causal else tuple(config.get("id2label", {"0": "0", "1": "1"}).values())
    source = resolve(str(path / "model"), "--load")
    backbone = load_backbone(source, "language_modeling" if causal else "classification", labels)
    objective = LanguageModeling() if causal else Classification((), len(labels))
    return assemble(backbone, Plans(), path / f"adapter_{adapter}", 0), objective


def _batches(path):
    tensors = load_file(path / "batches.safetensors")
    count = 1 + max(int(name.split(".")[1]) for name in tensors)
    names = ("input_ids", "attention_mask", "labels")
    return [{name: tensors[f"batch.{number}.{name}"] for name in names} for number in range(count)]


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("adapter", ["qv", "all"])
@pytest.mark.parametrize("path", _cases("saliency_*"))
def test_saliency_logits_and_gradients(path, adapter, dtype):
    meta = json.loads((path / f"expected_{adapter}.json").read_text())
    expected = load_file(path / f"expected_{adapter}.safetensors")
    assembled, objective = _assembled(path, adapter)
    for module in (assembled.network, *assembled.attachments.values()):
        module.to(dtype)
    rtol = meta["tolerance"]["grad_norm"][f"{_word(dtype)}_rtol"]

    def close(ours, theirs):
        atol = rtol * float(theirs.abs().max())
        torch.testing.assert_close(ours.double(), theirs, rtol=rtol, atol=atol)

    for number, batch in enumerate(_batches(path)):
        with torch.no_grad():
            close(assembled.network(**inputs(batch)).logits, expected[f"logits.{number}"])
        loss = objective.loss(assembled.network, batch)
        assert loss.item() == pytest.approx(meta["batch_losses"][number], rel=rtol)
        loss.backward()
    gradients = {}
    for attachment in assembled.attachments.values():
        gradients[f"grad.{attachment.site.path}.lora_A"] = attachment.adapter.A.grad
        gradients[f"grad.{attachment.site.path}.lora_B"] = attachment.adapter.B.grad.t()
    assert set(gradients) == {name for name in expected if name.startswith("grad.")}
    for name, gradient in gradients.items():
        close(gradient, expected[name])


def _keys(rows):
    """Return the sites of rows that hold a layer and a name, whatever stands before them."""
    return {SiteKey(row[-2], role_named(row[-1])) for row in rows}


def _check_choice(kept, expected):
    on, tied = _keys(expected["on"]), _keys(expected["tied"])
    assert len(kept) == expected["budget"]
    assert on <= kept <= on | tied


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("path", _cases("realloc_static_*.json"))
def test_realloc_static(path, seed):
    expected = json.loads(path.read_text())
    scores = read_scores(path.parent / expected["importance"]).values
    assert len(scores) == expected["n_modules"]
    decided = allocate(scores, expected["turn_on_percentile"], "off", draws(seed, "ties"))
    kept = {key for key, is_on in decided.items() if is_on}
    _check_choice(kept, expected)
    if expected["budget"] < len(scores):
        assert min(rounded(scores[key]) for key in kept) == rounded(expected["threshold"])


def _dynamic_cases():
    paths = sorted(GOLDEN.glob("realloc_dynamic*.json"))
    cases = [(path.stem, case) for path in paths for case in json.loads(path.read_text())["cases"]]
    return [pytest.param(case, id=f"{stem}-{case['id']}") for stem, case in cases]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", _dynamic_cases())
def test_realloc_dynamic(case, seed):
    scores = {
        SiteKey(layer, role_named(name)): score
        for rows in case["scores"].values()
        for layer, name, score in rows
    }
    share, mode = case["turn_on_percentile"], case["mode"]
    assert sum(b for _, b in groups(scores, share, mode)) == sum(
        e["budget"] for e in case["expected"].values()
    )
    decided = allocate(scores, share, mode, draws(seed, "ties"))
    kept = {key for key, is_on in decided.items() if is_on}
    for group, expected in case["expected"].items():
        mine = {
            key
            for key in kept
            if group == "combined" or key in _keys(row[:2] for row in case["scores"][group])
        }
        _check_choice(mine, expected)


MANNERS = {"exact": "exact", "full": "renorm", "zero": "renorm", "residual_only": "renorm", "base": "exact"}
"""Name of an expected file -> norm mode of the wiring that gives it."""


def _with_shortcuts(path, assembled, manner):
    """Attach the case's shortcuts as the manner says; return them by site."""
    kinds_of = json.loads((path / "info.json").read_text())["shortcuts"]
    tensors = load_file(path / "shortcuts.safetensors")
    stream = Stream(assembled.network, assembled.backbone.family, 3, MANNERS[manner])
    sites, configs = locate_stream(stream), {}
    for name, kind in kinds_of.items():
        for key in sites:
            is_absent = key.role.startswith("shortcut") and manner == "residual_only"
            if key.role == role_named(name) and not is_absent:
                configs[key] = AdapterConfig(
                    kind["r"], kind["shortcut_alpha"], 0.0, "default", False, method="shortcut"
                )
    attachments = attach(assembled.network, sites, configs, 0, "plan", stream)
    names = {role_named(name): name for name in kinds_of}
    for key, attachment in attachments.items():
        for factor, tensor in attachment.adapter.factors().items():
            value = tensors[f"layers.{key.layer}.{names[key.role]}.{factor}"]
            with torch.no_grad():
                tensor.copy_(value * (factor == "A" or manner not in ("zero", "base")))
    stream.wire(configs)
    return {f"layers.{key.layer}.{names[key.role]}": one for key, one in attachments.items()}


def _tolerance(path, dtype):
    if dtype is torch.float32:
        return {"rtol": 1e-3, "atol": 1e-4}
    return {"rtol": 1e-4, "atol": 1e-5} if "llama" in path.name else {"rtol": 1e-8, "atol": 1e-10}


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("path", _cases("shortcut_*"))
def test_shortcut(path, manner, dtype):
    expected = load_file(path / f"expected_{manner}.safetensors")
    assembled, objective = _assembled(path, "qv")
    shortcuts = _with_shortcuts(path, assembled, manner)
    for module in (assembled.network, *assembled.attachments.values(), *shortcuts.values()):
        module.to(dtype)
    tolerance, prefix = _tolerance(path, dtype), "base_lora." if manner == "base" else ""
    for number, batch in enumerate(_batches(path)):
        with torch.no_grad():
            logits = assembled.network(**inputs(batch)).logits
        wanted = expected[f"{prefix}logits.{number}"]
        shown = batch["attention_mask"].bool() if logits.ndim == 3 else slice(None)
        torch.testing.assert_close(logits[shown].double(), wanted[shown], **tolerance)
        objective.loss(assembled.network, batch).backward()
    gradients = {f"{name}.{factor}": p.grad for name, one in shortcuts.items()
                 for factor, p in one.adapter.factors().items()}  # fmt: skip
    for attachment in assembled.attachments.values():
        gradients[f"{attachment.site.path}.lora_A"] = attachment.adapter.A.grad
        gradients[f"{attachment.site.path}.lora_B"] = attachment.adapter.B.grad.t()
    wanted = {name.removeprefix("grad."): g for name, g in expected.items() if name.startswith("grad.")}
    assert set(gradients) == set(wanted or gradients)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name].double(), gradient, **tolerance)


_MEASURES = {
    "grad_norm": ("grad_norm", {}),
    "snip": ("snip", {}),
    "synflow": ("synflow", {"synflow_objective": "loss"}),
    "synflow_sum": ("synflow", {}),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("measure_name", _MEASURES)
@pytest.mark.parametrize("start", ["trained", "b_zero"])
@pytest.mark.parametrize("adapter", ["qv", "all"])
@pytest.mark.parametrize("path", _cases("saliency_*"))
def test_saliency_scores(path, adapter, start, measure_name, dtype):
    meta = json.loads((path / f"expected_{adapter}.json").read_text())
    assembled, objective = _assembled(path, adapter)
    for module in (assembled.network, *assembled.attachments.values()):
        module.to(dtype)
    expected = meta if start == "trained" else meta["at_init_B_zero"]
    if measure_name not in expected["scores"]:
        pytest.skip(f"the case holds no {measure_name} at this start")
    if start == "b_zero":
        for attachment in assembled.attachments.values():
            attachment.adapter.factors()["B"].data.zero_()
    word, options = _MEASURES[measure_name]
    kind = kinds.load(kinds.HEURISTICS, word)
    batches = _batches(path)[: kind.most_batches]
    probe = Probe(
        assembled.network, objective, assembled.attachments, batches, options=kind.options(**options)
    )
    scores = measure(kind, probe)
    tolerance = meta["tolerance"][measure_name]
    ill = meta["ill_conditioned"].get(measure_name, ())
    assert len(scores) == len(expected["scores"][measure_name])
    for key, score in scores.items():
        path = assembled.attachments[key].site.path
        theirs = expected["scores"][measure_name][path]["score"]
        if path in ill:
            assert score == pytest.approx(theirs, abs=tolerance["atol"])
        else:
            rel = tolerance.get("rtol", tolerance.get(f"{_word(dtype)}_rtol"))
            assert score == pytest.approx(theirs, rel=rel, abs=tolerance.get("atol", 1e-12))


@pytest.mark.parametrize("dtype", DTYPES, ids=_word)
@pytest.mark.parametrize("manner", ["full", "zero"])
@pytest.mark.parametrize("path", _cases("shortcut_*"))
def test_shortcut_scores(path, manner, dtype):
    """GRAD-NORM of every LoRA and shortcut module, ranked together, under the published wiring."""
    expected = json.loads((path / "expected_scores.json").read_text())["scores"]
    assembled, objective = _assembled(path, "qv")
    shortcuts = _with_shortcuts(path, assembled, manner)
    modules = dict(assembled.attachments) | {one.site.key: one for one in shortcuts.values()}
    for module in (assembled.network, *modules.values()):
        module.to(dtype)
    kind = kinds.load(kinds.HEURISTICS, "grad_norm")
    probe = Probe(assembled.network, objective, modules, _batches(path), options=kind.options())
    scores = measure(kind, probe)
    theirs = {
        SiteKey(int(name.split(".")[1]), role_named(name.split(".")[2])): score
        for group in expected[manner].values()
        for name, score in group.items()
    }
    assert set(scores) == set(theirs)
    for key, score in scores.items():
        assert score == pytest.approx(theirs[key], rel=1e-3 if dtype is torch.float32 else 1e-5), key
