"""The tensors of a batch: their names, shapes, types, padding and readers, for all that makes or reads them.

`dataset` makes batches and `model` reads them; neither imports the other. A further input, such as the pixel
values of images, is one more entry of `KEYS`: collation stacks or pads it, and the network is called with it.
"""

from dataclasses import dataclass
from typing import Literal

IGNORE_INDEX = -100
"""Label of a position that is no target; the `ignore_index` of the cross-entropy of PyTorch."""
Reader = Literal["network", "objective", "learner"]
"""Who reads a tensor: the network as an argument of its forward pass, loss and metrics, or the learner."""


@dataclass(frozen=True)
class BatchKey:
    """One tensor of a batch.

    Args:
        name: its key.
        shapes: the shapes it may have: B examples, T tokens of the batch's longest example, D the width of
            the network's embeddings, a number for itself.
        dtypes: the types it may have, as PyTorch names them.
        read_by: who reads it.
        padding: value of the positions after (or before) a shorter example's tokens, `pad_id` for that of
            the tokenizer; None for a tensor that has one shape for all examples and is stacked.
    """

    name: str
    shapes: tuple[tuple[str, ...], ...]
    dtypes: tuple[str, ...]
    read_by: Reader
    padding: int | Literal["pad_id"] | None = None


KEYS = (
    BatchKey("input_ids", (("B", "T"),), ("int64",), "network", padding="pad_id"),
    # In place of input_ids where a saliency measure needs inputs that are no tokens (SynFlow).
    BatchKey("inputs_embeds", (("B", "T", "D"),), ("float64", "float32", "bfloat16", "float16"), "network"),
    # 1 for a token, 0 for padding; made from the examples' lengths.
    BatchKey("attention_mask", (("B", "T"),), ("int64",), "network", padding=0),
    BatchKey("token_type_ids", (("B", "T"),), ("int64",), "network", padding=0),
    # The class, the value (float32), the number of the right letter (-1: none), or each position's target.
    BatchKey("labels", (("B",), ("B", "T")), ("int64", "float32"), "objective", padding=IGNORE_INDEX),
    # The example's number in its split, of examples that are predicted or answered by generation.
    BatchKey("index", (("B",),), ("int64",), "learner"),
    # Multiple choice: token ids of the four letters, and the number of the subject's group.
    BatchKey("letters", (("B", "4"),), ("int64",), "objective"),
    BatchKey("group", (("B",),), ("int64",), "objective"),
)
"""Every tensor that a batch may hold."""
NETWORK_INPUTS = tuple(key.name for key in KEYS if key.read_by == "network")
"""Keys that the network is called with."""
