"""DeBERTa-v2 and v3: a post-norm encoder with relative positions; a context pooler heads its classification.

Where a network shares its attention keys (every published v3), the query and key linears project the relative
positions too, so that an adapter there sees two inputs a forward pass.
"""

from model.family import Family

FAMILY = Family(
    name="deberta",
    model_types=("deberta-v2",),
    layer="deberta.encoder.layer.{layer}",
    # Without shared keys there are `pos_key_proj` and `pos_query_proj` as well; they are no sites.
    roles={
        "q_proj": "attention.self.query_proj",
        "k_proj": "attention.self.key_proj",
        "v_proj": "attention.self.value_proj",
        "o_proj": "attention.output.dense",
        "w1": "intermediate.dense",
        "w2": "output.dense",
    },
    attention_norm="attention.output.LayerNorm",
    ffn_norm="output.LayerNorm",
    placement=lambda config: "post",
    heads={"classification": ("pooler", "classifier"), "regression": ("pooler", "classifier")},
    # Relative positions never run out; past this length the network was never trained.
    positions=lambda config: config.max_position_embeddings,
    tiny={
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "type_vocab_size": 0,
        "initializer_range": 0.1,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
    },
)
