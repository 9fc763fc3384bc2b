"""The tokenizer that another tool saved beside an adapter, compared with the base's, which is used."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from model.network.snapshot import quiet_transformers
from model.network.source import LocalSource
from model.network.tokenizer import load_tokenizer

_PROBES = (
    "The 3 foxes ran 12,345.5 km.",
    "  naïve – ½ 漢字 🦊\n\tdef f(x): return x",
    "<|im_start|>user</s>",
)
_SHOWN = 4
_SPECIAL = ("bos_token", "eos_token")
"""Tokens that begin and end a text; the token of padding changes no result, as it is masked."""


def tokenizer_note(adapter: Path, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
    """Return a line where an adapter's tokenizer is another one than the base's; an equal one needs none.

    Args:
        adapter: its directory.
        tokenizer: the base's, which the run uses.
    """
    source = LocalSource(str(adapter), "--adapter", adapter, "directory")
    try:
        with quiet_transformers():
            own = load_tokenizer(source)
    # Whatever a library cannot read here; the run does not need it.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        return (f"{adapter}: its tokenizer cannot be read ({reason}); the base's is used",)
    if own is None or tokenizer is None:
        return ()
    found = differences(own, tokenizer)
    if not found:
        return ()
    return (f"{adapter}: its tokenizer differs from the base's, which is used: {'; '.join(found)}",)


def differences(own: PreTrainedTokenizerBase, base: PreTrainedTokenizerBase) -> list[str]:
    """Return what an adapter's tokenizer does differently, a phrase each; empty where they agree."""
    mine, theirs = own.get_vocab(), base.get_vocab()
    added = sorted(mine.keys() - theirs.keys(), key=mine.__getitem__)
    missing = sorted(theirs.keys() - mine.keys(), key=theirs.__getitem__)
    moved = [token for token in mine.keys() & theirs.keys() if mine[token] != theirs[token]]
    found = [
        f"{len(tokens):,} tokens {what} ({', '.join(map(repr, tokens[:_SHOWN]))})"
        for tokens, what in ((added, "more"), (missing, "less"), (sorted(moved), "with another id"))
        if tokens
    ]
    for name in _SPECIAL:
        ours, other = getattr(own, name), getattr(base, name)
        if ours != other:
            found.append(f"{name} {ours!r} instead of {other!r}")
    if not found and any(_ids(own, text) != _ids(base, text) for text in _PROBES):
        found.append("it splits text differently")
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids
