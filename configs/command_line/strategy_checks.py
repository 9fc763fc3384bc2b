"""What the strategies that share weights or gradients out cannot do; no heavy library is asked."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from configs.schema.options import DEEPSPEED, QUANTIZED_DTYPES, Options

SHARDING = ("fsdp", *DEEPSPEED)
_PRECISIONS = ("32-true", "bf16-mixed")


def faults(action: str | None, options: Options, where: Callable[[str], str]) -> Iterator[str]:
    """Yield what stands against the strategy.

    Args:
        action: the word ACTION, None when it was not readable.
        options: the effective options.
        where: name of an option -> what its refusal begins with.
    """
    word, begin = options.strategy, where("strategy")
    if word not in SHARDING:
        return
    if action == "imp-test":
        # Processes score unequal numbers of batches, and every pass over shards needs all of them.
        what = "gradients" if word == "deepspeed_stage_2" else "weights"
        yield f"{begin}: imp-test needs whole {what}, {word} shards them; did you mean 'ddp'?"
    if action == "train-dyrealloc":
        yield f"{begin}: {word} cannot switch modules while training; did you mean 'ddp'?"
    if options.base_dtype in QUANTIZED_DTYPES:
        base = options.base_dtype
        yield f"{begin}: {word} shards plain weights, not a base in {base}; did you mean 'ddp'?"
    if word in DEEPSPEED:
        yield from _deepspeed(options, where)


def plain(word: str, model: str, where: str) -> Iterator[str]:
    """Yield what stands against the strategy with a plain model.

    Args:
        word: of `--strategy`.
        model: of `--model`.
        where: what the refusal begins with.
    """
    if word == "fsdp":
        yield f"{where}: fsdp shards frozen weights, the plain model '{model}' has none; did you mean 'ddp'?"
    elif word in DEEPSPEED:
        yield f"{where}: {word} is built for adapters, not for the plain model '{model}'; did you mean 'ddp'?"


def _deepspeed(options: Options, where: Callable[[str], str]) -> Iterator[str]:
    word, begin = options.strategy, where("strategy")
    if find_spec("deepspeed") is None:
        yield f"{begin}: '{word}' needs the package deepspeed: pip install deepspeed; did you mean 'fsdp'?"
    if options.precision not in _PRECISIONS:
        allowed = " or ".join(_PRECISIONS)
        yield f"{begin}: '{word}' computes in {allowed}, got --precision {options.precision}"
    if options.compile:
        yield f"{where('compile')}: not together with '{word}'; did you mean --strategy ddp?"
