"""BERT: a post-norm encoder; its classification network reads the pooler, which some bases lack."""

from model.family import Family

FAMILY = Family(
    name="bert",
    model_types=("bert",),
    layer="bert.encoder.layer.{layer}",
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
    positions=lambda config: config.max_position_embeddings,
    tiny={
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    },
    optional=("bert.pooler",),
)
