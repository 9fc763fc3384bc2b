"""BERT: a post-norm encoder; its classification head reads the pooler, which some bases lack."""

from dataclasses import replace

from model.network.layouts import ENCODER

FAMILY = replace(
    ENCODER,
    name="bert",
    model_types=("bert",),
    layer="bert.encoder.layer.{layer}",
    optional=("bert.pooler",),
)
