"""The stock network of a source: its configuration, and the network with pretrained or random weights."""

import contextlib
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN

from configs.runtime.faults import Fault, InputFault, SystemFault, unknown
from configs.runtime.seeds import derive
from configs.schema.class_names import are_no_names, head_notes, label_order, saved_labels
from model.network.family import Family
from model.network.source import LocalSource, Source
from model.network.source_files import read_config, weight_files
from model.tensors.config_numbers import entries
from model.tensors.weights import require_finite, require_real

_LOG = logging.getLogger(__name__)
_ADVICE = re.compile(
    r"\s(You can|You should|Please|Set |Use |If you|Try |Consider|For more|Errors:)\W.*", re.DOTALL
)
_LONGEST_REASON = 300
_ACTIVATIONS = ("_act", "_activation", "activation_function")
_WORDS = (*_ACTIVATIONS, "_type")
"""Ends of the keys that name a function, or a form."""


@dataclass(frozen=True)
class StockNetwork:
    """A stock network, and notes from its files about its head.

    Args:
        network: the network.
        lacking: names of the parameters that the files lack.
        notes: what is to be known about the base, a line each.
        output: dotted path of the head's last linear, whose rows were put into the order of the labels;
            empty where they were left alone.
        order: for each label, the row it had in the files.
    """

    network: PreTrainedModel
    lacking: set[str]
    notes: tuple[str, ...] = ()
    output: str = ""
    order: tuple[int, ...] = ()


def stock_config(source: LocalSource, objective: str, labels: Sequence[str]) -> PreTrainedConfig:
    """Return the configuration of a source, set for an objective.

    Args:
        source: a saved model's directory.
        objective: classification, regression or language_modeling.
        labels: class names in the order of their ids; used for classification.

    Raises:
        InputFault: when transformers cannot read the configuration or has no activation of its name.
    """
    with loading_faults(source):
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)
    for key, word in vars(config).items():
        if key.endswith(_ACTIVATIONS) and word is not None and str(word) not in ACT2FN:
            fault = unknown("activation", str(word), ACT2FN)
            raise InputFault(f"{source.path / 'config.json'}: {key}: {fault}")
    if objective == "classification" and not (are_no_names(labels) and config.num_labels == len(labels)):
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
    if objective == "classification":
        config.problem_type = "single_label_classification"
    elif objective == "regression":
        config.num_labels = 1
        config.problem_type = "regression"
    return config


def pretrained_network(
    source: LocalSource, config: PreTrainedConfig, family: Family, objective: str, dtype: torch.dtype
) -> StockNetwork:
    """Return a network with the weights of a source.

    Only parameters of the head and of the family's optional modules may be missing. Where the source names
    the classes of its head, the head's rows are put into the order of the configuration's labels.

    Args:
        source: a saved model's directory.
        config: what `stock_config` returned.
        family: the network's family.
        objective: classification, regression or language_modeling.
        dtype: number format of the weights.

    Raises:
        InputFault: when the weights do not fit the configuration, or are not finite.
    """
    for path in weight_files(source):
        if path.suffix != ".safetensors":
            require_real(path)
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
        generation_config=GenerationConfig(),  # so that the base's file is not even read
    )
    network, info = loaded
    lacking = _lacking(info, family, objective, source)
    require_finite(
        ((name, value) for name, value in network.named_parameters() if name not in lacking), source.word
    )
    notes = _untie(network)
    if objective != "classification" or any(has_tensors(head, lacking) for head in family.heads[objective]):
        return StockNetwork(network, lacking, notes)
    saved = read_config(source)
    notes += head_notes(saved, str(config.problem_type))
    return _with_ordered_labels(StockNetwork(network, lacking, notes), saved, family)


def _lacking(info: Mapping[str, Any], family: Family, objective: str, source: LocalSource) -> set[str]:
    """Return the parameters that the files lack: of the head, and of optional modules.

    Raises:
        InputFault: when the weights do not fit the configuration elsewhere.
    """
    mismatched = {
        name: f"{name} {tuple(ours)} for {tuple(theirs)}"
        for name, ours, theirs in sorted(info["mismatched_keys"])
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
    return lacking


def _untie(network: PreTrainedModel) -> tuple[str, ...]:
    """Mark two different embedding tables as untied in the configuration, and return a note."""
    ours, theirs = network.get_input_embeddings(), network.get_output_embeddings()
    if not getattr(network.config, "tie_word_embeddings", False) or theirs is None:
        return ()
    if theirs.weight is ours.weight:
        return ()
    network.config.tie_word_embeddings = False
    return ("config.json of the base ties two embeddings that differ; they are not tied",)


def _with_ordered_labels(loaded: StockNetwork, saved: Mapping[str, Any], family: Family) -> StockNetwork:
    """Put the rows of a loaded head into the order of the labels, or note that the names differ."""
    network = loaded.network
    ours = [str(name) for _, name in sorted((network.config.id2label or {}).items())]
    theirs = saved_labels(saved)
    order = label_order(theirs, ours)
    if order == list(range(len(ours))) or not theirs or are_no_names(theirs) or are_no_names(ours):
        return loaded
    if order is None:
        what = f"the base's head was trained for {', '.join(theirs)}"
        return replace(
            loaded, notes=(*loaded.notes, f"{what}; its rows are used in this order for {', '.join(ours)}")
        )
    output = _output_layer(network, family, len(ours))
    with torch.no_grad():
        for parameter in network.get_submodule(output).parameters():
            parameter.copy_(parameter[order])
    note = f"the rows of the base's head ({', '.join(theirs)}) are reordered by name: {', '.join(ours)}"
    return replace(loaded, notes=(*loaded.notes, note), output=output, order=tuple(order))


def _output_layer(network: PreTrainedModel, family: Family, outputs: int) -> str:
    """Return the path of the last linear of the classification head."""
    heads = family.heads["classification"]
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == outputs
        and any(name == head or name.startswith(f"{head}.") for head in heads)
    ][-1]


def random_network(
    config: PreTrainedConfig, family: Family, objective: str, seed: int, dtype: torch.dtype
) -> StockNetwork:
    """Return a network with random weights; it lacks the parameters of the head.

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
    heads = family.heads[objective]
    return StockNetwork(network, {name for name in names if any(has_tensors(head, [name]) for head in heads)})


def has_tensors(module: str, names: Collection[str]) -> bool:
    """Return whether any of the tensors, by dotted name, is in a module, given by its dotted path."""
    return any(name.startswith(f"{module}.") for name in names)


@contextlib.contextmanager
def loading_faults(source: Source, part: str = "") -> Iterator[None]:
    """Turn any exception that transformers raises over a source's files into one line.

    Args:
        source: where the files are.
        part: what is loaded, for the message, e.g. `the tokenizer of `.

    Raises:
        InputFault: naming flag, path and the reason.
        SystemFault: when the memory does not suffice.
    """
    try:
        yield
    except (Fault, MemoryError):
        raise
    except Exception as error:
        # Damaged files raise any exception.
        if "allocate memory" in str(error):
            raise SystemFault(f"{source.word}: not enough memory") from None
        _LOG.debug("loading %s failed", source.location, exc_info=True)
        reason = _unknown_word(error, source) or _reason(error)
        raise InputFault(f"{source.flag}: {part}'{source.location}' cannot be loaded: {reason}") from None


def _unknown_word(error: Exception, source: Source) -> str | None:
    """Return which key of config.json has a word that transformers does not know, for an error without it."""
    if type(error) is not KeyError or source.kind != "directory":
        return None
    values = entries(read_config(source))
    keys = [key for key, value in values if key.endswith(_WORDS) and str(value) == str(error.args[0])]
    return f"{', '.join(keys)}: transformers knows no {error}" if keys else None


def _reason(error: Exception) -> str:
    """Return the message of a transformers exception, on one line and without its advice.

    Some messages advise to disable safety checks, or to look for the model on the hub.
    """
    if type(error).__name__ == "UnpicklingError":  # its message advises to run the code of the file
        return "its weights are damaged or contain more than tensors"
    text = _ADVICE.sub("", " ".join(str(error).split()))
    text = text[:_LONGEST_REASON] + "..." * (len(text) > _LONGEST_REASON)
    return f"{text} ({type(error).__name__})" if text else type(error).__name__


def _auto_class(objective: str) -> type[AutoModelForCausalLM] | type[AutoModelForSequenceClassification]:
    return AutoModelForCausalLM if objective == "language_modeling" else AutoModelForSequenceClassification


def _belongs_to_a_layer(family: Family, name: str) -> bool:
    """Return whether a tensor belongs to a layer, so that dropping it would change the network."""
    # A base saved without a head has no prefix, hence the path's tail.
    layers = family.layer.format(layer="").partition(".")[2]
    return layers in name and not name.endswith("rotary_emb.inv_freq")
