"""The callback carries decisions to the trainer and to the files, and all of it through a checkpoint."""

import json
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from configs.runtime.faults import NonFiniteFault, SystemFault
from configs.runtime.seeds import draws
from model.search.budget import Budget
from model.search.history import frequency, read_frequency, read_history
from model.search.reallocation_callback import ReallocationCallback, Search
from model.site import SiteKey
from tests.support.switching import scene, scripted, train

FILES = ("history.toml", "frequency.toml")
KEY = SiteKey(1, "w1")


@pytest.fixture(scope="module")
def scored():
    return scene()[0]


def _trainer(world=1, epoch=0, step=0):
    strategy = SimpleNamespace(broadcast=lambda tensor: tensor, root_device=torch.device("cpu"))
    return SimpleNamespace(
        world_size=world, is_global_zero=True, current_epoch=epoch, global_step=step, strategy=strategy
    )


def _search(scored, score, every=1, share=0.25, **metadata):
    keys = sorted(scored.attachments)
    return Search(scored.attachments, score, Budget(dict.fromkeys(keys, 1), share, "off"), every, 7, metadata)


def _tied(trainer, learner, number):
    return dict.fromkeys(sorted(scene_keys), 1.0)


scene_keys = [SiteKey(layer, role) for layer in range(3)
              for role in ("q_proj", "k_proj", "v_proj", "o_proj", "w1", "gate", "w2")]  # fmt: skip


@cache
def _learner():
    return scene()[1]


def _act(callback, *batches, epoch=0):
    for batch in batches:
        callback.on_train_batch_start(_trainer(epoch=epoch), _learner(), None, batch)


@pytest.mark.parametrize("every", [1, 2, 3, 5, 9])
def test_decisions_fall_on_multiples_within_each_epoch(scored, tmp_path, every):
    callback = ReallocationCallback(_search(scored, _tied, every), tmp_path)
    for epoch in range(2):
        _act(callback, *range(7), epoch=epoch)
    expected = [(epoch, step) for epoch in range(2) for step in range(0, 7, every)]
    assert [(one.epoch, one.step) for one in callback.decided] == expected


def test_all_are_on_while_they_are_scored_and_the_chosen_ones_afterwards(scored, tmp_path):
    seen = []

    def score(trainer, learner, number):
        seen.append([one.enabled for one in scored.attachments.values()])
        return {key: float(key.layer * 10 + number) for key in scored.attachments}

    callback = ReallocationCallback(_search(scored, score), tmp_path)
    _act(callback, 0, 1)
    assert all(map(all, seen))
    on = {key for key, one in scored.attachments.items() if one.enabled}
    assert on == callback.decided[-1].on
    assert len(on) == 5
    assert {key.layer for key in on} == {2}


def test_ties_are_broken_by_the_seed_and_the_decisions_number_alone(scored, tmp_path):
    callback = ReallocationCallback(_search(scored, _tied), tmp_path)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _act(callback, 0, 1, 2)
    assert torch.equal(torch.get_rng_state(), state)
    budget = callback.search.budget
    scores = dict.fromkeys(scene_keys, 1.0)
    assert [one.on for one in callback.decided] == [
        budget.choose(scores, draws(7, "ties", number)) for number in range(3)
    ]
    assert len({one.on for one in callback.decided}) == 3


def test_every_decision_is_in_both_files_at_once(scored, tmp_path):
    folder = tmp_path / "search"
    callback = ReallocationCallback(_search(scored, _tied, max_alpha=10), folder)
    for batch in range(3):
        _act(callback, batch)
        history = read_history(folder / "history.toml")
        assert history.metadata == {"max_alpha": 10}
        assert [one.on for one in history.reallocations] == [one.on for one in callback.decided]
        assert all(set(one.scores) == set(scene_keys) for one in history.reallocations)
        assert read_frequency(folder / "frequency.toml") == frequency(history)
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_another_process_than_the_first_writes_nothing(scored, tmp_path):
    callback = ReallocationCallback(_search(scored, _tied), tmp_path / "search")
    trainer = _trainer()
    trainer.is_global_zero = False
    callback.on_train_start(trainer, None)
    callback.on_train_batch_start(trainer, _learner(), None, 0)
    assert len(callback.decided) == 1
    assert not (tmp_path / "search").exists()


def test_a_checkpoint_carries_decisions_to_the_last_digit(scored, tmp_path):
    def score(trainer, learner, number):
        return {key: 0.1 * (number + 1) + place / 3 for place, key in enumerate(scored.attachments)}

    first = ReallocationCallback(_search(scored, score), tmp_path / "one")
    _act(first, 0, 1)
    second = ReallocationCallback(_search(scored, score), tmp_path / "two")
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.decided == first.decided
    for callback in (first, second):
        _act(callback, 2)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_resuming_cuts_the_files_back_to_the_checkpoint(scored, tmp_path):
    callback = ReallocationCallback(_search(scored, _tied), tmp_path)
    _act(callback, 0)
    kept, state = [(tmp_path / name).read_bytes() for name in FILES], callback.state_dict()
    _act(callback, 1, 2)
    resumed = ReallocationCallback(_search(scored, _tied), tmp_path)
    resumed.load_state_dict(state)
    resumed.on_train_start(_trainer(), None)
    assert [(tmp_path / name).read_bytes() for name in FILES] == kept


def test_a_run_killed_before_its_first_checkpoint_leaves_no_decision(scored, tmp_path):
    _act(ReallocationCallback(_search(scored, _tied), tmp_path), 0)
    ReallocationCallback(_search(scored, _tied), tmp_path).on_train_start(_trainer(), None)
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_not_finite_names_decision_and_step(scored, tmp_path):
    def score(trainer, learner, number):
        raise NonFiniteFault("layer_0/q_proj: the score is nan")

    callback = ReallocationCallback(_search(scored, score), tmp_path)
    with pytest.raises(NonFiniteFault) as fault:
        callback.on_train_batch_start(_trainer(step=11), _learner(), None, 0)
    assert fault.value.lines == ("reallocation 0, after step 11: layer_0/q_proj: the score is nan",)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("differing", [0, 1, 3])
def test_processes_that_decide_differently_stop_all(scored, tmp_path, monkeypatch, differing):
    """The first one's choice is compared with the own one; the number of those that differ is added up."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.fill_(differing))
    callback = ReallocationCallback(_search(scored, _tied), tmp_path)
    trainer = _trainer(world=4)
    if not differing:
        callback.on_train_batch_start(trainer, _learner(), None, 0)
        assert len(callback.decided) == 1
        return
    with pytest.raises(SystemFault) as fault:
        callback.on_train_batch_start(trainer, _learner(), None, 0)
    assert fault.value.lines == (
        f"reallocation 0: {differing} of 4 processes decided differently from the first",
    )
    assert callback.decided == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("same", [True, False])
def test_the_choice_is_compared_with_that_of_the_first_process(scored, tmp_path, monkeypatch, same):
    told = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: told.append(int(tensor)))
    trainer = _trainer(world=2)
    trainer.strategy.broadcast = lambda tensor: tensor if same else ~tensor
    callback = ReallocationCallback(_search(scored, _tied), tmp_path)
    if same:
        callback.on_train_batch_start(trainer, _learner(), None, 0)
    else:
        with pytest.raises(SystemFault):
            callback.on_train_batch_start(trainer, _learner(), None, 0)
    assert told == [int(not same)]


def test_under_a_real_trainer_only_what_is_on_moves(tmp_path):
    """Decisions at batches 0 and 2; tensors of what was never on are as they began, bit for bit."""
    scored, learner = scene()
    other = SiteKey(0, "q_proj")
    begun = {key: one.adapter.A.detach().clone() for key, one in scored.attachments.items()}
    callback = scripted(scored, [{KEY}, {other}], 2, tmp_path)
    trainer = train(learner, scored.batches, callback)
    assert [(one.epoch, one.step) for one in callback.decided] == [(0, 0), (0, 2)]
    moved = {key for key, one in scored.attachments.items() if not torch.equal(begun[key], one.adapter.A)}
    assert moved == {KEY, other}
    assert len(trainer.optimizers[0].state) == 4
    assert callback.seconds > 0


def test_checkpoints_hold_its_state_under_a_fixed_name(scored, tmp_path):
    assert ReallocationCallback(_search(scored, _tied), tmp_path).state_key == "Reallocations"
