"""A module that is off costs nothing, and does not change until it is on again."""

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model.site import SiteKey
from model.training.objective import inputs
from tests.support.switching import scene, scripted, train

LOW, HIGH = SiteKey(0, "q_proj"), SiteKey(2, "w2")


class Watch(L.Callback):
    """Keeps, by batch, the tensors and the optimiser's state of modules, and the gradients of each update."""

    def __init__(self, *keys):
        self.keys = keys
        self.seen, self.gradients = [], []

    def on_before_optimizer_step(self, trainer, learner, optimizer):
        self.gradients.append({key: _gradients(learner, key) for key in self.keys})

    def on_train_batch_end(self, trainer, learner, outputs, batch, batch_idx):
        state = trainer.optimizers[0].state
        self.seen.append({key: _standing(learner, key, state) for key in self.keys})


def _factors(learner, key):
    return list(learner.attachments[key].adapter.parameters())


def _gradients(learner, key):
    return [None if p.grad is None else p.grad.clone() for p in _factors(learner, key)]


def _standing(learner, key, state):
    tensors = []
    for parameter in _factors(learner, key):
        tensors += [parameter.detach().clone(), *(v.clone() for v in state.get(parameter, {}).values())]
    return tensors


def _equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


class Operations(TorchDispatchMode):
    """Keeps the name of every operation and the shapes it was given."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.done.append((str(function), [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]))
        return function(*args, **(kwargs or {}))


def _operations(scored):
    with Operations() as operations:
        scored.objective.loss(scored.network, scored.batches[0])
    return operations.done


def _flops(scored):
    with FlopCounterMode(display=False) as counter:
        scored.objective.loss(scored.network, scored.batches[0]).backward()
    return counter.get_total_flops()


def _switch(scored, *on):
    for key, attachment in scored.attachments.items():
        attachment.enabled = key in on


def test_what_is_off_does_not_change_and_trains_on_afterwards(tmp_path):
    """No update, no decay, no moments; the optimiser's state of before is still there when it is on again."""
    scored, learner = scene()
    watch = Watch(LOW, HIGH)
    search = scripted(scored, [{LOW}, {HIGH}, {LOW}], 2, tmp_path)
    train(learner, scored.batches * 2, search, watch)
    low, high = ([one[key] for one in watch.seen] for key in (LOW, HIGH))
    assert not _equal(low[0], low[1])
    assert _equal(low[1], low[2]) and _equal(low[2], low[3])
    assert len(low[0]) == 2 * (1 + 3)  # weight, step and two moments of A and of B
    assert not _equal(low[3], low[4])
    steps = [int(one[1]) for one in low]
    assert steps == [1, 2, 2, 2, 3, 4]
    assert len(high[0]) == len(high[1]) == 2  # never updated: the optimiser knows nothing of it
    assert _equal(high[0], high[1])
    assert [int(one[1]) for one in high[2:]] == [1, 2, 2, 2]
    assert _equal(high[3], high[5])


def test_a_window_drops_the_gradients_of_a_module_that_is_switched_off(tmp_path):
    scored, learner = scene()
    watch = Watch(LOW, HIGH)
    search = scripted(scored, [{LOW}, {HIGH}], 1, tmp_path)
    train(learner, scored.batches[:2], search, watch, accumulate=2)
    (gradients,) = watch.gradients
    assert gradients[LOW] == [None, None]
    fresh, _ = scene()
    _switch(fresh, HIGH)
    (fresh.objective.loss(fresh.network, fresh.batches[1]) / 2).backward()
    expected = [p.grad for p in fresh.attachments[HIGH].adapter.parameters()]
    torch.testing.assert_close(gradients[HIGH], expected, rtol=1e-6, atol=0)


def test_a_module_that_stays_on_keeps_the_whole_window(tmp_path):
    scored, learner = scene()
    watch = Watch(LOW)
    train(learner, scored.batches[:2], scripted(scored, [{LOW}, {LOW}], 1, tmp_path), watch, accumulate=2)
    fresh, _ = scene()
    _switch(fresh, LOW)
    for batch in fresh.batches[:2]:
        (fresh.objective.loss(fresh.network, batch) / 2).backward()
    expected = [p.grad for p in fresh.attachments[LOW].adapter.parameters()]
    torch.testing.assert_close(watch.gradients[0][LOW], expected, rtol=1e-6, atol=0)


def test_what_is_off_multiplies_nothing():
    """Operation by operation it is the stock network; one module that is on adds its own products."""
    scored, _ = scene()
    for attachment in scored.attachments.values():
        attachment.detach()
    stock = _operations(scored)
    _switch(scored)
    assert _operations(scored) == stock
    _switch(scored, HIGH)
    more = _operations(scored)
    tokens, rank = scored.batches[0]["input_ids"].numel(), scored.attachments[HIGH].adapter.rank
    products = [shapes for name, shapes in more if name == "aten.addmm_.default"]
    assert len(more) > len(stock)
    assert products == [[(tokens, 32), (tokens, rank), (rank, 32)]]
    assert not [name for name, _ in stock if name == "aten.addmm_.default"]


def test_the_backward_pass_ends_at_the_lowest_module_that_is_on():
    scored, _ = scene()
    layers = scored.network.model.layers
    outputs = []
    for layer in layers:
        layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    reached = {}
    for layer, key in enumerate((LOW, SiteKey(1, "q_proj"), SiteKey(2, "q_proj"))):
        outputs.clear()
        _switch(scored, key, HIGH)
        scored.network(**inputs(scored.batches[0]))
        assert [output.requires_grad for output in outputs] == [number >= layer for number in range(3)]
        assert all(output.grad_fn is None for output in outputs[:layer])
        reached[layer] = _flops(scored)
    assert reached[0] > reached[1] > reached[2]
    # What one layer less costs: its share of the input's gradient, which is that of its forward pass.
    whole = (reached[0] - reached[1]) / (reached[1] - reached[2])
    assert whole == pytest.approx(1.0)


def test_what_is_off_has_no_gradient_after_a_backward_pass():
    scored, learner = scene()
    _switch(scored, HIGH)
    scored.objective.loss(scored.network, scored.batches[0]).backward()
    with_gradient = {
        key for key in scored.attachments if any(g is not None for g in _gradients(learner, key))
    }
    assert with_gradient == {HIGH}
    assert len(learner.unused_parameters()) == 2 * (len(scored.attachments) - 1)
    assert learner.active_parameters() == sum(p.numel() for p in _factors(learner, HIGH))
