"""Read PEFT's VeRA and AdaLoRA as LoRAs of the same effect.

VeRA (Kopiczko et al. 2024, arXiv 2310.11454, eq. 2): W0 + diag(b) B diag(d) A is a LoRA with factors
diag(d) A and diag(b) B. PEFT shares A and B between all modules and cuts them to each module's widths.
AdaLoRA (Zhang et al. 2023, arXiv 2303.10512, eq. 3): W0 + P diag(Λ) Q is a LoRA with factors diag(Λ) Q and P;
PEFT scales it by alpha / (R + 1e-5), R the number of values that were kept.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from configs.runtime.faults import InputFault

_VERA = re.compile(r"^(?P<module>.+)\.vera_lambda_(?P<name>[bd])$")
_ADALORA = re.compile(r"^(?P<module>.+)\.lora_(?P<name>[ABE])$")
_SMALL = 1e-5

Modules = dict[str, dict[str, Tensor]]
"""Module -> A (R, D_in) and B (D_out, R)."""


def vera_modules(tensors: Mapping[str, Tensor], where: str) -> tuple[Modules, dict[str, Tensor]]:
    """Return the factors of each module and the tensors that belong to none.

    Args:
        tensors: name -> tensor, without PEFT's prefix.
        where: the file.

    Raises:
        InputFault: when the shared matrices are not in the file.
    """
    vectors, rest = _by_module(tensors, _VERA)
    shared = {
        name: rest.pop(key) for key in list(rest) for name in ("A", "B") if key.endswith(f"vera_{name}")
    }
    if set(shared) != {"A", "B"}:
        raise InputFault(
            f"{where}: has no vera_A and vera_B; save it with save_projection = True, or convert it with"
            " PEFT's save_as_lora"
        )
    a, b = shared["A"], shared["B"]
    modules: Modules = {}
    for module, pair in vectors.items():
        if set(pair) != {"b", "d"} or pair["b"].shape[0] > b.shape[0] or pair["d"].shape[0] != a.shape[0]:
            raise InputFault(f"{where}: {module}: needs vera_lambda_b and _d that fit vera_A and vera_B")
        modules[module] = {
            "A": pair["d"].unsqueeze(1) * a,
            "B": pair["b"].unsqueeze(1) * b[: pair["b"].shape[0]],
        }
    return modules, rest


def adalora_modules(tensors: Mapping[str, Tensor], where: str) -> tuple[Modules, dict[str, Tensor]]:
    """Return the factors of each module and the tensors that belong to none.

    Args:
        tensors: name -> tensor, without PEFT's prefix.
        where: the file.

    Raises:
        InputFault: when a module lacks one of its three tensors.
    """
    parts, rest = _by_module(tensors, _ADALORA)
    modules: Modules = {}
    for module, three in parts.items():
        if set(three) != {"A", "B", "E"}:
            raise InputFault(f"{where}: {module}: needs lora_A, lora_B and lora_E, has {sorted(three)}")
        if three["A"].shape[0]:  # everything of a module may have been pruned
            modules[module] = {"A": three["A"] * three["E"], "B": three["B"]}
    return modules, rest


def adalora_scale(alpha: float, initial_rank: int) -> float:
    """Return PEFT's scale of an AdaLoRA: alpha / (R_0 + 1e-5), R_0 the rank before pruning.

    PEFT keeps the number of ranks that a module began with when it prunes.
    """
    return alpha / (initial_rank + _SMALL)


def _by_module(
    tensors: Mapping[str, Tensor], form: re.Pattern[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    modules: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = form.match(name)
        if match:
            modules.setdefault(match["module"], {})[match["name"]] = tensor
        else:
            rest[name] = tensor
    return modules, rest
