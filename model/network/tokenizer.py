"""The tokenizer of a source, and the pad token on which it and the network agree."""

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from configs.runtime.faults import InputFault
from model.network.family import Family
from model.network.source import LocalSource
from model.network.source_files import TOKENIZER_FILES


def load_tokenizer(source: LocalSource) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of a saved model's directory; None where it contains none."""
    if not any((source.path / name).exists() for name in TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)


def set_padding(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, family: Family, flag: str
) -> None:
    """Give network and tokenizer the same pad token; a decoder without one pads with its end token.

    Args:
        network: its configuration is changed.
        tokenizer: it gets a pad token; None: the network pads with the id of its own configuration.
        family: the network's family.
        flag: the option that named the network, for messages.

    Raises:
        InputFault: when the tokenizer has neither token, or ids that do not fit the network.
    """
    config = network.config
    if tokenizer is None:
        ends = config.eos_token_id
        if config.pad_token_id is None:
            config.pad_token_id = ends[0] if isinstance(ends, list) else ends
        return
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pad = tokenizer.pad_token_id
    largest = max(tokenizer.get_vocab().values(), default=0)
    if pad is None or largest >= config.vocab_size:
        what = "has neither a pad nor an end token" if pad is None else f"has ids up to {largest}"
        raise InputFault(f"{flag}: the tokenizer {what}, the network has {config.vocab_size} embeddings")
    if "language_modeling" not in family.heads and pad != config.pad_token_id:
        raise InputFault(f"{flag}: the tokenizer pads with id {pad}, config.json says {config.pad_token_id}")
    config.pad_token_id = pad
