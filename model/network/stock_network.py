"""The stock network of a source: its configuration, and the network with pretrained or random weights."""

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from configs.runtime.faults import Fault, InputFault, SystemFault
from configs.runtime.seeds import derive
from model.network.family import Family
from model.network.source import LocalSource, Source
from model.network.source_files import weight_files
from model.tensors.weights import require_finite

_LOG = logging.getLogger(__name__)


def stock_config(source: LocalSource, objective: str, labels: Sequence[str]) -> PreTrainedConfig:
    """Return the configuration of a source, set for an objective.

    Args:
        source: a saved model's directory.
        objective: classification, regression or language_modeling.
        labels: class names in the order of their ids; used for classification.

    Raises:
        InputFault: when transformers cannot read the configuration.
    """
    with loading_faults(source):
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)
    if objective == "classification":
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
    elif objective == "regression":
        config.num_labels = 1
        config.problem_type = "regression"
    return config


def pretrained_network(
    source: LocalSource, config: PreTrainedConfig, family: Family, objective: str, dtype: torch.dtype
) -> tuple[PreTrainedModel, set[str]]:
    """Return a network with the weights of a source, and the names of the parameters that they lack.

    Only parameters of the head and of the family's optional modules may be missing.

    Args:
        source: a saved model's directory.
        config: what `stock_config` returned.
        family: the network's family.
        objective: classification, regression or language_modeling.
        dtype: number format of the weights.

    Raises:
        InputFault: when the weights do not fit the configuration, or are not finite.
    """
    # typed as the network alone, although it comes with a table here
    loaded: Any = _auto_class(objective).from_pretrained(
        source.path,
        config=config,
        dtype=dtype,
        use_safetensors=weight_files(source)[0].suffix == ".safetensors",
        weights_only=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    network, info = loaded
    mismatched = {
        name: f"{name} {tuple(ours)} for {tuple(theirs)}" for name, ours, theirs in info["mismatched_keys"]
    }
    lacking = set(info["missing_keys"]) | set(mismatched)
    optional = (*family.heads[objective], *family.optional)
    required = sorted(name for name in lacking if not any(has_tensors(part, [name]) for part in optional))
    unexpected = sorted(name for name in info["unexpected_keys"] if _belongs_to_a_layer(family, name))
    faults = [
        f"wrong shape: {mismatched[name]}" if name in mismatched else f"missing: {name}" for name in required
    ]
    faults += [f"unexpected: {name}" for name in unexpected]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputFault(f"{source.path}: its weights do not fit its config.json: {faults[0]}{more}")
    if mismatched:
        _LOG.warning("the base's head is replaced by a new one: %s", ", ".join(mismatched.values()))
    require_finite(
        ((name, value) for name, value in network.named_parameters() if name not in lacking), source.word
    )
    return network, lacking


def random_network(
    config: PreTrainedConfig, family: Family, objective: str, seed: int, dtype: torch.dtype
) -> tuple[PreTrainedModel, set[str]]:
    """Return a network with random weights, and the names of the head's parameters.

    Draws from the global generator, after seeding it.

    Args:
        config: what `stock_config` returned.
        family: the network's family.
        objective: classification, regression or language_modeling.
        seed: the run's seed.
        dtype: number format of the weights, which are drawn in float32.
    """
    torch.manual_seed(derive(seed, "backbone"))
    network: PreTrainedModel = _auto_class(objective).from_config(
        config, dtype=torch.float32, trust_remote_code=False
    )
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    network.eval()
    names = (name for name, _ in network.named_parameters())
    return network, {name for name in names if any(has_tensors(h, [name]) for h in family.heads[objective])}


def has_tensors(module: str, names: Collection[str]) -> bool:
    """Tell whether any of the tensors, given by dotted names, lies in a module, given by its dotted path."""
    return any(name.startswith(f"{module}.") for name in names)


@contextlib.contextmanager
def loading_faults(source: Source) -> Iterator[None]:
    """Turn any exception that transformers raises over a source's files into one line.

    Raises:
        InputFault: naming flag, path and the exception's class.
        SystemFault: when the memory does not suffice.
    """
    try:
        yield
    except (Fault, MemoryError):
        raise
    except Exception as error:
        # Damaged files raise any exception; the longer messages advise to disable safety checks.
        if "allocate memory" in str(error):
            raise SystemFault(f"{source.word}: not enough memory") from None
        _LOG.debug("loading %s failed", source.location, exc_info=True)
        what = f"cannot be loaded ({type(error).__name__})"
        raise InputFault(f"{source.flag}: '{source.location}' {what}") from None


def _auto_class(objective: str) -> type[AutoModelForCausalLM] | type[AutoModelForSequenceClassification]:
    return AutoModelForCausalLM if objective == "language_modeling" else AutoModelForSequenceClassification


def _belongs_to_a_layer(family: Family, name: str) -> bool:
    """Tell whether a tensor belongs to a layer, so that dropping it would change the network."""
    # A base saved without a head has no prefix, hence the path's tail.
    layers = family.layer.format(layer="").partition(".")[2]
    return layers in name and not name.endswith("rotary_emb.inv_freq")
