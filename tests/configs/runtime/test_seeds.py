"""A purpose's seed depends on the run seed and the purpose alone."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.runtime.seeds import derive, draws

words = st.lists(st.one_of(st.integers(0, 99), st.text("abc", min_size=1, max_size=3)), max_size=3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), words)
def test_a_derived_seed_is_the_start_of_a_digest(seed, purpose):
    text = "/".join(map(str, (seed, *purpose)))
    assert derive(seed, *purpose) == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2
    assert 0 <= derive(seed, *purpose) < 2**63


def test_seeds_purposes_and_their_parts_are_distinguished():
    seeds = {derive(*one) for one in [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), (0, "a1")]}
    assert len(seeds) == 7


def test_it_stays_the_same_between_versions():
    assert derive(0, "lora", "layer_0/q_proj") == 6609043399132188352


def test_draws_are_those_of_their_purpose():
    first = [draws(0, "ties", index).random() for index in (0, 0, 1)]
    assert first[0] == first[1] != first[2]
    assert first[0] == 0.08210747295144416
