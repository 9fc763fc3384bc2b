"""RoBERTa: a post-norm encoder with a two-layer head; its positions begin after the pad id."""

from model.family import Family

FAMILY = Family(
    name="roberta",
    model_types=("roberta",),
    layer="roberta.encoder.layer.{layer}",
    roles={
        "q_proj": "attention.self.query",
        "k_proj": "attention.self.key",
        "v_proj": "attention.self.value",
        "o_proj": "attention.output.dense",
        "w1": "intermediate.dense",
        "w2": "output.dense",
    },
    attention_norm="attention.output.LayerNorm",
    ffn_norm="output.LayerNorm",
    placement=lambda config: "post",
    heads={"classification": ("classifier",), "regression": ("classifier",)},
    positions=lambda config: config.max_position_embeddings - config.pad_token_id - 1,
    tiny={
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 130,
        "type_vocab_size": 1,
        "initializer_range": 0.1,
    },
)
