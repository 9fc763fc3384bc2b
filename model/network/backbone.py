"""Load the frozen network and its tokenizer, with a head for the objective."""

import contextlib
import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from configs.runtime.faults import Fault, InputFault, SystemFault
from configs.runtime.files import sha256
from configs.runtime.seeds import derive
from configs.schema.options import QUANTIZED_DTYPES
from model.network import source as sources
from model.network.family import Family
from model.network.snapshot import localised, quiet_host
from model.network.trained_modules import initialise, reread, train_only
from model.tensors.weights import assign, load_state_dict_file, require_finite

_LOG = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DEFAULT_TOKENS = 512


@dataclass(frozen=True)
class Backbone:
    """A frozen network with its tokenizer and what a run records about it.

    Args:
        network: the stock network; only `trained_modules` require gradients.
        tokenizer: its tokenizer, with a pad token; None when the source holds none.
        family: the row of paths that fits the network.
        objective: what the head serves.
        new_modules: dotted names of modules whose weights the base lacked (head, pooler); they travel.
        digest: SHA-256 over the base's configuration and weights.
        word: the source as the user wrote it.
        quantizer: the kind that quantizes the layers' frozen linears once adapters are attached, if any.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    family: Family
    objective: str
    new_modules: tuple[str, ...]
    digest: str
    word: str
    quantizer: str | None = None

    @property
    def trained_modules(self) -> tuple[str, ...]:
        """The modules that train and travel: the head, new or loaded, and what the base lacked."""
        heads = self.family.heads[self.objective]
        return (*heads, *(name for name in self.new_modules if name not in heads))


def load_backbone(  # noqa: PLR0913 - flat arguments: all but two are options of the run
    source: sources.Source,
    objective: str,
    labels: Sequence[str] = (),
    *,
    expected: str | None = None,
    pretrained: bool = True,
    seed: int = 0,
    base_dtype: str = "float32",
    attention: str = "auto",
) -> Backbone:
    """Load network and tokenizer; everything is frozen but the head and what the base lacked.

    The global random state is left as it was.

    Args:
        source: what `model.network.source.resolve` returned.
        objective: classification, regression or language_modeling.
        labels: class names in the order of their ids; empty unless classification.
        expected: the FAMILY of `--model`; None takes the family from the network.
        pretrained: load weights, or make them at random from the configuration and the seed.
        seed: the run's seed.
        base_dtype: how frozen weights are stored; trained modules are float32.
        attention: `eager` for plain products; `auto` leaves transformers its choice.

    Raises:
        InputFault: naming the file, tensor or flag.
    """
    sources.check(source, pretrained=pretrained, tokenizer=False)
    with _reading(source), torch.random.fork_rng(devices=[]):
        local = localised(source, pretrained=pretrained)
    sources.check(local, pretrained=pretrained, tokenizer=False)
    family = _family(local, objective, expected)
    config = _config(local, objective, labels)
    quantizer, base_dtype = (base_dtype, "bfloat16") if base_dtype in QUANTIZED_DTYPES else (None, base_dtype)
    with quiet_host(), torch.random.fork_rng(devices=[]), _reading(local):
        if pretrained:
            network, lacking = _pretrained(local, config, family, objective, _DTYPES[base_dtype])
            digest = sources.digest(source if source.kind == "gguf" else local)
        else:
            network, lacking = _random(config, family, objective, seed, _DTYPES[base_dtype])
            digest = _random_digest(local, seed)
        if attention != "auto":
            network.set_attn_implementation(attention)
        tokenizer = _tokenizer(local)
    _set_padding(network, tokenizer, family, source.flag)
    new = tuple(name for name in (*family.heads[objective], *family.optional) if _below(name, lacking))
    backbone = Backbone(network, tokenizer, family, objective, new, digest, source.word, quantizer)
    train_only(network, backbone.trained_modules)
    if pretrained and base_dtype != "float32":
        reread(network, backbone.trained_modules, sources.weight_files(local))
    initialise(network, sorted(lacking), seed)
    return backbone


def with_quantizer(backbone: Backbone, base_dtype: str) -> Backbone:
    """Return the backbone with the quantizer that a word of `--base-dtype` names; none for other words."""
    return replace(backbone, quantizer=base_dtype if base_dtype in QUANTIZED_DTYPES else None)


def load_from_state_dict(backbone: Backbone, path: Path) -> Backbone:
    """Put a plain state dict (`--load-type pt`) into the network, strictly; the base then lacks nothing.

    Raises:
        InputFault: naming the file and every tensor that is missing, unexpected or of the wrong shape.
    """
    network = backbone.network
    tied = getattr(network, "all_tied_weights_keys", None) or {}
    assign(network, load_state_dict_file(path), str(path), allow_missing=tuple(tied))
    digest = hashlib.sha256(f"{backbone.digest} {sha256(path)}".encode()).hexdigest()
    loaded = replace(backbone, new_modules=(), digest=digest)
    train_only(network, loaded.trained_modules)
    return loaded


def max_tokens(backbone: Backbone, wanted: int, *, given: bool) -> int:
    """Return the longest input in tokens that a run uses.

    Args:
        backbone: gives the network's positions and the tokenizer's limit.
        wanted: value of `--max-token-len`; non-positive means the tokenizer's limit.
        given: whether the user wrote it; a default is cut to the network's positions, a wish is not.

    Raises:
        InputFault: when more was asked for than the network has positions.
    """
    positions = backbone.family.positions(backbone.network.config)
    if wanted <= 0:
        limit = positions if backbone.tokenizer is None else backbone.tokenizer.model_max_length
        return min(limit, positions)
    if given and wanted > positions:
        raise InputFault(f"--max-token-len: the network takes at most {positions} tokens, got {wanted}")
    return min(wanted, positions)


def _family(source: sources.Source, objective: str, expected: str | None) -> Family:
    config = sources.peek_config(source)
    family = sources.family_of(config, source)
    if expected is not None and expected != family.name:
        found = f"'{source.word}' is a {family.name} network (model_type {config['model_type']})"
        raise InputFault(f"--model: expects a {expected} network, but {found}")
    if objective not in family.heads:
        served = ", ".join(sorted(family.heads))
        raise InputFault(f"--task: a {family.name} network does not serve {objective}, only {served}")
    return family


def _config(source: sources.Source, objective: str, labels: Sequence[str]) -> PreTrainedConfig:
    with _reading(source):
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)
    if objective == "classification":
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
    elif objective == "regression":
        config.num_labels = 1
        config.problem_type = "regression"
    return config


def _auto_class(objective: str) -> Any:
    return AutoModelForCausalLM if objective == "language_modeling" else AutoModelForSequenceClassification


def _pretrained(
    source: sources.Source, config: PreTrainedConfig, family: Family, objective: str, dtype: torch.dtype
) -> tuple[PreTrainedModel, set[str]]:
    """Return the network with its weights, and the names of the parameters that the base lacks."""
    safetensors = sources.weight_files(source)[0].suffix == ".safetensors"
    network, info = _auto_class(objective).from_pretrained(
        source.path,
        config=config,
        dtype=dtype,
        use_safetensors=safetensors,
        weights_only=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    mismatched = {
        name: f"{name} {tuple(ours)} for {tuple(theirs)}" for name, ours, theirs in info["mismatched_keys"]
    }
    lacking = set(info["missing_keys"]) | set(mismatched)
    spare = (*family.heads[objective], *family.optional)
    lost = sorted(name for name in lacking if not any(_below(module, [name]) for module in spare))
    stray = sorted(name for name in info["unexpected_keys"] if _is_of_a_layer(family, name))
    lines = [
        f"wrong shape: {mismatched[name]}" if name in mismatched else f"missing: {name}" for name in lost
    ]
    lines += [f"unexpected: {name}" for name in stray]
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise InputFault(f"{source.path}: its weights do not fit its config.json: {lines[0]}{more}")
    if mismatched:
        _LOG.warning("the base's head is left out and made anew: %s", ", ".join(mismatched.values()))
    require_finite(
        ((name, value) for name, value in network.named_parameters() if name not in lacking), source.word
    )
    return network, lacking


def _is_of_a_layer(family: Family, name: str) -> bool:
    """Tell whether a weight belongs to a layer, so that leaving it out would change the network."""
    # A base saved without a head has no prefix, hence the path's tail.
    layers = family.layer.format(layer="").partition(".")[2]
    return layers in name and not name.endswith("rotary_emb.inv_freq")


def _random(
    config: PreTrainedConfig, family: Family, objective: str, seed: int, dtype: torch.dtype
) -> tuple[PreTrainedModel, set[str]]:
    """Return a network made from its configuration and the seed, and the names of the head's parameters."""
    torch.manual_seed(derive(seed, "backbone"))
    network = _auto_class(objective).from_config(config, dtype=torch.float32, trust_remote_code=False)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    names = (name for name, _ in network.named_parameters())
    return network.eval(), {name for name in names if any(_below(h, [name]) for h in family.heads[objective])}


def _random_digest(source: sources.Source, seed: int) -> str:
    return hashlib.sha256(f"{sources.digest(source, pretrained=False)} seed {seed}".encode()).hexdigest()


def _tokenizer(source: sources.Source) -> PreTrainedTokenizerBase | None:
    if not any((source.path / name).exists() for name in sources.TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)


def _set_padding(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, family: Family, flag: str
) -> None:
    """Make network and tokenizer agree on the pad token; a decoder without one pads with its end token."""
    config = network.config
    if tokenizer is None:
        ends = config.eos_token_id
        pad = config.pad_token_id
        config.pad_token_id = (ends[0] if isinstance(ends, list) else ends) if pad is None else pad
        return
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pad = tokenizer.pad_token_id
    largest = max(tokenizer.get_vocab().values(), default=0)
    if pad is None or largest >= config.vocab_size:
        what = "has neither a pad nor an end token" if pad is None else f"goes up to id {largest}"
        raise InputFault(f"{flag}: the tokenizer {what}, the network has {config.vocab_size} embeddings")
    if "language_modeling" not in family.heads and pad != config.pad_token_id:
        raise InputFault(f"{flag}: the tokenizer pads with id {pad}, config.json says {config.pad_token_id}")
    config.pad_token_id = pad
    if getattr(network, "generation_config", None) is not None:
        network.generation_config.pad_token_id = pad


def _below(module: str, names: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for name in names)


@contextlib.contextmanager
def _reading(source: sources.Source) -> Iterator[None]:
    """Turn whatever the host raises over a source's files into one line."""
    try:
        yield
    except (Fault, MemoryError):
        raise
    except Exception as error:
        # The host raises anything over damaged files; its longer texts advise to switch protections off.
        if "allocate memory" in str(error):
            raise SystemFault(f"{source.word}: not enough memory") from None
        _LOG.debug("loading %s failed", source.path, exc_info=True)
        what = f"cannot be loaded ({type(error).__name__})"
        raise InputFault(f"{source.flag}: '{source.path}' {what}") from None
