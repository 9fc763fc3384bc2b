"""Each head of a projection has its own adapter: the formula head by head, and the plain LoRA it equals."""

import pytest
import torch
import torch.nn.functional as F

from model.adapters.adapter import AdaptedLinear
from model.adapters.fused_lora import fused_lora_forward
from model.adapters.lora_by_head import HeadConfig, LoraByHead
from model.adapters.methods.lora import ADAPTER, Lora

D_IN, D_HEAD = 6, 3
HEADS = {
    "mixed": [
        HeadConfig(2, 3.0),
        HeadConfig(1, 4.0, -0.5),
        HeadConfig(0, 1.0),
        HeadConfig(1, 4.0, -0.5),
        HeadConfig(2, 1.0),
    ],
    "equal": [HeadConfig(2, 4.0)] * 4,
    "one": [HeadConfig(3, 2.0)],
}
every = pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)


def _tensor(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _adapter(heads, *, seed=0, dropout=0.0, dtype=torch.float64):
    adapter = LoraByHead(D_IN, D_HEAD * len(heads), heads=heads, dropout=dropout).to(dtype)
    with torch.no_grad():
        adapter.A.copy_(_tensor(*adapter.A.shape, seed=seed))
        adapter.B.copy_(_tensor(*adapter.B.shape, seed=seed + 1))
    return adapter


def _part(heads, *, seed=0, strength=1.0, dtype=torch.float64, **options):
    adapter = _adapter(heads, seed=seed, dtype=dtype, **options)
    outputs = D_HEAD * len(heads)
    weight, bias = _tensor(outputs, D_IN, seed=seed + 2), _tensor(outputs, seed=seed + 3)
    return AdaptedLinear(weight.to(dtype), bias.to(dtype), adapter, strength)


def _factors(heads, adapter):
    """Return the (A_j, B_j) in the paper's letters, cut out of the parameters by the ranks alone."""
    row, found = 0, []
    for head in heads:
        rows = slice(row, row + head.rank)
        found.append((adapter.A[rows], adapter.B[rows].t()))
        row += head.rank
    return found


def _formula(heads, x, adapter):
    """Return the delta head by head: strength_j (alpha_j / r_j) B_j A_j x."""
    rows = []
    for head, (a, b) in zip(heads, _factors(heads, adapter)):
        if head.rank:
            rows.append(head.strength * head.alpha / head.rank * (x @ a.t()) @ b.t())
        else:
            rows.append(torch.zeros(*x.shape[:-1], D_HEAD, dtype=x.dtype))
    return torch.cat(rows, -1)


def _gradients(output, tensors):
    return torch.autograd.grad((output * _tensor(*output.shape, seed=90).to(output.dtype)).sum(), tensors)


@every
@pytest.mark.parametrize("shape", [(D_IN,), (4, D_IN), (2, 3, D_IN), (0, D_IN)])
def test_values_and_gradients_are_the_formula(heads, shape):
    part, x = _part(heads, strength=0.7), _tensor(*shape, seed=80).requires_grad_()
    tensors = [x, part.adapter.A, part.adapter.B]
    base = F.linear(x, part.weight, part.bias)
    for ours, expected in (
        (part.adapter(x), _formula(heads, x, part.adapter)),
        (fused_lora_forward(x, [part])[0], base + 0.7 * _formula(heads, x, part.adapter)),
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(_gradients(ours, tensors), _gradients(expected, tensors))


@every
def test_it_equals_a_plain_lora_with_a_block_diagonal_b(heads):
    part, x = _part(heads), _tensor(5, D_IN, seed=80)
    adapter = part.adapter
    plain = Lora(
        D_IN, adapter.width * len(heads), rank=adapter.rank, alpha=adapter.rank, dropout=0.0
    ).double()
    a, b, scale = ADAPTER.export(adapter)
    ADAPTER.load(plain, a, b, scale)
    blocks = [
        b_j * (h.strength * h.alpha / max(h.rank, 1)) for h, (_, b_j) in zip(heads, _factors(heads, adapter))
    ]
    torch.testing.assert_close(b, torch.block_diag(*blocks))
    torch.testing.assert_close(
        fused_lora_forward(x, [part._replace(adapter=plain)]), fused_lora_forward(x, [part])
    )
    torch.testing.assert_close(adapter.merged_delta(), plain.merged_delta())
    torch.testing.assert_close(_formula(heads, x, adapter), x @ adapter.merged_delta().t())
    again = _adapter(heads, seed=5)
    ADAPTER.load(again, a, b / 2, 2 * scale)
    torch.testing.assert_close(again.state_dict(), adapter.state_dict())


def test_gradcheck():
    part = _part(HEADS["mixed"], strength=1.3)

    def compute(x, a, b):
        part.adapter.__dict__["_parameters"] = {"A": a, "B": b}
        return tuple(fused_lora_forward(x, [part]))

    factors = [tensor.detach().requires_grad_() for tensor in (part.adapter.A, part.adapter.B)]
    assert torch.autograd.gradcheck(compute, (_tensor(3, D_IN, seed=1).requires_grad_(), *factors))


def test_projections_of_one_input_are_computed_together():
    parts = [_part(HEADS[name], seed=10 * n) for n, name in enumerate(("mixed", "equal", "one"))]
    x = _tensor(2, 3, D_IN, seed=80).requires_grad_()
    tensors = [x] + [t for part in parts for t in (part.adapter.A, part.adapter.B)]
    together, apart = fused_lora_forward(x, parts), [fused_lora_forward(x, [part])[0] for part in parts]
    assert len({y.grad_fn.next_functions[0][0] for y in together}) == 1
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(
        _gradients(torch.cat(together, -1), tensors), _gradients(torch.cat(apart, -1), tensors)
    )


def test_one_draw_of_dropout_serves_all_heads():
    heads = [HeadConfig(D_IN, 6.0)] * 2
    adapter = _adapter(heads, dropout=0.5)
    eye = torch.eye(D_IN, dtype=torch.float64)
    with torch.no_grad():
        adapter.A.copy_(eye.repeat(2, 1))
        adapter.B.copy_(eye[:, :D_HEAD].repeat(2, 1))
    part = AdaptedLinear(torch.zeros(2 * D_HEAD, D_IN, dtype=torch.float64), None, adapter, 1.0)
    for compute in (lambda x: fused_lora_forward(x, [part])[0], adapter):
        y = compute(torch.ones(50, D_IN, dtype=torch.float64))
        assert set(y.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(y[:, :D_HEAD], y[:, D_HEAD:])
    adapter.eval()
    assert adapter(torch.ones(1, D_IN, dtype=torch.float64)).unique().tolist() == [1.0]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_autocast_gives_the_formula_in_its_type(stored):
    part = _part(HEADS["mixed"], dtype=torch.float32)
    part = part._replace(weight=part.weight.to(stored), bias=part.bias.to(stored))
    x = _tensor(8, D_IN, seed=80, dtype=torch.float32).requires_grad_()
    tensors = [x, part.adapter.A, part.adapter.B]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (ours,) = fused_lora_forward(x, [part])
    expected = F.linear(x, part.weight.float(), part.bias.float()) + _formula(HEADS["mixed"], x, part.adapter)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), expected, rtol=4e-2, atol=1e-1)
    mine = _gradients(ours, tensors)
    assert [g.dtype for g in mine] == [torch.float32] * 3
    torch.testing.assert_close(mine, _gradients(expected, tensors), rtol=5e-2, atol=2e-1)


@every
def test_tensors_exist_for_the_blocks_alone(heads):
    adapter = _adapter(heads)
    count = sum(head.rank * (D_IN + D_HEAD) for head in heads)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == count
    assert adapter.rank == sum(head.rank for head in heads)
    assert adapter.alpha == [head.alpha for head in heads]


def test_factors_outside_the_blocks_are_refused():
    heads = HEADS["mixed"]
    adapter = _adapter(heads)
    a, b, scale = ADAPTER.export(adapter)
    kept = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    for row, column, message in (
        (D_HEAD, 0, "ranks of head 0 meet the rows of head 1"),
        (0, 2, "ranks of head 1 meet the rows of head 0"),
        (2 * D_HEAD, 5, "ranks of head 4 meet the rows of head 2"),
    ):
        wrong = b.detach().clone()
        wrong[row, column] = 1e-9
        with pytest.raises(ValueError, match=message):
            ADAPTER.load(adapter, a, wrong, scale)
    torch.testing.assert_close(adapter.state_dict(), kept, rtol=0, atol=0)
