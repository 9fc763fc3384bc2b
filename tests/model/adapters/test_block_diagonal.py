"""Products with stored blocks are the products with the whole block-diagonal matrix."""

import pytest
import torch
import torch.nn.functional as F

from model.adapters.block_diagonal import (
    Block,
    add_product,
    factor_gradient,
    head_blocks,
    input_gradient,
    linear_plus_delta,
    scale_rows,
)

HEADS = {
    "one": [(3, 2.0)],
    "equal": [(2, 0.5)] * 4,
    "runs": [(2, 0.5), (2, 0.5), (1, 0.5), (1, 2.0), (0, 0.0), (2, 0.5), (2, 0.5), (2, 0.5)],
    "single": [(0, 0.0), (1, 3.0), (0, 0.0)],
}
WIDTH = 5


def _tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=HEADS)
def case(request):
    """Heads, their blocks, U, and the whole matrix without scales, with them, as the formula has it."""
    heads = HEADS[request.param]
    ranks = [rank for rank, _ in heads]
    up = _tensor(sum(ranks), WIDTH, seed=1)
    whole = torch.zeros(sum(ranks), WIDTH * len(heads), dtype=torch.float64)
    scales = torch.zeros(sum(ranks), dtype=torch.float64)
    row = 0
    for number, (rank, scale) in enumerate(heads):
        whole[row : row + rank, number * WIDTH : (number + 1) * WIDTH] = up[row : row + rank]
        scales[row : row + rank] = scale
        row += rank
    return head_blocks(heads, WIDTH), up, whole, scales


def test_adjacent_equal_heads_are_one_block():
    assert head_blocks(HEADS["one"], WIDTH) == (Block(0, 0, 1, 3, 5, 2.0),)
    assert head_blocks(HEADS["equal"], WIDTH) == (Block(0, 0, 4, 2, 5, 0.5),)
    blocks = head_blocks(HEADS["runs"], WIDTH)
    assert [(b.row, b.column, b.heads, b.rank, b.scale) for b in blocks] == [
        (0, 0, 2, 2, 0.5),
        (4, 10, 1, 1, 0.5),
        (5, 15, 1, 1, 2.0),
        (6, 25, 3, 2, 0.5),
    ]
    assert blocks[-1].rows == slice(6, 12)
    assert blocks[-1].columns == slice(25, 40)


@pytest.mark.parametrize("count", [7, 1, 0])
def test_the_products_are_those_of_the_whole_matrix(case, count):
    blocks, up, whole, scales = case
    ranks, outputs = whole.shape
    y, z, g = _tensor(count, outputs, seed=2), _tensor(count, ranks, seed=3), _tensor(count, outputs, seed=4)
    torch.testing.assert_close(add_product(y.clone(), z, up, blocks), y + z @ whole)
    torch.testing.assert_close(scale_rows(z.clone(), blocks, 0.25), 0.25 * z * scales)
    dz = torch.full((count, ranks), torch.nan, dtype=torch.float64)
    input_gradient(dz, g, up, blocks, 0.25)
    torch.testing.assert_close(dz, 0.25 * (g @ whole.t()) * scales)
    gradient = factor_gradient(z, g, blocks)
    assert gradient.shape == up.shape
    off = torch.zeros_like(whole)
    for block in blocks:
        rows, columns = gradient[block.rows], range(block.column, block.columns.stop, WIDTH)
        for row, column in zip(rows.split(block.rank), columns):
            start = block.row + (column - block.column) // WIDTH * block.rank
            off[start : start + block.rank, column : column + WIDTH] = row
    torch.testing.assert_close(off, (z.t() @ g) * (whole != 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_strided_and_expanded_operands_are_taken(case, dtype):
    blocks, up, whole, _ = case
    up, whole = up.to(dtype), whole.to(dtype)
    z = _tensor(whole.shape[0] + 3, 6, seed=3).to(dtype).t()[:, 2:-1]
    g = torch.ones((), dtype=dtype).expand(6, whole.shape[1])
    y = torch.zeros(6, whole.shape[1] + 4, dtype=dtype)[:, 3:-1]
    tolerance = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(add_product(y, z, up, blocks), z @ whole, **tolerance)
    rows = z.t().sum(1, keepdim=True).expand(-1, WIDTH)
    torch.testing.assert_close(factor_gradient(z, g, blocks), rows, **tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("has_bias", [False, True])
def test_base_and_delta_are_their_sum(case, dtype, has_bias):
    blocks, up, whole, _ = case
    x, weight = _tensor(7, 6, seed=5), _tensor(whole.shape[1], 6, seed=6)
    bias = _tensor(whole.shape[1], seed=7) if has_bias else None
    z = _tensor(7, len(whole), seed=3)
    expected = F.linear(x, weight, bias) + z @ whole
    tolerance = {2: 0.1, 4: 1e-5, 8: 1e-12}[dtype.itemsize]
    ours = linear_plus_delta(x.to(dtype), weight, bias, z.to(dtype), up, blocks)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "small"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_delta_below_half_a_step_of_the_base_is_not_rounded_away(dtype, small, has_bias):
    x, weight = _tensor(512, 64, seed=5).to(dtype), _tensor(96, 64, seed=6).to(dtype)
    bias = 0.1 * _tensor(96, seed=7).to(dtype) if has_bias else None
    z, up = torch.full((512, 1), small, dtype=dtype), torch.ones(1, 96, dtype=dtype)
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    gain = (linear_plus_delta(x, weight, bias, z, up, head_blocks([(1, 1.0)], 96)).double() - exact).mean()
    assert abs(gain - small) < 0.15 * small
    added_late = F.linear(x, weight, bias) + z @ up
    assert (added_late.double() - exact).mean() < 0.6 * small  # what adding to a rounded base leaves of it


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_delta_of_zero_leaves_the_base_bit_for_bit(case, dtype, has_bias):
    blocks, up, whole, _ = case
    x, weight = _tensor(64, 32, seed=5).to(dtype), _tensor(whole.shape[1], 32, seed=6).to(dtype)
    bias = _tensor(whole.shape[1], seed=7).to(dtype) if has_bias else None
    z = _tensor(64, len(whole), seed=3).to(dtype)
    ours = linear_plus_delta(x, weight, bias, z, torch.zeros_like(up), blocks)
    assert torch.equal(ours, F.linear(x, weight, bias))
