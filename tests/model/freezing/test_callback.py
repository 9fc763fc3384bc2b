"""The callback freezes as the rule decides, and a checkpoint restores it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model.freezing.callback import FreezableParameter, FreezingCallback
from model.freezing.record import Matrix
from model.plan.freezing_rule import ByEpoch, ByScore
from model.site import SiteKey

BY_SCORE = ByScore(initial_warmup_ratio=0.0, final_warmup_ratio=0.5, window_steps=2)
MATRICES = [Matrix(SiteKey(layer, "w1"), "A") for layer in range(3)]


def _callback(rule, folder):
    matrices = {
        matrix: FreezableParameter(SimpleNamespace(frozen=set()), nn.Parameter(torch.ones(2, 3)))
        for matrix in MATRICES
    }
    return FreezingCallback(rule, matrices, never_trained=(), trainable_start=20, folder=folder)


def _trainer(step, optimizer_steps=12):
    return SimpleNamespace(
        global_step=step,
        world_size=1,
        is_global_zero=True,
        max_epochs=3,
        estimated_stepping_batches=optimizer_steps,
    )


def _train(callback, steps):
    """Give the callback gradients of sizes 1, 2 and 3 for so many steps."""
    optimizer = torch.optim.AdamW([owned.parameter for owned in callback.matrices.values()])
    for step in steps:
        for matrix, owned in callback.remaining().items():
            size = 1.0 + MATRICES.index(matrix)
            owned.parameter.grad = torch.full_like(owned.parameter, size * (1 + step % 3))
        optimizer.step()
        callback.on_before_optimizer_step(_trainer(step), None, optimizer)
        for matrix, owned in callback.matrices.items():
            is_frozen = matrix not in callback.remaining()
            assert (owned.parameter.grad is None) == is_frozen
            assert (owned.parameter not in optimizer.state) == is_frozen


def test_matrices_are_frozen_in_the_order_of_their_scores(tmp_path):
    callback = _callback(BY_SCORE, tmp_path / "search")
    callback.on_train_start(_trainer(0), None)
    _train(callback, range(12))
    history = callback.history
    assert [matrix for one in history.decisions for matrix in one.frozen] == MATRICES
    assert history.trainable_end == 20 - 3 * 6
    assert (tmp_path / "search" / "freezing.toml").exists()


def test_all_are_frozen_after_an_epoch(tmp_path):
    callback = _callback(ByEpoch(after_epochs=1), tmp_path)
    callback.on_train_start(_trainer(0), None)
    _train(callback, range(6))
    (decision,) = callback.history.decisions
    assert (decision.step, decision.threshold, decision.frozen) == (4, None, tuple(MATRICES))


@pytest.mark.parametrize("rule", [BY_SCORE, ByEpoch(after_epochs=1)], ids=["score", "epoch"])
@pytest.mark.parametrize("stopped", [1, 3, 5, 8])
def test_a_resumed_run_decides_as_one_that_was_not_interrupted(tmp_path, rule, stopped):
    whole, first, second = (_callback(rule, tmp_path) for _ in range(3))
    for callback in (whole, first):
        callback.on_train_start(_trainer(0), None)
    _train(whole, range(12))
    _train(first, range(stopped))
    second.load_state_dict(first.state_dict())
    second.on_train_start(_trainer(stopped), None)
    assert second.remaining().keys() == first.remaining().keys()
    _train(second, range(stopped, 12))
    assert second.history == whole.history


def test_checkpoints_hold_its_state_under_a_fixed_name(tmp_path):
    assert _callback(BY_SCORE, tmp_path).state_key == "Freezings"
