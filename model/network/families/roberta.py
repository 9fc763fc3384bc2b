"""RoBERTa: a post-norm encoder with a two-layer head; its positions begin after the pad id."""

from dataclasses import replace

from model.network.layouts import ENCODER

FAMILY = replace(
    ENCODER,
    name="roberta",
    model_types=("roberta",),
    layer="roberta.encoder.layer.{layer}",
    positions=lambda config: config.max_position_embeddings - config.pad_token_id - 1,
    tiny={**ENCODER.tiny, "max_position_embeddings": 130, "type_vocab_size": 1},
)
