"""Qwen2 and Qwen2.5: a pre-norm decoder like LLaMA with biases at queries, keys and values."""

from model.family import Family

FAMILY = Family(
    name="qwen2",
    model_types=("qwen2",),
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
    attention_norm="input_layernorm",
    ffn_norm="post_attention_layernorm",
    placement=lambda config: "pre",
    heads={"classification": ("score",), "regression": ("score",), "language_modeling": ()},
    # Rotary positions never run out; past this length the network was never trained.
    positions=lambda config: config.max_position_embeddings,
    tiny={
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    },
)
