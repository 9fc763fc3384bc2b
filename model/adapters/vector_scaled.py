"""A low-rank delta whose two matrices may be frozen while two vectors scale what passes between them.

With A (R, D_in), B (D_out, R), v_d (R), v_b (D_out) and a plain number s, `*` element by element:

    delta = s v_b * (B (v_d * (A drop(x))))             (..., D_in) -> (..., D_out)

It is one matrix, s diag(v_b) B diag(v_d) A, so a LoRA of the same effect always exists. B is stored
transposed, (R, D_out), as in `model.adapters.methods.lora`.

Source: AFLoRA (`model.adapters.methods.aflora`) and VeRA (`model.adapters.methods.vera`).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, LoraForm, PlannedSite
from model.adapters.drawn_matrices import DrawnMatrices
from model.adapters.initialisation import kaiming_uniform_

MATRICES = ("A", "B")
"""The factors that may stop training; the vectors always train."""


class VectorScaled(Adapter):
    """Two thin matrices and two vectors at one linear.

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R, at least 1.
        alpha: the configuration's scaling constant; recorded, and part of `scale` or not.
        dropout: probability that an input feature is set to zero before A.
        scale: s.

    Attributes:
        options: the kind's own keys that it was built with.
        origin: (2), the seed that A and B are drawn from and their checksum, where they are; else None.
    """

    options: Any = None  # each kind has a dataclass of its own
    origin: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, *, rank: int, alpha: float, dropout: float, scale: float
    ) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.scale = scale
        self._purposes: Mapping[str, str] = {}
        self._matrices = DrawnMatrices()
        self.A = nn.Parameter(torch.zeros(rank, in_features))
        self.B = nn.Parameter(torch.zeros(rank, out_features))  # the transpose of the paper's B
        self.d = nn.Parameter(torch.zeros(rank))
        self.b = nn.Parameter(torch.zeros(out_features))
        self.register_buffer("origin", None)

    def reset(self, source: torch.Generator, *, initial_d: float, random_b: bool) -> None:
        """Draw A, then B, Kaiming uniform (a = 0); set the vectors as `reset_vectors` does.

        Args:
            source: the site's generator.
            initial_d: every number of v_d.
            random_b: draw v_b too, from U(-1, 1), so that the delta is not zero.
        """
        kaiming_uniform_(self.A, self.A.shape[1], source, a_squared=0)
        kaiming_uniform_(self.B, self.rank, source, a_squared=0)
        self.reset_vectors(source, initial_d=initial_d, random_b=random_b)

    def reset_vectors(self, source: torch.Generator, *, initial_d: float, random_b: bool) -> None:
        """Set v_d to a number and v_b to zero, or to random numbers; the arguments are those of `reset`."""
        with torch.no_grad():
            self.d.fill_(initial_d)
            self.b.zero_()
            if random_b:
                self.b.copy_(torch.empty(self.b.shape).uniform_(-1, 1, generator=source))

    def draw(self, seed: int, purposes: Mapping[str, str], matrices: DrawnMatrices) -> None:
        """Fill A and B from a seed; from then on the state holds that seed and no matrix.

        Args:
            seed: the run's seed.
            purposes: "A" and "B" -> the words that name their generators.
            matrices: those of the build, which sites may share.
        """
        self._purposes, self._matrices = dict(purposes), matrices
        self.origin = self._filled(seed)

    def _filled(self, seed: int) -> Tensor:
        """Draw A and B; return the seed and a checksum of both: (2), int64."""
        self._matrices.fill(self._purposes["A"], self.A, self.A.shape[1], seed)
        self._matrices.fill(self._purposes["B"], self.B, self.rank, seed)
        return torch.tensor([seed, self._matrices.checksum(self._purposes["A"], self._purposes["B"])])

    def matrix(self, name: str) -> Tensor:
        """Return A or B as a forward pass reads it: without a gradient once it is frozen."""
        value = getattr(self, name)
        return value.detach() if name in self.frozen else value

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        z = F.linear(F.dropout(x, self.dropout, self.training), self.matrix("A").to(x.dtype))  # (..., R)
        z = z * (self.d * self.scale).to(z.dtype)
        return (z @ self.matrix("B").to(z.dtype)) * self.b.to(z.dtype)

    def factors(self) -> dict[str, Tensor]:
        """Return A (R, D_in), B (D_out, R), v_d as d (R) and v_b as b (D_out)."""
        return {"A": self.A, "B": self.B.t(), "d": self.d, "b": self.b}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return v_b; B is random from the start."""
        return ("b",)

    def up(self) -> Tensor:
        """Return s diag(v_b) B diag(v_d): (D_out, R)."""
        return (self.B * (self.scale * self.d).unsqueeze(1) * self.b).t()

    def merged_delta(self) -> Tensor:
        """Return s diag(v_b) B diag(v_d) A: (D_out, D_in)."""
        return self.up() @ self.A

    def export(self) -> LoraForm:
        """Return the LoRA of the same effect: A (R, D_in), B (D_out, R), scale 1."""
        return self.A, self.up(), 1.0

    def load(self, a: Tensor, b: Tensor, scale: float) -> None:
        """Take a LoRA; both vectors become one.

        Args:
            a: (R, D_in).
            b: (D_out, R).
            scale: alpha / R of the file.
        """
        with torch.no_grad():
            self.A.copy_(a)
            self.B.copy_(b.t() * (scale / self.scale))
            self.d.fill_(1.0)
            self.b.fill_(1.0)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.origin is not None:
            for name in MATRICES:
                del destination[prefix + name]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if self.origin is not None:
            origin = state_dict.get(f"{prefix}origin", self.origin)
            seed = int(origin[0])
            if not torch.equal(origin.cpu(), self.origin.cpu()):
                self.origin.copy_(self._filled(seed))
            if not torch.equal(origin.cpu(), self.origin.cpu()):
                raise ValueError(
                    f"{prefix}origin: seed {seed} draws other matrices here than where it was saved"
                )
            state_dict = {**state_dict, **{prefix + name: getattr(self, name) for name in MATRICES}}
        super()._load_from_state_dict(state_dict, prefix, *rest)


def build_vector_scaled(planned: PlannedSite) -> VectorScaled:
    """Return the adapter that a site's plan asks for, with the options it is made from, before its start."""
    site, config, options = planned.site, planned.config, planned.options
    adapter = VectorScaled(
        site.in_features,
        site.out_features,
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        scale=config.alpha / config.rank if options.scaling == "alpha_over_r" else 1.0,
    )
    adapter.options = options
    return adapter
