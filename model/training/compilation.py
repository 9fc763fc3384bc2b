"""Compile a network layer by layer, in place: the state-dict keys stay stock.

Where an adapter sits the graph ends and begins again behind it: the adapter's node is one of its own kind and
runs as it is. What is compiled are the stretches between the sites.
"""

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from configs.runtime.faults import InputFault
from model.injection.attachment import Attachment

_RECOMPILATIONS = 16
"""Per layer: one for each of training and evaluation, and for shapes with a batch or length of one."""


def check_compiler(options: Any) -> None:
    """Refuse `--compile` where nothing can translate the C++ that torch writes for a CPU.

    Raises:
        InputFault: naming the flag.
    """
    if not options.compile or (torch.cuda.is_available() and options.accelerator != "cpu"):
        return
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise InputFault(f"--compile: needs the C++ compiler {compiler}, which is not on the PATH")


@contextmanager
def compiled(layers: Sequence[nn.Module], attachments: Collection[Attachment]) -> Iterator[None]:
    """Run layers compiled, for inputs of any length; at the end they run as before.

    Args:
        layers: the network's layers; each keeps its class and its parameters' names.
        attachments: what sits in them; they are left out of the compiled code.
    """
    # Each layer counts as a compilation of the same code; beyond the limit layers silently run as before.
    limit = _RECOMPILATIONS * max(1, len(layers))
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=8 * limit):
        for attachment in attachments:
            attachment.surround(torch.compiler.disable)
        for layer in layers:
            layer.compile(dynamic=True)
        try:
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
            for attachment in attachments:
                attachment.surround(None)
