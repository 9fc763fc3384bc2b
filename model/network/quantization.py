"""Quantized frozen weights: a tensor subclass that holds codes and behaves as the values they encode.

Source: Dettmers et al. 2023, arXiv 2305.14314, section 3: weights are stored in a low-precision type and
dequantized to the computation type for each product, in the forward and again in the backward pass.
A linear keeps its class, its path and its parameter's name, shape and number format; only the representation
of its weight changes. Every use of the weight dequantizes it, and the values are not kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only

_aten = torch.ops.aten
VALUE_DTYPE = torch.bfloat16
"""Number format of the values that are encoded and decoded, whatever that of the network."""


@dataclass(frozen=True)
class QuantizerKind:
    """What a file in `model/network/quantizers/` exports as `QUANTIZER`.

    Args:
        encode: values (D_out, D_in) -> tensors by name; a pure function of the values.
        decode: (those tensors, (D_out, D_in)) -> values.
    """

    encode: Callable[[Tensor], Mapping[str, Tensor]]
    decode: Callable[[Mapping[str, Tensor], Sequence[int]], Tensor]


class QuantizedWeight(Tensor):
    """A frozen weight held as the tensors of a quantizer.

    `F.linear` keeps only the codes for its backward pass. Any other operation gets the values; one that would
    write into them is refused. Copies, moves to another device and casts keep the codes.

    Args:
        parts: tensors by name, as the quantizer encodes them.
        kind: the quantizer.
        shape: (D_out, D_in).
        dtype: number format of the values.
    """

    @staticmethod
    def __new__(
        cls: type["QuantizedWeight"],
        parts: Mapping[str, Tensor],
        kind: QuantizerKind,
        shape: Sequence[int],
        dtype: torch.dtype,
    ) -> "QuantizedWeight":
        """Make a tensor without storage of its own."""
        device = next(iter(parts.values())).device
        return Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)

    def __init__(
        self, parts: Mapping[str, Tensor], kind: QuantizerKind, shape: Sequence[int], dtype: torch.dtype
    ) -> None:
        self.kind = kind
        self.names = tuple(parts)
        for name, part in parts.items():
            setattr(self, name, part)

    @property
    def parts(self) -> dict[str, Tensor]:
        """The tensors that the quantizer made, by name."""
        return {name: getattr(self, name) for name in self.names}

    def dequantize(self) -> Tensor:
        """Return the values as a plain tensor (D_out, D_in)."""
        return self.kind.decode(self.parts, self.shape).to(self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]  # torch's own takes a private argument
        return f"QuantizedWeight({tuple(self.shape)}, {self.dtype}, {', '.join(self.names)})"

    def __tensor_flatten__(self) -> tuple[list[str], tuple[QuantizerKind, torch.dtype]]:
        """Name the inner tensors, so that moving a module moves them all."""
        return list(self.names), (self.kind, self.dtype)

    @classmethod
    def __tensor_unflatten__(
        cls, inner: Mapping[str, Tensor], rest: tuple[QuantizerKind, torch.dtype], size: Any, stride: Any
    ) -> "QuantizedWeight":
        """Make it again from the inner tensors."""
        kind, dtype = rest
        return cls(inner, kind, size, dtype)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute a linear with only codes in its graph; leave everything else to the dispatcher."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares a plain function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Copy and move the codes; dequantize for any other operation."""
        kwargs = kwargs or {}
        if func is _aten.detach.default:
            return args[0]._like(lambda part: part)
        if func is _aten.clone.default:
            return args[0]._like(torch.clone)
        if func is _aten._to_copy.default:
            device = kwargs.get("device") or args[0].device
            return args[0]._like(lambda part: part.to(device, copy=True), kwargs.get("dtype"))
        for argument, value in zip(func._schema.arguments, args):
            if isinstance(value, cls) and argument.alias_info is not None and argument.alias_info.is_write:
                raise TypeError(f"{func}: a quantized weight cannot be written to; dequantize it first")
        args, kwargs = tree_map_only(cls, cls.dequantize, (args, kwargs))
        return func(*args, **kwargs)

    def _like(
        self, change: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None
    ) -> "QuantizedWeight":
        """Return a weight of the changed parts."""
        parts = {name: change(part) for name, part in self.parts.items()}
        return QuantizedWeight(parts, self.kind, self.shape, dtype or self.dtype)


class _QuantizedLinear(torch.autograd.Function):
    """y = x W^T + b with a quantized W, which is dequantized again for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
        """x: (..., D_in) -> (..., D_out)."""
        ctx.save_for_backward(weight)
        return F.linear(x, weight.dequantize().to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        """grad: (..., D_out) -> the gradient of x."""
        (weight,) = ctx.saved_tensors
        return grad @ weight.dequantize().to(grad.dtype) if ctx.needs_input_grad[0] else None, None, None


def _linear(input: Tensor, weight: QuantizedWeight, bias: Tensor | None = None) -> Tensor:
    """Replace `F.linear`, with its argument names; under autocast it computes in autocast's type."""
    if torch.is_autocast_enabled(input.device.type):
        input = input.to(torch.get_autocast_dtype(input.device.type))
    with torch.autocast(input.device.type, enabled=False):
        return _QuantizedLinear.apply(input, weight, bias)


def quantize(layers: Iterable[nn.Module], kind: QuantizerKind) -> None:
    """Replace the weight of every frozen linear inside the layers by its quantized form."""
    for module in (module for layer in layers for module in layer.modules()):
        if type(module) is nn.Linear and not any(p.requires_grad for p in module.parameters()):
            weight = module.weight.detach()
            codes = QuantizedWeight(kind.encode(weight.to(VALUE_DTYPE)), kind, weight.shape, weight.dtype)
            module.weight = nn.Parameter(codes, requires_grad=False)


def dequantize(network: nn.Module) -> None:
    """Replace every quantized weight of a network by its values."""
    for module in network.modules():
        weight = module._parameters.get("weight")
        if isinstance(weight, QuantizedWeight):
            module.weight = nn.Parameter(weight.dequantize(), requires_grad=False)
