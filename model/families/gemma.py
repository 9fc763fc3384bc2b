"""Gemma 1, 2 and the text part of 3: pre-norm decoders; from 2 on every part also ends in a norm."""

from model.family import Family

FAMILY = Family(
    name="gemma",
    model_types=("gemma", "gemma2", "gemma3_text"),
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
    # In these the `post_attention_layernorm` ends attention, before its sum.
    ffn_norms=dict.fromkeys(("gemma2", "gemma3_text"), "pre_feedforward_layernorm"),
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
        # As in the published sizes, heads times their width is not the hidden size.
        "head_dim": 16,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    },
)
