"""DeBERTa-v2 and v3: a post-norm encoder with relative positions; its head reads a context pooler.

Where a network shares its attention keys (every published v3), the query and key linears project the relative
positions as well, so that an adapter there has two inputs in each forward pass.
"""

from dataclasses import replace

from model.network.layouts import ENCODER

FAMILY = replace(
    ENCODER,
    name="deberta",
    model_types=("deberta-v2",),
    layer="deberta.encoder.layer.{layer}",
    # Without shared keys there are also `pos_key_proj` and `pos_query_proj`; they are no sites.
    roles={
        **ENCODER.roles,
        "q_proj": "attention.self.query_proj",
        "k_proj": "attention.self.key_proj",
        "v_proj": "attention.self.value_proj",
    },
    not_only_tokens=("q_proj", "k_proj"),
    heads={"classification": ("pooler", "classifier"), "regression": ("pooler", "classifier")},
    # `positions` is that of the layout: relative positions have no limit, but training had one.
    tiny={
        **ENCODER.tiny,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
    },
)
