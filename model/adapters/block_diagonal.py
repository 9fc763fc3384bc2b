"""Products with a block-diagonal up factor of which only the blocks are stored.

Heads own adjacent output columns, all of one width. The factor U (R, width) has a row for each rank, the rows
of the heads one after the other; it represents diag(U) = diag(U_1, .., U_H), (R, H width) = (R, D_out).
Adjacent heads of one rank and one scale are multiplied as a batch; a linear without heads is a single block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Adjacent heads of one rank and one scale.

    Args:
        row: the first head's first row of U.
        column: the first head's first output.
        heads: how many.
        rank: rows of each.
        width: outputs of each.
        scale: what their product is multiplied by.
    """

    row: int
    column: int
    heads: int
    rank: int
    width: int
    scale: float

    @property
    def rows(self) -> slice:
        """The block's rows of U, which are columns of z."""
        return slice(self.row, self.row + self.heads * self.rank)

    @property
    def columns(self) -> slice:
        """The block's outputs."""
        return slice(self.column, self.column + self.heads * self.width)


def head_blocks(heads: Sequence[tuple[int, float]], width: int) -> tuple[Block, ...]:
    """Return the blocks of heads given as (rank, scale) in order; heads of rank 0 have none.

    Args:
        heads: rank and scale of each head; a linear without heads has a single one.
        width: outputs of each.
    """
    blocks, row = [], 0
    for (rank, scale), run in groupby(enumerate(heads), key=lambda numbered: numbered[1]):
        numbers = [number for number, _ in run]
        if rank:
            blocks.append(Block(row, numbers[0] * width, len(numbers), rank, width, scale))
        row += rank * len(numbers)
    return tuple(blocks)


def _is_dense(blocks: Sequence[Block], width: int) -> bool:
    """Return whether one block of one head fills all `width` outputs, so that no views need to be cut."""
    return len(blocks) == 1 and blocks[0].width == width


def scale_rows(z: Tensor, blocks: Sequence[Block], strength: float) -> Tensor:
    """Multiply z (B T, R) by each block's scale and by the strength, in place, and return it."""
    if len(blocks) == 1:  # heads without a block have no column of z
        return z.mul_(blocks[0].scale * strength)
    for block in blocks:
        z[:, block.rows].mul_(block.scale * strength)
    return z


def add_product(y: Tensor, z: Tensor, up: Tensor, blocks: Sequence[Block]) -> Tensor:
    """Add z diag(U) to y in place and return it. y: (B T, D_out), z: (B T, R), up: U (R, width)."""
    if _is_dense(blocks, y.shape[1]):
        return y.addmm_(z, up)
    for block in blocks:
        y_block, z_block, rows = y[:, block.columns], z[:, block.rows], up[block.rows]
        if block.heads == 1:
            y_block.addmm_(z_block, rows)
        else:
            per_head = rows.unflatten(0, (-1, block.rank))
            _per_head(y_block, block).baddbmm_(_per_head(z_block, block), per_head)
    return y


def linear_plus_delta(  # noqa: PLR0913 - flat arguments: a linear's three, a delta's three
    x: Tensor, weight: Tensor, bias: Tensor | None, z: Tensor, up: Tensor, blocks: Sequence[Block]
) -> Tensor:
    """Return x W^T + b + z diag(U), rounded so that a small delta is not lost.

    A finished base output of bfloat16 or float16 lies on a coarse grid. A delta below half a step of it, and
    that is what an adapter makes early in training, would vanish from nearly every element that it is added
    to. In half precision the delta is therefore computed first, on top of the bias, and the base's product,
    summed in float32, is added to it and rounded once. A delta of zero leaves the bits of the base output.

    Args:
        x: (B T, D_in).
        weight: W (D_out, D_in), of any type.
        bias: b (D_out), of any type, or None.
        z: (B T, R), scaled.
        up: U (R, width).
        blocks: where the heads lie in U.

    Returns:
        (B T, D_out) in x's type.
    """
    weight, up = weight.to(x.dtype), up.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    if not is_half_precision(x):
        return add_product(F.linear(x, weight, bias), z, up, blocks)
    if len(blocks) == 1 and blocks[0].heads == 1 and up.shape[1] == len(weight):
        y = z @ up if bias is None else torch.addmm(bias, z, up)
    else:
        y = x.new_zeros(len(x), len(weight)) if bias is None else bias.repeat(len(x), 1)
        y = add_product(y, z, up, blocks)
    return y.addmm_(x, weight.t())


def is_half_precision(x: Tensor) -> bool:
    """Return whether x has 16 bits a number, so that the order of a sum decides what is rounded away."""
    return torch.finfo(x.dtype).bits <= 16


def input_gradient(dz: Tensor, g: Tensor, up: Tensor, blocks: Sequence[Block], strength: float) -> None:
    """Write strength x scale x g diag(U)^T to dz, every column of it.

    Args:
        dz: (B T, R), overwritten.
        g: (B T, D_out), the output's gradient.
        up: U (R, width).
        blocks: where the heads lie in U, with their scales.
        strength: importance coefficient.
    """
    if _is_dense(blocks, g.shape[1]):
        dz.addmm_(g, up.t(), beta=0, alpha=blocks[0].scale * strength)
        return
    for block in blocks:
        dz_block, g_block, rows = dz[:, block.rows], g[:, block.columns], up[block.rows]
        scale = block.scale * strength
        if block.heads == 1:
            dz_block.addmm_(g_block, rows.t(), beta=0, alpha=scale)
        else:
            transposed = rows.unflatten(0, (-1, block.rank)).transpose(1, 2)
            _per_head(dz_block, block).baddbmm_(_per_head(g_block, block), transposed, beta=0, alpha=scale)


def factor_gradient(z: Tensor, g: Tensor, blocks: Sequence[Block]) -> Tensor:
    """Return the gradient of U, the blocks of z^T g. z: (B T, R), g: (B T, D_out) -> (R, width)."""
    if _is_dense(blocks, g.shape[1]):
        return z.t() @ g
    parts = []
    for block in blocks:
        z_block, g_block = z[:, block.rows], g[:, block.columns]
        if block.heads == 1:
            parts.append(z_block.t() @ g_block)
        else:
            product = torch.bmm(_per_head(z_block, block).transpose(1, 2), _per_head(g_block, block))
            parts.append(product.flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _per_head(t: Tensor, block: Block) -> Tensor:
    """Return a view with one matrix for each head. t: (B T, heads * C) -> (heads, B T, C)."""
    return t.unflatten(1, (block.heads, -1)).transpose(0, 1)
