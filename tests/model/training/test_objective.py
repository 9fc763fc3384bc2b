"""Losses are the stock ones, computed from inputs alone, and logits are made for targets only."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime import kinds
from configs.schema.batch_keys import IGNORE_INDEX
from model.training.objective import Classification, LanguageModeling, Regression, build, inputs
from tests.support.tiny import tiny_network

CPU = torch.device("cpu")
DECODERS = ("opt", "llama")
FAMILIES = ("bert", "llama", "opt", "roberta")


def _host(family, auto_class=AutoModelForSequenceClassification, **overrides):
    return tiny_network(kinds.load(kinds.FAMILIES, family), auto_class, **overrides).double()


def _batch(rows=3, length=9, *, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(1, rows):
        mask[row, length - 2 * row :] = 0
    ids = torch.randint(5, 261, (rows, length), generator=draw).where(mask.bool(), torch.tensor(1))
    return {"input_ids": ids, "attention_mask": mask, "index": torch.arange(rows)}


def _language_batch(**options):
    batch = _batch(**options)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)
    labels[:, :3] = IGNORE_INDEX  # the prompt
    return batch | {"labels": labels}


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("first_is_target", [False, True])
def test_the_language_loss_is_the_stock_one(family, first_is_target):
    network, batch = _host(family, AutoModelForCausalLM), _language_batch()
    if first_is_target:  # no position predicts the first token
        batch["labels"][:, 0] = batch["input_ids"][:, 0]
    loss = LanguageModeling().loss(network, batch)
    stock = network(**inputs(batch), labels=batch["labels"]).loss
    # The host takes its loss in float32 even where the network is float64.
    torch.testing.assert_close(loss.float(), stock)
    weight = network.get_input_embeddings().weight
    ours, theirs = (torch.autograd.grad(value, weight)[0] for value in (loss, stock))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    logits, targets = network(**inputs(batch)).logits[:, :-1], batch["labels"][:, 1:]
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize("family", DECODERS)
def test_logits_are_made_for_targets_only_and_no_hook_stays(family):
    network, batch, sizes = _host(family, AutoModelForCausalLM), _language_batch(), []
    head = network.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, given, output: sizes.append(tuple(output.shape)))
    LanguageModeling().loss(network, batch)
    targets = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
    assert sizes == [(1, targets, network.config.vocab_size)]
    handle.remove()
    assert not head._forward_pre_hooks
    assert network(**inputs(batch)).logits.shape[:2] == (3, 9)


def test_a_failing_forward_leaves_no_hook():
    network, batch = _host("opt", AutoModelForCausalLM), _language_batch()
    batch["input_ids"] = batch["input_ids"] + 10_000
    with pytest.raises(IndexError):
        LanguageModeling().loss(network, batch)
    assert not network.get_output_embeddings()._forward_pre_hooks


@torch.no_grad()
def test_perplexity_counts_tokens_and_two_batches_are_one():
    network, objective = _host("opt", AutoModelForCausalLM), LanguageModeling()
    whole = _language_batch(rows=4)
    together, apart = objective.evaluation(CPU), objective.evaluation(CPU)
    objective.evaluate(network, whole, together)
    for part in (slice(0, 1), slice(1, 4)):
        objective.evaluate(network, {name: value[part] for name, value in whole.items()}, apart)
    logits, targets = network(**inputs(whole)).logits[:, :-1], whole["labels"][:, 1:]
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    loss = float(total / (targets != IGNORE_INDEX).sum())
    expected = pytest.approx({"loss": loss, "perplexity": math.exp(loss)}, rel=1e-9)
    assert together.compute() == expected
    assert apart.compute() == expected


@torch.no_grad()
def test_a_language_models_prediction_is_each_rows_summed_loss():
    network, batch = _host("llama", AutoModelForCausalLM), _language_batch()
    logits, targets = network(**inputs(batch)).logits[:, :-1], batch["labels"][:, 1:]
    expected = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(1)
    torch.testing.assert_close(LanguageModeling().predict(network, batch), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_classification_loss_is_the_stock_one(family):
    network = _host(family, num_labels=3)
    batch = _batch() | {"labels": torch.tensor([2, 0, 1])}
    objective = Classification(("accuracy",), 3)
    torch.testing.assert_close(
        objective.loss(network, batch), network(**inputs(batch), labels=batch["labels"]).loss
    )
    evaluation = objective.evaluation(CPU)
    objective.evaluate(network, batch, evaluation)
    predictions = objective.predict(network, batch)
    values = evaluation.compute()
    assert values["accuracy"] == pytest.approx((predictions == batch["labels"]).double().mean().item())
    assert values["loss"] == pytest.approx(objective.loss(network, batch).item())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_regression_loss_is_the_stock_one(family):
    network = _host(family, num_labels=1, problem_type="regression")
    batch = _batch() | {"labels": torch.tensor([2.5, 0.0, 5.0])}
    objective = Regression(("pearson",))
    stock = network(**inputs(batch), labels=batch["labels"].double()).loss
    torch.testing.assert_close(objective.loss(network, batch), stock)
    evaluation = objective.evaluation(CPU)
    objective.evaluate(network, batch, evaluation)
    assert evaluation.compute()["loss"] == pytest.approx(stock.item())
    assert objective.predict(network, batch).shape == (3,)


def test_one_row_is_no_special_case():
    network = _host("opt", num_labels=1, problem_type="regression")
    batch = {name: value[:1] for name, value in _batch().items()} | {"labels": torch.tensor([1.0])}
    assert Regression(()).predict(network, batch).shape == (1,)
    assert Regression(()).loss(network, batch).ndim == 0


def test_half_precision_logits_are_widened_before_the_loss():
    network = _host("opt", num_labels=2).to(torch.bfloat16)
    batch = _batch() | {"labels": torch.tensor([1, 0, 1])}
    loss = Classification((), 2).loss(network, batch)
    expected = F.cross_entropy(network(**inputs(batch)).logits.float(), batch["labels"])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_the_network_reads_inputs_only():
    assert set(inputs(_language_batch() | {"token_type_ids": torch.zeros(3, 9)})) == {
        "input_ids",
        "attention_mask",
        "token_type_ids",
    }


def test_each_name_builds_its_objective():
    assert build("classification", ["accuracy"], 3) == Classification(("accuracy",), 3)
    assert build("regression", ["pearson"], 0) == Regression(("pearson",))
    assert build("language_modeling", [], 0) == LanguageModeling()
