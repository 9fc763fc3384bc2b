"""The backbone of a run: the frozen stock network with a head for the objective, and its tokenizer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.runtime.faults import InputFault
from configs.runtime.files import sha256
from configs.schema.options import QUANTIZED_DTYPES
from model.network.family import Family
from model.network.generation_settings import old_settings, plain_settings, read_settings, unused_settings
from model.network.snapshot import local_copy, quiet_transformers
from model.network.source import LocalSource, Source
from model.network.source_files import (
    check_source,
    digest_of,
    family_of,
    read_config,
    require_memory,
    weight_files,
)
from model.network.stock_network import (
    StockNetwork,
    has_tensors,
    loading_faults,
    pretrained_network,
    random_network,
    stock_config,
)
from model.network.tokenizer import load_tokenizer, set_padding
from model.network.trained_modules import initialise, restore_precision, train_only
from model.tensors.weights import assign, load_state_dict_file

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Backbone:
    """A frozen network with its tokenizer, and the facts that a run records about it.

    Args:
        network: the stock network; only `trained_modules` require gradients.
        tokenizer: its tokenizer, with a pad token; None when the source contains none.
        family: the network's family.
        objective: classification, regression or language_modeling.
        new_modules: dotted paths of modules (head, pooler) that are new, as the base has no weights for them.
        digest: SHA-256 over the base's configuration and weights, in hexadecimal.
        word: the source as the user wrote it.
        files: its local directory: the given one, a snapshot of the hub, or the conversion of a GGUF file.
        quantizer: the kind that quantizes the layers' frozen linears once adapters are attached, if any.
        settings: the base's generation_config.json, which is not followed; None where it has none.
        notes: what is to be known about the base, a line each.
        output: dotted path of the head's linear whose rows were reordered by class name; empty: none.
        order: for each class, the row it has in the base's files.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    family: Family
    objective: str
    new_modules: tuple[str, ...]
    digest: str
    word: str
    files: LocalSource
    quantizer: str | None = None
    settings: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    output: str = ""
    order: tuple[int, ...] = ()

    @property
    def trained_modules(self) -> tuple[str, ...]:
        """Modules trained and exported with the adapter: the head, new or loaded, and other new modules."""
        heads = self.family.heads[self.objective]
        return (*heads, *(name for name in self.new_modules if name not in heads))


def load_backbone(  # noqa: PLR0913 - flat arguments: all but two are options of the run
    source: Source,
    objective: str,
    labels: Sequence[str] = (),
    *,
    expected: str | None = None,
    pretrained: bool = True,
    seed: int = 0,
    base_dtype: str = "float32",
    attention: str = "auto",
) -> Backbone:
    """Load network and tokenizer; only the head and modules that the base lacks stay trainable.

    The global random state is restored.

    Args:
        source: where the network comes from.
        objective: classification, regression or language_modeling.
        labels: class names in the order of their ids; empty for other objectives.
        expected: the FAMILY of `--model`; None: any family.
        pretrained: whether to load weights, or to draw them at random.
        seed: the run's seed.
        base_dtype: number format of the frozen weights (`--base-dtype`); trained modules are float32.
        attention: `eager` for plain matrix products; `auto` leaves the choice to transformers.

    Raises:
        InputFault: naming the file, tensor or flag.
        SystemFault: when the hub cannot be reached, or the memory or the cache does not suffice.
    """
    check_source(source, pretrained=pretrained, tokenizer=False)
    with loading_faults(source), torch.random.fork_rng(devices=[]):
        local = local_copy(source, pretrained=pretrained)
    check_source(local, pretrained=pretrained, tokenizer=False)
    require_memory(local)
    family = _family(local, objective, expected)
    config = stock_config(local, objective, labels)
    quantizer, base_dtype = (base_dtype, "bfloat16") if base_dtype in QUANTIZED_DTYPES else (None, base_dtype)
    with quiet_transformers(), torch.random.fork_rng(devices=[]), loading_faults(local):
        if pretrained:
            loaded = pretrained_network(local, config, family, objective, _DTYPES[base_dtype])
            digest = digest_of(source if source.kind == "gguf" else local)
        else:
            loaded = random_network(config, family, objective, seed, _DTYPES[base_dtype])
            digest = _hash(f"{digest_of(local, pretrained=False)} seed {seed}")
        if attention != "auto":
            loaded.network.set_attn_implementation(attention)
        with loading_faults(local, "the tokenizer of "):
            tokenizer = load_tokenizer(local)
    network, lacking = loaded.network, loaded.lacking
    set_padding(network, tokenizer, family, source.flag)
    new = tuple(name for name in (*family.heads[objective], *family.optional) if has_tensors(name, lacking))
    backbone = Backbone(network, tokenizer, family, objective, new, digest, source.word, local, quantizer)
    backbone = _with_settings(backbone, local, loaded)
    train_only(network, backbone.trained_modules)
    if pretrained and base_dtype != "float32":
        restore_precision(network, backbone.trained_modules, weight_files(local))
    initialise(network, sorted(lacking), seed)
    return backbone


def _with_settings(backbone: Backbone, local: LocalSource, loaded: StockNetwork) -> Backbone:
    """Return the backbone with plain settings for decoding, and with the notes about its files."""
    plain_settings(backbone.network)
    notes, settings = loaded.notes, None
    if backbone.objective == "language_modeling":
        settings = read_settings(local.path)
        unused = unused_settings(settings, backbone.tokenizer)
        old = unused_settings(old_settings(read_config(local)), backbone.tokenizer, "config.json")
        notes += tuple(note for note in (unused, old) if note is not None)
    return replace(backbone, settings=settings, notes=notes, output=loaded.output, order=loaded.order)


def with_quantizer(backbone: Backbone, base_dtype: str) -> Backbone:
    """Return the backbone with the quantizer that a word of `--base-dtype` names; none for other words."""
    return replace(backbone, quantizer=base_dtype if base_dtype in QUANTIZED_DTYPES else None)


def load_from_state_dict(backbone: Backbone, path: Path) -> Backbone:
    """Load a plain state dict (`--load-type pt`) into the network; it must have every tensor.

    Returns:
        the backbone without new modules, with another digest.

    Raises:
        InputFault: naming the file and every tensor that is missing, unexpected or of the wrong shape.
    """
    network = backbone.network
    tied = getattr(network, "all_tied_weights_keys", None) or {}
    assign(network, load_state_dict_file(path), str(path), allow_missing=tuple(tied))
    digest = _hash(f"{backbone.digest} {sha256(path)}")
    loaded = replace(backbone, new_modules=(), digest=digest)
    train_only(network, loaded.trained_modules)
    return loaded


def max_tokens(backbone: Backbone, wanted: int, *, given: bool) -> int:
    """Return the greatest length of an input, in tokens.

    Args:
        backbone: of which the network's positions and the tokenizer's limit are read.
        wanted: value of `--max-token-len`; 0 or less: the tokenizer's limit.
        given: whether the user gave it; only a default is reduced to the network's positions.

    Raises:
        InputFault: when the user gave more than the network has positions.
    """
    positions = backbone.family.positions(backbone.network.config)
    if wanted <= 0:
        limit = positions if backbone.tokenizer is None else backbone.tokenizer.model_max_length
        return min(limit, positions)
    if given and wanted > positions:
        raise InputFault(f"--max-token-len: the network takes at most {positions} tokens, got {wanted}")
    return min(wanted, positions)


def _family(source: LocalSource, objective: str, expected: str | None) -> Family:
    config = read_config(source)
    family = family_of(config, source)
    if expected is not None and expected != family.name:
        found = f"'{source.word}' is a {family.name} network (model_type {config['model_type']})"
        raise InputFault(f"--model: expects a {expected} network, but {found}")
    if objective not in family.heads:
        served = ", ".join(sorted(family.heads))
        raise InputFault(f"--task: a {family.name} network does not serve {objective}, only {served}")
    return family


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
