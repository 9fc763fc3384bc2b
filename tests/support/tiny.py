"""Tiny random-weight hosts, a byte tokenizer and learnable rows: everything an offline test needs."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from configs.runtime import kinds
from configs.runtime.seeds import derive
from model.network.family import Family
from model.network.snapshot import quiet_transformers

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""Ids 0 to 4; ids 5 to 260 are the bytes."""


def byte_tokenizer(
    *, encoder: bool = False, segments: bool = False, limit: int = 128
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token a byte, 261 in all.

    Args:
        encoder: close texts with `</s>` and use it between pairs; otherwise only begin them with `<s>`.
        segments: mark the second text of a pair with token type 1, as BERT wants it.
        limit: `model_max_length`.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate((*SPECIAL_TOKENS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL_TOKENS])
    second = int(segments)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if encoder else "<s> $A",
        pair=f"<s> $A </s> $B:{second} </s>:{second}" if encoder else "<s> $A $B",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if segments else ["input_ids", "attention_mask"]
    roles = dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=limit,
        model_input_names=names,
        cls_token="<s>" if encoder else None,
        sep_token="</s>" if encoder else None,
        **roles,
    )


def tokenizer_for(family: Family) -> PreTrainedTokenizerFast:
    """Return the byte tokenizer in the manner of a family."""
    encoder = "language_modeling" not in family.heads
    return byte_tokenizer(encoder=encoder, segments=encoder and "type_vocab_size" not in family.tiny)


def tiny_config(family: Family, **overrides: Any) -> Any:
    """Return a family's tiny configuration, its special ids those of the byte tokenizer.

    Args:
        family: gives the keys; its first `model_type` is taken if no other is among the overrides.
        overrides: keys that take the place of the family's.
    """
    ids = dict(bos_token_id=0, pad_token_id=1, eos_token_id=2)
    keys = {"model_type": family.model_types[0], **family.tiny, **ids, **overrides}
    return AutoConfig.for_model(keys.pop("model_type"), **keys)


def tiny_network(family: Family, auto_class: Any, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Return a random network of an auto class in evaluation mode; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "tiny", family.name))
        return auto_class.from_config(tiny_config(family, **overrides)).eval()


def save_host(family: str, directory: Path, *, seed: int = 0, **config_overrides: Any) -> Path:
    """Save a tiny base model with its tokenizer: decoders as language models, encoders without a head."""
    row = kinds.load(kinds.FAMILIES, family)
    auto_class = AutoModelForCausalLM if "language_modeling" in row.heads else AutoModel
    directory.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        tiny_network(row, auto_class, seed=seed, **config_overrides).save_pretrained(directory)
        tokenizer_for(row).save_pretrained(directory)
    return directory


def rte_rows(count: int, *, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return (sentence1, sentence2, label) rows; a denied second sentence is never entailed."""
    choose = random.Random(seed)
    things, places = ("cat", "dog", "bird", "fox"), ("house", "tree", "field")
    rows = []
    for number in range(count):
        thing, place = choose.choice(things), choose.choice(places)
        denied = number % 2 == 1
        second = f"No {thing}!" if denied else f"A {thing}."
        rows.append((f"The {thing} is in the {place}.", second, "not_entailment" if denied else "entailment"))
    return rows


def write_rte(directory: Path, *, train: int = 32, dev: int = 8, test: int = 4, seed: int = 0) -> Path:
    """Write train.tsv, dev.tsv and test.tsv in the official layout of RTE; the test file has no labels."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, (name, count) in enumerate({"train": train, "dev": dev, "test": test}.items()):
        columns = 3 if name == "test" else 4
        header = ("index", "sentence1", "sentence2", "label")[:columns]
        rows = [(str(i), *row)[:columns] for i, row in enumerate(rte_rows(count, seed=derive(seed, split)))]
        lines = ["\t".join(cells) for cells in (header, *rows)]
        (directory / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def gsm8k_rows(count: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Return question and answer rows in the manner of GSM8K, with small sums."""
    choose = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = choose.randint(1, 4), choose.randint(1, 4)
        answer = f"He has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} pens.\n#### {a + b}"
        rows.append({"question": f"Tom has {a} pens and gets {b}. How many?", "answer": answer})
    return rows


def write_gsm8k(directory: Path, *, train: int = 40, test: int = 4, seed: int = 0) -> Path:
    """Write train.jsonl and test.jsonl in the official layout of GSM8K."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, (name, count) in enumerate({"train": train, "test": test}.items()):
        lines = [json.dumps(row) for row in gsm8k_rows(count, seed=derive(seed, split))]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory
