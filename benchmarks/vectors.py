"""A SmolLM2 layer's seven linears with AFLoRA or VeRA, as rows 9 and 10 measure them."""

from collections.abc import Callable
from typing import Any

import peft
import torch

from benchmarks.hosts import BLOCK, Block, block_step, trained
from configs.runtime import kinds
from model.adapters.adapter import PlannedSite
from model.adapters.vector_scaled import MATRICES
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.plan.adapter_config import AdapterConfig
from model.site import SHARED_INPUT, Site, SiteKey

TOKENS = 512


def ours(
    method: str,
    rank: int,
    *,
    still: bool = False,
    plain: bool = False,
    autocast: torch.dtype | None = None,
    **keys: Any,
) -> Callable[[], None]:
    """Return the block's step with adapters of a kind.

    Args:
        method: aflora or vera.
        rank: R.
        still: the matrices that train at first are frozen.
        plain: add each delta to the stock output by plain autograd.
        autocast: the precision's type.
        keys: the method's own.
    """
    block, kind = Block(), kinds.load(kinds.ADAPTERS, method)
    config = AdapterConfig(rank, float(rank), 0.0, "default", disabled=False, method=method)
    planned = [
        PlannedSite(Site(SiteKey(0, role), role, *widths), config, kind.options(**keys))
        for role, widths in BLOCK.items()
    ]
    attachments = {}
    for key, adapter in kind.build(planned, 0).items():
        with torch.no_grad():
            adapter.b.fill_(0.1)
        if still:
            adapter.frozen.update(MATRICES)
        site = next(one.site for one in planned if one.site.key == key)
        attachments[key] = LinearAttachment(
            site, getattr(block, key.role), adapter, None if plain else kind.fused_forward
        )
    share_inputs(attachments, SHARED_INPUT)
    return block_step(block, trained(block, attachments), torch.randn(TOKENS, 576), autocast)


def floor(autocast: torch.dtype | None = None) -> Callable[[], None]:
    """Return the step of the block without adapters."""
    return block_step(Block(), [], torch.randn(TOKENS, 576), autocast)


def theirs(rank: int, autocast: torch.dtype | None = None) -> Callable[[], None]:
    """Return the step of the block with PEFT's VeRA."""
    config = peft.VeraConfig(r=rank, target_modules=list(BLOCK), vera_dropout=0.0, d_initial=0.1)
    model = peft.get_peft_model(Block(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vera_lambda_b" in name:
                parameter.fill_(0.1)
    return block_step(model, trained(model), torch.randn(TOKENS, 576), autocast)
