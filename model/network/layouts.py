"""Layouts that several families share; the file of a family states what differs."""

from model.network.family import Family

TINY = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}
"""A configuration small enough for offline tests, with the keys that most families use."""

GATED_DECODER = Family(
    name="",
    model_types=(),
    layer="model.layers.{layer}",
    roles={
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "o_proj": "self_attn.o_proj",
        "w1": "mlp.up_proj",
        "gate": "mlp.gate_proj",
        "w2": "mlp.down_proj",
    },
    attention="self_attn",
    attention_norm="input_layernorm",
    ffn_norm="post_attention_layernorm",
    placement=lambda config: "pre",
    heads={"classification": ("score",), "regression": ("score",), "language_modeling": ()},
    # Rotary positions have no limit, but the network was not trained beyond this length.
    positions=lambda config: config.max_position_embeddings,
    tiny={**TINY, "num_key_value_heads": 2},
    renorms=("post_attention_layernorm", "input_layernorm"),
)
"""LLaMA's layout: a pre-norm decoder with rotary positions, gated feed-forward block and grouped queries."""

ENCODER = Family(
    name="",
    model_types=(),
    layer="encoder.layer.{layer}",
    roles={
        "q_proj": "attention.self.query",
        "k_proj": "attention.self.key",
        "v_proj": "attention.self.value",
        "o_proj": "attention.output.dense",
        "w1": "intermediate.dense",
        "w2": "output.dense",
    },
    attention="attention",
    attention_norm="attention.output.LayerNorm",
    ffn_norm="output.LayerNorm",
    placement=lambda config: "post",
    heads={"classification": ("classifier",), "regression": ("classifier",)},
    positions=lambda config: config.max_position_embeddings,
    tiny=TINY,
)
"""BERT's layout: a post-norm encoder; the path of a layer begins with a prefix of the family."""
