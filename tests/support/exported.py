"""Tiny hosts with adapters that are written in PEFT's format: what the tests of both directions share."""

import json

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import collect, export, logits
from model.exchange.peft_format import TENSORS
from model.injection.attach import attach, locate
from model.network.backbone import load_backbone
from model.network.family import dimensions
from model.network.snapshot import quiet_transformers
from model.network.source import resolve
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import projection_config
from model.site import HEAD_ROLES

LABELS = ("a", "b", "c")
HOSTS = {
    "opt": ("opt", {}),
    "opt_post": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "roberta": ("roberta", {}),
    "bert": ("bert", {}),
    "llama": ("llama", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma", {"model_type": "gemma2"}),
    "gemma3": ("gemma", {"model_type": "gemma3_text"}),
    "qwen2": ("qwen2", {}),
    "mistral": ("mistral", {}),
    "deberta_v2": ("deberta", {"share_att_key": False, "position_biased_input": True}),
    "deberta_v3": ("deberta", {}),
}
ENCODERS = ("roberta", "bert", "deberta_v2", "deberta_v3")
CASES = [(host, "classification") for host in HOSTS] + [
    (host, "language_modeling") for host in HOSTS if host not in ENCODERS
]
TASK_TYPES = {"classification": "SEQ_CLS", "language_modeling": "CAUSAL_LM"}


def load_host(directory, objective="classification", seed=0):
    labels = LABELS if objective == "classification" else ()
    return load_backbone(resolve(str(directory), "--load"), objective, labels, seed=seed)


def stock(directory, objective):
    """The host as a user of transformers loads it; its new head is another one than ours."""
    with quiet_transformers():
        if objective == "classification":
            network = AutoModelForSequenceClassification.from_pretrained(
                directory, num_labels=len(LABELS), pad_token_id=1
            )
        else:
            network = AutoModelForCausalLM.from_pretrained(directory)
    return network.eval()


def adapter_config(**changes):
    plain = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "adapter_name": "default", "disabled": False}
    return AdapterConfig(**plain | {"init": False} | changes)


def adapter_configs(sites, manner):
    """Plan every site alike, or each with its own rank, alpha and strength and some of them off."""
    if manner == "uniform":
        return dict.fromkeys(sites, adapter_config())
    if manner == "strength":
        return dict.fromkeys(sites, adapter_config(importance=-0.5))
    if manner == "heads":
        return {
            key: of_heads(n) if key.role in HEAD_ROLES else adapter_config() for n, key in enumerate(sites)
        }
    return {
        key: adapter_config(
            rank=1 + n % 5, alpha=1.0 + n % 3, importance=(1.0, 0.25, -2.0)[n % 3], disabled=n % 7 == 0
        )
        for n, key in enumerate(sites)
    }


def of_heads(number):
    """Plan two heads: every tiny host has a multiple of two at every projection."""
    one = adapter_config(rank=1 + number % 3, alpha=3.0)
    return projection_config([one, adapter_config(rank=number % 2, importance=-0.5)])


def batch(length=9):
    ids = torch.arange(5, 5 + 3 * length).view(3, length)
    mask = torch.ones(3, length, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


def attached(backbone, manner="uniform"):
    sites = locate(backbone.network, backbone.family, dimensions(backbone.network.config).layers)
    configs = adapter_configs(sites, manner)
    return attach(backbone.network, sites, configs, 0, "plan"), dict.fromkeys(configs, "lora")


def export_adapter(backbone, attachments, methods, directory, **metadata):
    adapter = collect(backbone.network, attachments, methods, backbone.trained_modules, metadata)
    facts = {"task_type": TASK_TYPES[backbone.objective], "base": "base", "dropout": 0.0}
    return export(directory, adapter, backbone.network, attachments, batch(), **facts)


def copied(exported, target, *, config=None, tensors=None):
    """Copy an adapter without its digest, with changes."""
    target.mkdir()
    content = load_file(exported / TENSORS) | (tensors or {})
    save_file({k: v.contiguous() for k, v in content.items() if v is not None}, target / TENSORS)
    text = json.loads((exported / "adapter_config.json").read_text()) | (config or {})
    (target / "adapter_config.json").write_text(json.dumps(text))
    return target


def moved(network):
    """Give every trainable tensor another value, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def saved_by_peft(directory, host, objective, config):
    """Let PEFT save an adapter of a host, and return its logits."""
    with quiet_transformers():
        theirs = moved(peft.get_peft_model(stock(host, objective), config))
        theirs.save_pretrained(directory)
    return logits(theirs, batch())


def load_adapter_of_peft(directory, host, objective):
    """Load an adapter as its own files describe it."""
    return assemble(load_host(host, objective), Plans(), directory, 0)
