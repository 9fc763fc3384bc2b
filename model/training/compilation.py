"""Compile a network layer by layer, in place: the state-dict keys stay stock.

The graph breaks at each adapted linear: the adapter's autograd function is not compiled. The code between
the sites is.
"""

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from configs.runtime.faults import InputFault
from configs.schema.options import Options
from model.injection.attachment import Attachment

_RECOMPILATIONS = 16
"""Per layer: training and evaluation, each for general shapes and for a batch or length of one."""


def check_compiler(options: Options) -> None:
    """Refuse `--compile` on a CPU without a C++ compiler, which torch's generated code needs.

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
    """Compile layers for inputs of any length; at the end they run uncompiled again.

    Args:
        layers: the network's layers; each keeps its class and its parameters' names.
        attachments: the adapters in them, which are not compiled.
    """
    # Each layer counts as a compilation of the same code; beyond the limit layers silently run uncompiled.
    limit = _RECOMPILATIONS * max(1, len(layers))
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=8 * limit):
        for attachment in attachments:
            attachment.wrap_forward(torch.compiler.disable)
        for layer in layers:
            layer.compile(dynamic=True)
        try:
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
            for attachment in attachments:
                attachment.wrap_forward(None)
