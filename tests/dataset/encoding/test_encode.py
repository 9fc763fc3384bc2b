"""Only targets are learned, the end token among them; cutting never makes a prompt a target."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from configs.runtime.faults import InputFault
from configs.schema.batch_keys import IGNORE_INDEX
from dataset.encoding.collate import Collate
from dataset.encoding.encode import (
    encode,
    encode_blocks,
    encode_pairs,
    encode_prompts,
    encode_texts,
    end_token,
    start_tokens,
)
from dataset.encoding.preview import preview
from dataset.task import Example
from dataset.tasks.gsm8k import TASK as GSM8K
from tests.support.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()
PAIRS = st.lists(st.tuples(st.text(max_size=12), st.text(min_size=1, max_size=12)), min_size=1, max_size=5)


def pair(prompt, response):
    return Example((prompt,), response=response)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.integers(1, 40))
def test_cutting_never_unmasks_a_prompt(pairs, limit):
    encoded = encode_pairs([pair(*one) for one in pairs], TOKENIZER, limit)
    for index in range(len(encoded)):
        prompt, response = pairs[int(encoded.rows[index])]
        source = [0, *TOKENIZER(prompt, add_special_tokens=False)["input_ids"]]
        target = [*TOKENIZER(response, add_special_tokens=False)["input_ids"], 2]
        item = encoded[index]
        assert item["input_ids"].tolist() == (source + target)[:limit]
        assert item["labels"].tolist() == ([IGNORE_INDEX] * len(source) + target)[:limit]
        assert (item["labels"] != IGNORE_INDEX).any()
    kept = [len(prompt.encode()) + 1 < limit for prompt, _ in pairs]
    assert encoded.rows.tolist() == [row for row, is_kept in enumerate(kept) if is_kept]
    assert encoded.dropped == kept.count(False)


def test_an_end_token_follows_the_prompt_where_requested_and_is_not_learned():
    closed = Example(("do",), response="x", eos_after_prompt=True)
    encoded = encode_pairs([closed, pair("do", "x")], TOKENIZER, 64)
    assert preview(encoded, 0, TOKENIZER) == "<s>do</s>[[x</s>]]"
    assert preview(encoded, 1, TOKENIZER) == "<s>do[[x</s>]]"
    assert preview(encode_prompts([closed], TOKENIZER, 64), 0, TOKENIZER) == "<s>do</s>"
    assert encode_pairs([closed], TOKENIZER, 4).dropped == 1


def test_cut_and_dropped_are_counted():
    encoded = encode_pairs([pair("a", "b"), pair("a", "bbbbbbbb"), pair("aaaaaaaa", "b")], TOKENIZER, 5)
    assert (len(encoded), encoded.cut, encoded.dropped) == (2, 1, 1)


def test_end_is_learned_even_when_it_is_the_pad():
    encoded = encode_pairs([pair("a", "b"), pair("a", "bbb")], TOKENIZER, 64)
    batch = Collate(pad_id=end_token(TOKENIZER))([encoded[0], encoded[1]])
    assert batch["input_ids"][0].tolist()[2:] == [batch["input_ids"][0, 2].item(), 2, 2, 2]
    assert batch["labels"][0].tolist()[3:] == [2, IGNORE_INDEX, IGNORE_INDEX]
    assert batch["attention_mask"].sum(1).tolist() == [4, 6]


def test_start_tokens_are_those_the_tokenizer_adds():
    assert start_tokens(TOKENIZER) == [0]
    assert start_tokens(byte_tokenizer(encoder=True)) == [0]
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    bare = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert start_tokens(bare) == []
    with pytest.raises(InputFault, match="no end-of-sequence token"):
        end_token(bare)


def test_a_start_token_that_the_prompt_brings_is_not_doubled():
    tokenizer = byte_tokenizer()
    encoded = encode_pairs([pair("<s>ab", "c"), pair("ab", "c")], tokenizer, 20)
    assert encoded[0]["input_ids"].tolist() == encoded[1]["input_ids"].tolist()
    assert encoded[0]["labels"].tolist() == encoded[1]["labels"].tolist()


def test_long_prompts_keep_their_start_token_and_their_end():
    encoded = encode_prompts([Example(("abcdef",)), Example(("xy",))], TOKENIZER, 4)
    assert TOKENIZER.decode(encoded[0]["input_ids"]) == "<s>def"
    assert TOKENIZER.decode(encoded[1]["input_ids"]) == "<s>xy"
    assert (encoded.cut, encoded.purpose) == (1, "generate")
    assert "labels" not in encoded[0]


def test_the_document_is_shortened_and_the_question_kept():
    example = Example(("ask: abcdef?",), response="xy", document_span=(5, 11))
    learned, asked = encode_pairs([example], TOKENIZER, 14, 10), encode_prompts([example], TOKENIZER, 14, 10)
    assert preview(learned, 0, TOKENIZER) == "<s>ask: abc?[[xy</s>]]"
    assert preview(asked, 0, TOKENIZER) == "<s>ask: abc?"
    assert learned.cut == asked.cut == 1
    whole = encode_pairs([example], TOKENIZER, 64, 13)
    assert (preview(whole, 0, TOKENIZER), whole.cut) == ("<s>ask: abcdef?[[xy</s>]]", 0)
    closed = Example(("abcdef",), response="xy", document_span=(0, 6), eos_after_prompt=True)
    assert preview(encode_pairs([closed], TOKENIZER, 9, 4), 0, TOKENIZER) == "<s>ab</s>[[xy</s>]]"


def test_a_question_that_leaves_no_document_is_cut_as_any_other():
    example = Example(("ask: abcdef?",), response="xy", document_span=(5, 11))
    assert encode_pairs([example], TOKENIZER, 10, 7).dropped == 1
    assert preview(encode_prompts([example], TOKENIZER, 10, 7), 0, TOKENIZER) == "<s>: abcdef?"


def test_prompts_are_padded_on_the_left():
    encoded = encode_prompts([Example(("ab",)), Example(("abcd",))], TOKENIZER, 64)
    batch = Collate(1, "left")([encoded[0], encoded[1]])
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert batch["input_ids"][0].tolist()[:3] == [1, 1, 0]
    assert batch["index"].tolist() == [0, 1]


def test_two_segments_share_the_limit_longest_first():
    tokenizer = byte_tokenizer(encoder=True, segments=True)
    examples = [Example(("aaaaaaaaaa", "bb"), label=1), Example(("a", "b"), label=0)]
    encoded = encode_texts(examples, tokenizer, 9)
    assert tokenizer.decode(encoded[0]["input_ids"]) == "<s>aaaa</s>bb</s>"
    assert encoded[0]["token_type_ids"].tolist() == [0] * 6 + [1] * 3
    assert (encoded.cut, encoded.dropped) == (1, 0)
    batch = Collate(1)([encoded[0], encoded[1]])
    assert batch["token_type_ids"].shape == batch["input_ids"].shape == (2, 9)
    assert batch["labels"].tolist() == [1, 0]
    assert "index" not in batch


def test_text_that_just_fits_is_not_counted_as_cut():
    tokenizer = byte_tokenizer(encoder=True)
    assert encode_texts([Example(("abc",), label=0)], tokenizer, 5).cut == 0
    assert encode_texts([Example(("abcd",), label=0)], tokenizer, 5).cut == 1


def test_unlabelled_texts_carry_their_row():
    encoded = encode_texts([Example(("a",)), Example(("b",))], byte_tokenizer(encoder=True), 9)
    assert encoded.purpose == "predict"
    batch = Collate(1)([encoded[1], encoded[0]])
    assert batch["index"].tolist() == [1, 0]
    assert batch["index"].dtype == torch.int64
    assert "labels" not in batch


def test_previews_show_what_is_learned():
    assert preview(encode_pairs([pair("a", "b")], TOKENIZER, 9), 0, TOKENIZER) == "<s>a[[b</s>]]"
    assert preview(encode_prompts([Example(("a",))], TOKENIZER, 9), 0, TOKENIZER) == "<s>a"
    tokenizer = byte_tokenizer(encoder=True)
    encoded = encode_texts([Example(("a",), label=1)], tokenizer, 9)
    assert preview(encoded, 0, tokenizer, ("no", "yes")) == "<s>a</s> -> [[yes]]"
    assert preview(encode_texts([Example(("a",), label=2.5)], tokenizer, 9), 0, tokenizer).endswith("[[2.5]]")
    assert preview(encode_texts([Example(("a",))], tokenizer, 9), 0, tokenizer) == "<s>a</s>"


def _without_start():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    assert start_tokens(tokenizer) == []
    return tokenizer


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=6), st.integers(3, 12), st.booleans())
def test_running_text_loses_no_token(lines, limit, has_start):
    tokenizer = TOKENIZER if has_start else _without_start()
    text = [token for line in lines for token in tokenizer(line, add_special_tokens=False)["input_ids"]]
    if len(text) < 2:
        return
    encoded = encode_blocks([pair("", line) for line in lines], tokenizer, limit)
    items = [encoded[index] for index in range(len(encoded))]
    start = start_tokens(tokenizer)
    assert [token for item in items for token in item["input_ids"][len(start) :].tolist()] == text
    assert max(encoded.lengths) <= limit
    # Every block has a target, and where it begins with the start token every token of the text is one.
    targets = [int((item["labels"][1:] != IGNORE_INDEX).sum()) for item in items]
    assert min(targets) >= 1
    assert sum(targets) == len(text) - (0 if has_start else len(items))


def test_text_without_a_target_is_refused():
    with pytest.raises(InputFault, match="--max-token-len: 1, 3 tokens of text leave no target"):
        encode_blocks([pair("", "abc")], TOKENIZER, 1)
    with pytest.raises(InputFault, match="1 tokens of text leave no target"):
        encode_blocks([pair("", "a")], _without_start(), 8)


def test_types_follow_their_examples_and_change_no_batch():
    task = GSM8K.build(GSM8K.options())
    plain = [Example((f"{'?' * n}",), response="a") for n in (1, 40, 2, 3)]
    typed = [replace(one, task_type=kind) for one, kind in zip(plain, ("x", "y", "", "x"))]
    one, other = (encode(task, "validation", examples, TOKENIZER, 20) for examples in (plain, typed))
    assert other.dropped == 1
    assert (list(one.task_types), list(other.task_types)) == ([], ["x", "", "x"])
    assert all(torch.equal(a, b) for n in range(3) for a, b in zip(one[n].values(), other[n].values()))
    assert one[0].keys() == other[0].keys()
    packed = replace(task, packed=True)
    assert list(encode(packed, "validation", typed, TOKENIZER, 20).task_types) == []
