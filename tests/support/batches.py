"""Check a batch against the table of its keys."""

from collections.abc import Mapping

from torch import Tensor

from configs.schema.batch_keys import KEYS


def check_batch(batch: Mapping[str, Tensor]) -> None:
    """Fail unless every tensor of a batch has the name, shape and type that the table gives it."""
    keys = {key.name: key for key in KEYS}
    assert set(batch) <= set(keys)
    assert {"input_ids", "attention_mask"} <= set(batch)
    sizes = dict(zip(("B", "T"), map(str, batch["input_ids"].shape)))
    for name, tensor in batch.items():
        allowed = [[sizes.get(size, size) for size in shape] for shape in keys[name].shapes]
        assert list(map(str, tensor.shape)) in allowed, name
        assert str(tensor.dtype).removeprefix("torch.") in keys[name].dtypes, name
