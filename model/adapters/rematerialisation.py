"""Make a linear's input again, bit for bit, from what the nodes before it keep for their own backward passes.

A frozen linear keeps no input, an adapted one needs it for the gradient of A. But the activation or norm
that made it keeps its own input anyway, and the graph holds that node: in the backward pass, where the
node's turn comes later, the same kernel on the same tensors gives the same bits. What this file does not
know (and what saved-tensor hooks hold: recomputed layers, offloading) is kept as it was.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTHWHILE = 2**19
"""Bytes from which on an input is not kept: to make a small one again costs time and saves nothing."""
Remake = Callable[[], Tensor]
"""Returns the tensor, (..., D), in a backward pass that has not yet passed its producer."""


class Epsilons:
    """The eps of a network's layer norms, which their autograd nodes do not tell.

    Args:
        network: the host; its norms are looked at when asked for, so copied and swapped weights are found.
    """

    def __init__(self, network: nn.Module) -> None:
        self._norms = [module for module in network.modules() if type(module) is nn.LayerNorm]

    def of(self, weight: Tensor | None) -> float | None:
        """Return the eps of the norm that has this very weight; None for a stranger's or none."""
        if weight is None:
            return None
        return next((norm.eps for norm in self._norms if norm._parameters["weight"] is weight), None)


def noise_for(x: Tensor, dropout: float) -> Tensor | None:
    """Return what dropout multiplies x by, 0 or 1 / (1 - dropout), drawn as `F.dropout` does; None for 0."""
    if dropout == 0 or not x.numel():
        return None
    return torch.empty_like(x).bernoulli_(1.0 - dropout).div_(1.0 - dropout)


def flat_remake_of(x: Tensor, epsilons: Epsilons | None) -> Remake | None:
    """Return what `remake_of` does for x as a matrix (N, D), laid out in memory as x; None for a small x."""
    if x.nbytes < WORTHWHILE or not x.is_contiguous() or not torch.is_grad_enabled():
        return None
    remake = remake_of(x, epsilons)
    width = x.shape[-1]
    return None if remake is None else lambda: remake().reshape(-1, width).contiguous()


def remake_of(x: Tensor, epsilons: Epsilons | None) -> Remake | None:
    """Return how to make x again without keeping it, or None where that is not known.

    Args:
        x: an output of stock modules, (..., D).
        epsilons: those of the network; without them layer norms are not known.
    """
    make = _made(x.grad_fn, epsilons)
    device = x.device.type

    def remake() -> Tensor:
        with torch.autocast(device, enabled=False):  # its casts are nodes of their own
            return make()

    return None if make is None else remake


def _made(node: Any, epsilons: Epsilons | None) -> Remake | None:
    recipe = None if node is None else _RECIPES.get(node.name())
    return None if recipe is None else recipe(node, epsilons)


def _is_hooked(node: Any, name: str) -> bool:
    """Tell whether a hook holds a tensor: it may unpack once only, as recomputed layers do, or at a price."""
    return getattr(node, f"_raw_saved_{name}").unpack_hook is not None


def _kept(node: Any, name: str) -> Remake | None:
    """Return how to read a tensor that a node keeps; never the tensor, which must not outlive the node's."""
    return None if _is_hooked(node, name) else lambda: getattr(node, f"_saved_{name}")


def _operand(node: Any, place: int, epsilons: Epsilons | None) -> Remake | None:
    """Return a factor of a product: kept if the other one needs a gradient, else made like any tensor."""
    name = ("self", "mat2" if node.name() == "BmmBackward0" else "other")[place]
    if _is_hooked(node, name) or getattr(node, f"_saved_{name}") is not None:
        return _kept(node, name)
    return _made(node.next_functions[place][0], epsilons)


def _product(node: Any, epsilons: Epsilons | None) -> Remake | None:
    one, two = _operand(node, 0, epsilons), _operand(node, 1, epsilons)
    if one is None or two is None:
        return None
    multiply = torch.bmm if node.name() == "BmmBackward0" else torch.mul
    dtype = node._input_metadata[0].dtype  # of the output; a product in place may cast
    return lambda: multiply(one(), two()).to(dtype)


def _activation(function: Callable[..., Tensor], *options: str) -> "_Recipe":
    def recipe(node: Any, epsilons: Epsilons | None) -> Remake | None:
        read = _kept(node, "self")
        settings = {name: getattr(node, f"_saved_{name}") for name in options}
        return None if read is None else lambda: function(read(), **settings)

    return recipe


def _layer_norm(node: Any, epsilons: Epsilons | None) -> Remake | None:
    reads = [_kept(node, name) for name in ("input", "weight", "bias")]
    if epsilons is None or None in reads:
        return None
    read, weigh, shift = reads
    eps, shape = epsilons.of(weigh()), node._saved_normalized_shape
    return None if eps is None else lambda: F.layer_norm(read(), shape, weigh(), shift(), eps)


def _passed_on(change: Callable[[Tensor, Any], Tensor]) -> "_Recipe":
    """Return the recipe of an operation on one tensor that keeps nothing; `change` gets it and the node."""

    def recipe(node: Any, epsilons: Epsilons | None) -> Remake | None:
        inner = _made(node.next_functions[0][0], epsilons)
        return None if inner is None else lambda: change(inner(), node)

    return recipe


def _signed(dim: int) -> int:
    """Return a dimension as it was given: nodes keep negative ones without their sign."""
    return dim - 2**64 if dim >= 2**63 else dim


def _cast(x: Tensor, node: Any) -> Tensor:
    return x.to(node._input_metadata[0].device, node._input_metadata[0].dtype)


def _viewed(x: Tensor, node: Any) -> Tensor:
    return x.reshape(node._input_metadata[0].shape)


def _turned(x: Tensor, node: Any) -> Tensor:
    return x.transpose(_signed(node._saved_dim0), _signed(node._saved_dim1))


def _permuted(x: Tensor, node: Any) -> Tensor:
    return x.permute([_signed(dim) for dim in node._saved_dims])


_Recipe = Callable[[Any, Epsilons | None], Remake | None]
_RECIPES: dict[str, _Recipe] = {
    "BmmBackward0": _product,
    "CloneBackward0": _passed_on(lambda x, node: x),
    "GeluBackward0": _activation(F.gelu, "approximate"),
    "MulBackward0": _product,
    "NativeLayerNormBackward0": _layer_norm,
    "PermuteBackward0": _passed_on(_permuted),
    "SiluBackward0": _activation(F.silu),
    "ToCopyBackward0": _passed_on(_cast),
    "TransposeBackward0": _passed_on(_turned),
    "UnsafeViewBackward0": _passed_on(_viewed),
    "ViewBackward0": _passed_on(_viewed),
}
"""By the name of the node that autograd gave the tensor. Those that keep their output (ReLU, fused
attention) are missing because keeping that tensor costs nothing."""
