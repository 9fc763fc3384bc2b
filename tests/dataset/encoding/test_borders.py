"""No token between prompt and response, or at their ends, that the text does not have."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dataset.encoding.borders import response_tokens
from dataset.encoding.encode import encode_blocks, encode_pairs, encode_texts
from dataset.encoding.preview import preview
from dataset.task import Example
from tests.support.tiny import byte_tokenizer

PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    "\u2581",
    "\u2581\u2581",
    "\u2581It",
    "\u2581is",
    "\u25813",
    "\n",
    *"Itsa3x",
]


def _sentencepiece(style):
    backend = Tokenizer(models.Unigram([(piece, -len(PIECES) / len(piece)) for piece in PIECES], unk_id=0))
    if style == "normalizer":  # Llama 2
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
        backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style, split=False)
        backend.decoder = decoders.Metaspace(prepend_scheme=style, split=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("style", ["normalizer", "first", "always"])
@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (" It is", ["\u2581It", "\u2581is"]),
        ("3", ["\u25813"]),
        ("\nIt", ["\n", "I", "t"]),
        ("x 3", ["x", "\u25813"]),
        (" x", ["\u2581", "x"]),
    ],
)
def test_a_response_begins_with_its_own_first_token(style, text, pieces):
    tokenizer = _sentencepiece(style)
    assert response_tokens([text], tokenizer, 2) == [[*tokenizer.convert_tokens_to_ids(pieces), 2]]


def test_two_spaces_of_a_response_stay_two():
    for style in ("normalizer", "first"):
        tokenizer = _sentencepiece(style)
        (ids,) = response_tokens(["  x"], tokenizer, 2)
        before = tokenizer("a", add_special_tokens=False)["input_ids"]
        assert tokenizer.decode([*before, *ids[:-1]]).endswith("a  x")


def test_a_byte_level_tokenizer_that_adds_a_space_loses_it_before_a_line_end():
    tokenizer = byte_tokenizer()
    words = ("\nx", "x", " x", "")
    assert response_tokens(list(words), tokenizer, 2) == [
        [*tokenizer(word, add_special_tokens=False)["input_ids"], 2] for word in words
    ]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    (ids,) = response_tokens(["\nx"], tokenizer, 2)
    assert tokenizer.decode(ids) == "\nx</s>"


def test_an_end_token_that_the_text_brings_is_not_doubled():
    tokenizer = byte_tokenizer()
    encoded = encode_pairs([Example(("a",), response="b</s>")], tokenizer, 20)
    assert preview(encoded, 0, tokenizer) == "<s>a[[b</s>]]"
    closed = Example(("a</s>",), response="b", eos_after_prompt=True)
    assert preview(encode_pairs([closed], tokenizer, 20), 0, tokenizer) == "<s>a</s>[[b</s>]]"


def test_a_start_token_is_not_doubled_in_classified_and_running_text():
    tokenizer = byte_tokenizer(encoder=True, segments=True)
    encoded = encode_texts([Example(("<s>ab", "c"), label=0), Example(("ab", "c"), label=0)], tokenizer, 6)
    assert encoded[0]["input_ids"].tolist() == encoded[1]["input_ids"].tolist()
    assert encoded[0]["token_type_ids"].tolist() == encoded[1]["token_type_ids"].tolist()
    assert encoded.cut == 0
    block = encode_blocks([Example(("",), response="<s>abc")], byte_tokenizer(), 9)
    assert block[0]["input_ids"].tolist()[:2] != [0, 0]
