"""OPT: a decoder with learned positions; pre-norm, in the 350M size post-norm with projected embeddings."""

from model.network.family import Family

FAMILY = Family(
    name="opt",
    model_types=("opt",),
    layer="model.decoder.layers.{layer}",
    roles={
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "o_proj": "self_attn.out_proj",
        "w1": "fc1",
        "w2": "fc2",
    },
    attention="self_attn",
    attention_norm="self_attn_layer_norm",
    # Each layer has a norm of this name; so has the decoder, after its last layer.
    ffn_norm="final_layer_norm",
    placement=lambda config: "pre" if config.do_layer_norm_before else "post",
    heads={"classification": ("score",), "regression": ("score",), "language_modeling": ()},
    # The table has two rows more, which its offset of two makes unreachable.
    positions=lambda config: config.max_position_embeddings,
    tiny={
        "vocab_size": 300,
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "word_embed_proj_dim": 32,
        "init_std": 0.1,
    },
)
