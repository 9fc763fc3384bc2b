"""A layer's input reaches what reads it once a pass, also where a pass is recomputed."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from model.injection.layer_input import LayerInput
from model.network.family import model_types
from tests.support.tiny import tiny_network


class Reader:
    def __init__(self):
        self.seen = []

    def read(self, x):
        self.seen.append(x)


@pytest.fixture(params=sorted(model_types()))
def network(request):
    row = model_types()[request.param]
    return tiny_network(row, AutoModelForSequenceClassification, model_type=request.param).eval()


def _ids():
    return torch.arange(5, 17).view(2, 6)


def test_it_is_what_the_layer_is_called_with(network):
    row, reader, called = model_types()[network.config.model_type], Reader(), []
    hook = LayerInput(network, 1, [reader])
    layer = network.get_submodule(row.layer.format(layer=1))
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: called.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    network(_ids())
    (seen,) = reader.seen
    assert seen.equal(called[0])
    hook.remove()
    hook.remove()
    network(_ids())
    assert len(reader.seen) == 1


def test_a_recomputed_pass_reads_again(network):
    reader = Reader()
    LayerInput(network, 0, [reader])
    network.train()
    network.gradient_checkpointing_enable({"use_reentrant": False})
    network(_ids()).logits.sum().backward()
    assert len(reader.seen) == 2
    assert reader.seen[0].equal(reader.seen[1])
