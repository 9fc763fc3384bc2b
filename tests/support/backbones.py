"""Backbones of tiny hosts, and what tests change about their files."""

import json

import pytest

from configs.runtime.faults import InputFault
from model.network.backbone import load_backbone
from model.network.snapshot import quiet_transformers
from model.network.source import resolve

FAMILIES = ("bert", "llama", "opt", "roberta")


def load(directory, objective="classification", labels=None, **options):
    labels = ("no", "yes") if labels is None and objective == "classification" else labels or ()
    return load_backbone(resolve(str(directory), "--load"), objective, labels, **options)


def refused(function, *arguments, **options):
    with pytest.raises(InputFault) as caught:
        function(*arguments, **options)
    return str(caught.value)


def batch(backbone):
    return backbone.tokenizer(["a", "bcd ef"], padding=True, return_tensors="pt")


def rewrite(host, **changes):
    path = host / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return host


def fine_tuned(host, directory, labels):
    backbone = load(host, labels=labels)
    with quiet_transformers():
        backbone.network.save_pretrained(directory)
        backbone.tokenizer.save_pretrained(directory)
    return backbone
