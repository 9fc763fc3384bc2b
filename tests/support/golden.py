"""Golden cases: numbers that independent implementations gave for fixed inputs, and how a test reads one.

Cases are found by glob in `$GOLDEN_DIR`. What a case decides (layers, ranks, variants, adapters, tolerances)
is read from its files; nothing here knows the name of a case.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.runtime import kinds
from model.adapters.adapter import PlannedSite
from model.assembly.assembly import Assembled, assemble
from model.assembly.placement import Plans
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.network.backbone import Backbone, load_backbone
from model.network.source import resolve
from model.plan.adapter_config import AdapterConfig
from model.site import SHARED_INPUT, Site, SiteKey
from model.training.objective import Classification, LanguageModeling

OWN = Path(__file__).resolve().parents[1] / "data" / "golden"
GOLDEN = Path(os.environ.get("GOLDEN_DIR", OWN))

every_dtype = pytest.mark.parametrize(
    "dtype", (torch.float64, torch.float32), ids=lambda dtype: str(dtype).removeprefix("torch.")
)
every_way = pytest.mark.parametrize("way", ["plain", "node", "joint"])
"""How an attachment computes: stock output plus delta, one node, or one node for linears with one input."""


def case_paths(pattern: str) -> list[Path]:
    """Return the cases of a kind, sorted."""
    return sorted(GOLDEN.glob(pattern))


def cases(pattern: str) -> list[Any]:
    """Return the cases of a kind as parameters named after their files."""
    return [pytest.param(path, id=path.stem) for path in case_paths(pattern)]


def parts(pattern: str, part: str) -> list[Any]:
    """Return (case, name) for every file `PREFIX_name.ending` of every case that is a directory.

    Args:
        pattern: the cases.
        part: the files, with one star in place of their name.
    """
    before, after = part.split("*")
    return [
        pytest.param(case, path.name.removeprefix(before).removesuffix(after), id=f"{case.name}-{path.stem}")
        for case in case_paths(pattern)
        for path in sorted(case.glob(part))
    ]


def word(dtype: torch.dtype) -> str:
    """Return the dtype's name in the tables of tolerances."""
    return str(dtype).removeprefix("torch.")


def described(path: Path) -> dict[str, Any]:
    """Return the facts stored next to a file of tensors."""
    return json.loads(path.with_suffix(".json").read_text())


@dataclass(frozen=True)
class LinearCase:
    """A case about one linear with an adapter.

    Args:
        path: its file of tensors; its facts are next to it.
        dtype: what the tensors are read as.
        prefix: precedes the names of expected tensors.
    """

    path: Path
    dtype: torch.dtype
    prefix: str = "expected"

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The case's facts."""
        return described(self.path)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The case's tensors."""
        return {name: tensor.to(self.dtype) for name, tensor in load_file(self.path).items()}

    @property
    def linear(self) -> nn.Linear:
        """A frozen linear with the case's weights: (..., D_in) -> (..., D_out)."""
        weight, bias = self.tensors["param.weight"], self.tensors.get("param.bias")
        linear = nn.Linear(*reversed(weight.shape), bias=bias is not None, dtype=self.dtype)
        linear.requires_grad_(False)
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
        return linear

    def close(self, ours: Tensor, name: str) -> None:
        """Compare with an expected tensor within the case's tolerance."""
        self.compare(ours, self.tensors[f"{self.prefix}.{name}"])

    def compare(self, ours: Tensor, wanted: Tensor) -> None:
        """Compare two tensors within the case's tolerance."""
        tolerance = self.meta["tolerance"][word(self.dtype)]
        torch.testing.assert_close(ours, wanted, rtol=tolerance["rtol"], atol=tolerance["atol"])

    def adapter(
        self, role: str, config: AdapterConfig, options: Mapping[str, Any], names: Mapping[str, str]
    ) -> Any:
        """Return an adapter of the config's method that holds the case's tensors.

        Args:
            role: where it sits.
            config: its plan.
            options: keys of the method.
            names: factor -> the case's name of it.
        """
        kind = kinds.load(kinds.ADAPTERS, config.method)
        out_features, in_features = self.tensors["param.weight"].shape
        site = Site(SiteKey(0, role), role, in_features, out_features)
        adapter = kind.build([PlannedSite(site, config, kind.options(**options))], 0)[site.key].to(self.dtype)
        with torch.no_grad():
            for name, factor in adapter.factors().items():
                factor.copy_(self.tensors[f"param.{names[name]}"])
        return site, adapter

    def attached(
        self,
        way: str,
        roles: Sequence[str],
        config: AdapterConfig,
        options: Mapping[str, Any],
        names: Mapping[str, str],
    ) -> list[LinearAttachment]:
        """Return attachments at linears of one layer that all hold the case's tensors.

        Args:
            way: plain, node or joint, of `every_way`; joint takes all roles, the others one of its own.
            roles: roles that read one input.
            config: their plan.
            options: keys of the method.
            names: factor -> the case's name of it.
        """
        fused = None if way == "plain" else kinds.load(kinds.ADAPTERS, config.method).fused_forward
        attachments = {}
        for role in roles if way == "joint" else ("w2",):
            site, adapter = self.adapter(role, config, options, names)
            attachments[site.key] = LinearAttachment(site, self.linear, adapter, fused)
        share_inputs(attachments, SHARED_INPUT)
        return list(attachments.values())

    def run(self, attachments: Sequence[LinearAttachment]) -> list[Tensor]:
        """Send the case's x and g through the linears and compare outputs and the gradient of x.

        Returns:
            The outputs, (..., D_out) each; gradients of the adapters are in their parameters.
        """
        x = self.tensors["input.x"].clone().requires_grad_()
        outputs = [attachment.linear(x) for attachment in attachments]
        torch.stack([(y * self.tensors["input.g"]).sum() for y in outputs]).sum().backward()
        self.compare(x.grad / len(attachments), self.tensors[f"{self.prefix}.grad.x"])
        for y in outputs:
            self.close(y, "y")
        return outputs


def network_config(case: Path) -> dict[str, Any]:
    """Return the configuration of a case's network."""
    return json.loads((case / "model" / "config.json").read_text())


def is_causal(case: Path) -> bool:
    """Return whether a case's network is a language model."""
    return network_config(case)["architectures"][0].endswith("CausalLM")


def labels(case: Path) -> tuple[str, ...]:
    """Return a classifier's class names in the order of their ids; two where the file leaves them out."""
    named = network_config(case).get("id2label", {"0": "0", "1": "1"})
    return tuple(named[number] for number in sorted(named, key=int))


def backbone(case: Path) -> Backbone:
    """Load a case's network with the head that its architecture names."""
    source = resolve(str(case / "model"), "--load")
    objective = "language_modeling" if is_causal(case) else "classification"
    return load_backbone(source, objective, () if is_causal(case) else labels(case))


def assembled(case: Path, adapter: str, dtype: torch.dtype) -> tuple[Assembled, Any]:
    """Return a case's network with one of its adapters, in a dtype, and its objective."""
    one = assemble(backbone(case), Plans(), case / adapter, 0)
    for module in (one.network, *one.attachments.values()):
        module.to(dtype)
    return one, LanguageModeling() if is_causal(case) else Classification((), len(labels(case)))


def batches(case: Path) -> list[dict[str, Tensor]]:
    """Return a case's batches in order: (B, T) of each input, labels (B) or (B, T)."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(case / "batches.safetensors").items():
        _, number, key = name.split(".")
        found.setdefault(int(number), {})[key] = tensor
    return [found[number] for number in sorted(found)]


def computes_in_float32(case: Path) -> bool:
    """Return whether the network takes norms, or its loss, in float32 whatever its dtype."""
    return is_causal(case) or "rms_norm_eps" in network_config(case)
