"""Compute a linear's input again, bit for bit, from what the nodes before it save for their own backward.

A frozen linear saves no input, an adapted one needs it for the gradient of A. But the activation or norm that
produced it saves its own input anyway, and the graph holds that node: in the backward pass, where the node's
turn comes later, the same kernel on the same tensors gives the same bits. What this file does not know (and
what saved-tensor hooks hold: recomputed layers, offloading) is saved as usual.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTHWHILE = 2**19
"""Bytes from which on an input is computed again: for a small one that costs time and saves nothing."""
Remake = Callable[[], Tensor]
"""Returns the tensor, (..., D); to be called in a backward pass before the node that produced it has run."""


class NormEpsilons:
    """The eps of a network's layer norms, which their autograd nodes do not save.

    Args:
        network: the host; its norms are searched at every call, so copied and swapped weights are found.
    """

    def __init__(self, network: nn.Module) -> None:
        self._norms = [module for module in network.modules() if type(module) is nn.LayerNorm]

    def of(self, weight: Tensor | None) -> float | None:
        """Return the eps of the norm whose weight (D) this is; None for any other weight, and for None."""
        if weight is None:
            return None
        return next((norm.eps for norm in self._norms if norm._parameters["weight"] is weight), None)


def dropout_noise(x: Tensor, dropout: float) -> Tensor | None:
    """Return what dropout multiplies x by, 0 or 1 / (1 - dropout), drawn as `F.dropout` draws it.

    Args:
        x: any shape.
        dropout: probability of 0.

    Returns:
        A tensor of x's shape and type; None where the probability is 0 or x is empty.
    """
    if dropout == 0 or not x.numel():
        return None
    return torch.empty_like(x).bernoulli_(1.0 - dropout).div_(1.0 - dropout)


def flat_remake_of(x: Tensor, epsilons: NormEpsilons | None) -> Remake | None:
    """Return what `remake_of` does, for x as a contiguous matrix (B T, D); None for a small x.

    Args:
        x: (..., D), an output of stock modules.
        epsilons: those of the network; without them layer norms are not known.
    """
    if x.nbytes < WORTHWHILE or not x.is_contiguous() or not torch.is_grad_enabled():
        return None
    remake, width = remake_of(x, epsilons), x.shape[-1]
    return None if remake is None else lambda: remake().reshape(-1, width).contiguous()


def remake_of(x: Tensor, epsilons: NormEpsilons | None) -> Remake | None:
    """Return how to compute x again without saving it, or None where that is not known.

    Args:
        x: (..., D), an output of stock modules.
        epsilons: those of the network; without them layer norms are not known.
    """
    compute, device = _remake(x.grad_fn, epsilons), x.device.type
    if compute is None:
        return None

    def remake() -> Tensor:
        with torch.autocast(device, enabled=False):  # its casts are nodes of their own
            return compute()

    return remake


def _remake(node: Any, epsilons: NormEpsilons | None) -> Remake | None:
    """Return how to compute a node's output again; None for a leaf and for nodes without a recipe."""
    recipe = None if node is None else _RECIPES.get(node.name())
    return None if recipe is None else recipe(node, epsilons)


def _is_hooked(node: Any, name: str) -> bool:
    """Return whether a saved-tensor hook holds a tensor: unpacking it may work once only, or cost much."""
    return getattr(node, f"_raw_saved_{name}").unpack_hook is not None


def _kept(node: Any, name: str) -> Remake | None:
    """Return how to read a tensor that a node saves; not the tensor itself, which the node may drop."""
    return None if _is_hooked(node, name) else lambda: getattr(node, f"_saved_{name}")


def _operand(node: Any, place: int, epsilons: NormEpsilons | None) -> Remake | None:
    """Return a factor of a product: saved if the other one needs a gradient, else computed again."""
    name = ("self", "mat2" if node.name() == "BmmBackward0" else "other")[place]
    if _is_hooked(node, name) or getattr(node, f"_saved_{name}") is not None:
        return _kept(node, name)
    return _remake(node.next_functions[place][0], epsilons)


def _product(node: Any, epsilons: NormEpsilons | None) -> Remake | None:
    """Return the recipe's result for a product, element by element or of batches of matrices."""
    one, two = _operand(node, 0, epsilons), _operand(node, 1, epsilons)
    if one is None or two is None:
        return None
    multiply = torch.bmm if node.name() == "BmmBackward0" else torch.mul
    dtype = node._input_metadata[0].dtype  # of the output; a product in place may cast
    return lambda: multiply(one(), two()).to(dtype)


def _activation(function: Callable[..., Tensor], *options: str) -> "_Recipe":
    """Return the recipe of an activation that saves its input, and these options of its function."""

    def recipe(node: Any, epsilons: NormEpsilons | None) -> Remake | None:
        read = _kept(node, "self")
        settings = {name: getattr(node, f"_saved_{name}") for name in options}
        return None if read is None else lambda: function(read(), **settings)

    return recipe


def _layer_norm(node: Any, epsilons: NormEpsilons | None) -> Remake | None:
    """Return the recipe's result for a layer norm, whose eps must be looked up."""
    x, weight, bias = (_kept(node, name) for name in ("input", "weight", "bias"))
    if epsilons is None or x is None or weight is None or bias is None:
        return None
    eps, shape = epsilons.of(weight()), node._saved_normalized_shape
    return None if eps is None else lambda: F.layer_norm(x(), shape, weight(), bias(), eps)


def _passed_on(change: Callable[[Tensor, Any], Tensor]) -> "_Recipe":
    """Return the recipe of an operation on one tensor that saves nothing; `change` gets it and the node."""

    def recipe(node: Any, epsilons: NormEpsilons | None) -> Remake | None:
        inner = _remake(node.next_functions[0][0], epsilons)
        return None if inner is None else lambda: change(inner(), node)

    return recipe


def _signed(dim: int) -> int:
    """Return a dimension as it was given: nodes save negative ones as unsigned numbers."""
    return dim - 2**64 if dim >= 2**63 else dim


def _cast(x: Tensor, node: Any) -> Tensor:
    return x.to(node._input_metadata[0].device, node._input_metadata[0].dtype)


def _viewed(x: Tensor, node: Any) -> Tensor:
    return x.reshape(node._input_metadata[0].shape)


def _turned(x: Tensor, node: Any) -> Tensor:
    return x.transpose(_signed(node._saved_dim0), _signed(node._saved_dim1))


def _permuted(x: Tensor, node: Any) -> Tensor:
    return x.permute([_signed(dim) for dim in node._saved_dims])


_Recipe = Callable[[Any, NormEpsilons | None], Remake | None]
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
"""By the name of the autograd node that produced the tensor. Nodes that save their output (ReLU, fused
attention) are missing: saving that tensor once more costs nothing."""
