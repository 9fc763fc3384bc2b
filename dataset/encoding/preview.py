"""Show an example as it is learned."""

from collections.abc import Sequence
from typing import Any

from dataset.encoding.encode import Encoded


def preview(encoded: Encoded, index: int, tokenizer: Any, labels: Sequence[str] = ()) -> str:
    """Show one example as it is learned: targets stand between `[[` and `]]`, a class after `->`.

    Args:
        encoded: the split.
        index: the example.
        tokenizer: what the split was encoded with.
        labels: class names by id.
    """
    item = encoded[index]
    ids = item["input_ids"].tolist()
    if encoded.borders is None:
        if encoded.labels is None:
            return tokenizer.decode(ids)
        value = encoded.labels[index].item()
        return f"{tokenizer.decode(ids)} -> [[{labels[int(value)] if labels else value}]]"
    border = int(encoded.borders[index])
    learned = f"[[{tokenizer.decode(ids[border:])}]]" if encoded.purpose == "learn" else ""
    return f"{tokenizer.decode(ids[:border])}{learned}"
