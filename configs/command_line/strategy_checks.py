"""The limits of the strategies that shard weights or gradients; imports no heavy library."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from configs.schema.options import DEEPSPEED, QUANTIZED_DTYPES, Options

SHARDING = ("fsdp", *DEEPSPEED)
_PRECISIONS = ("32-true", "bf16-mixed")


def faults(action: str | None, options: Options, where: Callable[[str], str]) -> Iterator[str]:
    """Yield the reasons why the strategy cannot be used.

    Args:
        action: ACTION; None when it is missing or unknown.
        options: the effective options.
        where: name of an option -> the beginning of messages about it.
    """
    word, begin = options.strategy, where("strategy")
    if word not in SHARDING:
        return
    if action == "imp-test":
        # Processes score unequal numbers of batches, but every pass over shards needs all processes.
        what = "gradients" if word == "deepspeed_stage_2" else "weights"
        yield f"{begin}: imp-test needs unsharded {what}, but {word} shards them; did you mean 'ddp'?"
    if action == "train-dyrealloc":
        yield f"{begin}: {word} cannot switch modules while training; did you mean 'ddp'?"
    if options.base_dtype in QUANTIZED_DTYPES:
        base = options.base_dtype
        yield f"{begin}: {word} cannot shard a base in {base}; did you mean 'ddp'?"
    if word in DEEPSPEED:
        yield from _deepspeed(options, where)


def plain(word: str, model: str, where: str) -> Iterator[str]:
    """Yield the reasons why the strategy cannot be used with a plain model.

    Args:
        word: the value of `--strategy`.
        model: the value of `--model`.
        where: the beginning of the message.
    """
    if word == "fsdp":
        yield f"{where}: fsdp shards frozen weights, which a plain model '{model}' lacks; did you mean 'ddp'?"
    elif word in DEEPSPEED:
        yield f"{where}: {word} supports adapters only, not the plain model '{model}'; did you mean 'ddp'?"


def _deepspeed(options: Options, where: Callable[[str], str]) -> Iterator[str]:
    word, begin = options.strategy, where("strategy")
    if find_spec("deepspeed") is None:
        yield f"{begin}: '{word}' needs the package deepspeed: pip install deepspeed; did you mean 'fsdp'?"
    if options.precision not in _PRECISIONS:
        allowed = " or ".join(_PRECISIONS)
        yield f"{begin}: '{word}' needs --precision {allowed}, got {options.precision}"
    if options.compile:
        yield f"{where('compile')}: cannot be combined with '{word}'; did you mean --strategy ddp?"
