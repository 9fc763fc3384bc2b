"""Letters are what the tokenizer makes of a prompt with the letter behind it."""

import pytest

from configs.runtime.faults import InputFault
from dataset.encoding.collate import Collate
from dataset.encoding.multiple_choice import encode_choices
from dataset.task import Example
from tests.support.batches import check_batch

EXAMPLES = [
    Example(("Why?\nAnswer:",), label=2, gold="stem"),
    Example(("So?\nAnswer:",), label=0, gold="other"),
]


def words(texts, **_):
    """Tokenise into words, a space in front being part of the word; a word's id is made of its letters."""
    return {"input_ids": [[sum(map(ord, word)) for word in text.split(" ")] for text in texts]}


def characters(texts, **_):
    return {"input_ids": [list(map(ord, text)) for text in texts]}


def test_a_letter_is_one_token_of_its_own_or_joins_the_space():
    by_word = encode_choices(EXAMPLES, words, [7], 64)
    assert by_word[0]["input_ids"].tolist() == [7, sum(map(ord, "Why?\nAnswer:"))]
    by_character = encode_choices(EXAMPLES, characters, [7], 64)
    assert by_character[0]["input_ids"].tolist() == [7, *map(ord, "Why?\nAnswer: ")]
    for encoded in (by_word, by_character):
        assert encoded.letters.tolist() == [list(map(ord, "ABCD"))] * 2
        assert [int(encoded[row]["labels"]) for row in range(2)] == [2, 0]
        assert [int(encoded[row]["group"]) for row in range(2)] == [0, 3]
        assert (len(encoded), encoded.cut) == (2, 0)
        check_batch(Collate(pad_id=1)([encoded[0], encoded[1]]))


def test_a_cut_prompt_has_no_right_letter():
    encoded = encode_choices(EXAMPLES, characters, [7], 13)
    assert encoded.lengths == [13, 13]
    assert (encoded.labels.tolist(), encoded.cut) == ([-1, 0], 1)
    assert encoded[0]["input_ids"].tolist() == [7, *map(ord, "Why?\nAnswer:")]


def test_letters_that_run_into_the_prompt_or_share_an_id_are_refused():
    def merged(texts, **_):
        return {"input_ids": [[sum(map(ord, text))] * 2 for text in texts]}

    def poor(texts, **_):
        return {"input_ids": [[5, 6, 1 if text.endswith("A") else 0] for text in texts]}

    for tokenizer in (merged, poor):
        with pytest.raises(InputFault, match="does not encode the letters"):
            encode_choices(EXAMPLES, tokenizer, [], 64)
