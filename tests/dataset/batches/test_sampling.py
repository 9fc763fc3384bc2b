"""Batches are a function of seed, epoch, rank and world."""

from collections import Counter
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.runtime.seeds import draws
from dataset.batches.sampling import (
    EpochBatches,
    EvalBatches,
    ScoringBatches,
    evenly_spaced,
    first,
    mixed_order,
)
from dataset.mixture.epochs import mixture_draw

COUNTS = st.integers(0, 90)
SIZES = st.integers(1, 7)
WORLDS = st.integers(1, 4)
SEEDS = st.integers(0, 2**40)


def flat(batches):
    return [index for batch in batches for index in batch]


def some_lengths(count, is_grouped):
    return [(index * 37) % 23 for index in range(count)] if is_grouped else None


@given(COUNTS, SIZES, SEEDS, st.integers(0, 5), st.booleans())
def test_an_epoch_holds_every_example_once(count, size, seed, epoch, is_grouped):
    sampler = EpochBatches(count, size, seed, lengths=some_lengths(count, is_grouped))
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(flat(batches)) == list(range(count))
    assert len(batches) == len(sampler)
    assert list(sampler) == batches
    assert sampler.dropped == 0


@given(COUNTS, SIZES, WORLDS, SEEDS, st.booleans())
def test_ranks_split_the_global_batches_in_order(count, size, world, seed, is_grouped):
    lengths = some_lengths(count, is_grouped)
    ranks = [EpochBatches(count, size, seed, rank, world, lengths) for rank in range(world)]
    per_rank = [sampler.batches(1) for sampler in ranks]
    joined = [flat(parts) for parts in zip(*per_rank)]
    assert len({len(sampler) for sampler in ranks}) == 1
    assert all(len(batches) == len(ranks[0]) for batches in per_rank)
    assert len(flat(joined)) == len(set(flat(joined))) == count - ranks[0].dropped
    if world > 1:
        assert all(len(batch) == size for batches in per_rank for batch in batches)
    if not is_grouped or count % (size * world) == 0:
        single = EpochBatches(count, size * world, seed, lengths=lengths).batches(1)
        assert joined == [batch for batch in single if len(batch) == size * world or world == 1]


@given(st.integers(1, 90), SIZES, SEEDS, st.integers(0, 3), st.data())
def test_resuming_gives_the_tail(count, size, seed, epoch, data):
    whole = EpochBatches(count, size, seed)
    done = data.draw(st.integers(0, len(whole)))
    resumed = EpochBatches(count, size, seed)
    resumed.resume(epoch, done)
    # Lightning may make an iterator before it sets the epoch, and another one after.
    early = iter(resumed)
    resumed.set_epoch(epoch)
    assert list(resumed) == whole.batches(epoch)[done:] == list(early)
    assert len(resumed) == len(whole)
    resumed.set_epoch(epoch + 1)
    assert list(resumed) == whole.batches(epoch + 1)


def test_epochs_and_seeds_differ_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    orders = [flat(EpochBatches(50, 4, seed).batches(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_lightning_finds_set_epoch():
    sampler = EpochBatches(50, 4, 0)
    sampler.sampler.set_epoch(3)
    assert list(sampler) == sampler.batches(3)


def test_length_groups_pad_less_and_shuffle_their_order():
    lengths = [(index * 7919) % 400 for index in range(4000)]

    def padded(batches):
        return sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)

    plain = EpochBatches(4000, 8, 0).batches(0)
    grouped = EpochBatches(4000, 8, 0, lengths=lengths).batches(0)
    assert padded(grouped) < 1.05 * sum(lengths) < 0.7 * padded(plain)
    longest = [max(lengths[i] for i in batch) for batch in grouped]
    assert longest[:50] != sorted(longest[:50])


@pytest.mark.parametrize("world", [2, 3])
def test_a_tail_is_dropped_and_counted_in_distributed_runs(world):
    sampler = EpochBatches(world * 8 + 1, 4, 0, 0, world)
    assert sampler.dropped == 1
    assert len(sampler) == 2


@given(COUNTS, SIZES, WORLDS)
def test_evaluation_sees_every_example_once(count, size, world):
    ranks = [EvalBatches(count, size, rank, world) for rank in range(world)]
    per_rank = [list(sampler) for sampler in ranks]
    assert sorted(flat(flat(per_rank))) == list(range(count))
    assert [len(sampler) for sampler in ranks] == [len(batches) for batches in per_rank]
    assert max(map(len, per_rank)) - min(map(len, per_rank)) <= 1
    assert all(1 <= len(batch) <= size for batches in per_rank for batch in batches)
    assert flat(per_rank[0]) == sorted(flat(per_rank[0]))
    assert len(per_rank[0]) == max(map(len, per_rank))


SIZES_AND_COUNTS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 50)), min_size=1, max_size=4)


@given(SIZES_AND_COUNTS, SEEDS, st.integers(0, 7))
def test_a_mixture_goes_through_each_part_in_rounds(parts, seed, epochs):
    sizes, counts = [size for size, _ in parts], [count for _, count in parts]
    draw = mixture_draw(sizes, counts, seed)
    held = [draw(epoch).tolist() for epoch in range(epochs)]
    assert [len(one) for one in held] == [sum(counts)] * epochs
    start, before = 0, 0
    for size, count in parts:
        # All of a part's places over the epochs, one behind the other, are permutations of its examples.
        row = [index for one in held for index in one[before : before + count]]
        for begin in range(0, len(row), size):
            piece = row[begin : begin + size]
            assert len(set(piece)) == len(piece)
            assert all(start <= index < start + size for index in piece)
        start, before = start + size, before + count


def test_a_mixture_is_a_function_of_seed_and_epoch():
    def epochs(seed):
        draw = mixture_draw([40, 9], [25, 24], seed)
        return [draw(epoch).tolist() for epoch in (2, 0, 1)]

    state = torch.get_rng_state()
    assert epochs(5) == epochs(5)
    assert len({tuple(one) for seed in (5, 6) for one in epochs(seed)}) == 6
    assert torch.equal(torch.get_rng_state(), state)


@given(WORLDS, SIZES, SEEDS, st.booleans(), st.data())
def test_mixed_batches_are_cut_by_rank_and_resumed_as_others(world, size, seed, is_grouped, data):
    sizes, counts = [30, 12], [14, 28]
    draw = mixture_draw(sizes, counts, seed)
    lengths = some_lengths(42, is_grouped)
    ranks = [EpochBatches(42, size, seed, rank, world, lengths, draw) for rank in range(world)]
    joined = [flat(parts) for parts in zip(*(sampler.batches(3) for sampler in ranks))]
    seen = Counter(flat(joined))
    assert sum(seen.values()) == 42 - ranks[0].dropped
    assert not seen - Counter(draw(3).tolist())
    assert max((seen[index] for index in range(30)), default=0) <= 1
    done = data.draw(st.integers(0, len(ranks[0])))
    resumed = EpochBatches(42, size, seed, 0, world, lengths, draw)
    resumed.resume(3, done)
    assert list(resumed) == ranks[0].batches(3)[done:]


def test_scoring_distributes_whole_batches_in_the_given_order():
    ranks = [ScoringBatches([4, 0, 2, 3, 1], 1, lambda total: total, rank, 2) for rank in range(2)]
    assert [list(one) for one in ranks] == [[[4, 0]], [[2, 3]]]
    assert [one.examples for one in ranks] == [4, 4]


@given(COUNTS.filter(bool), SIZES, WORLDS, st.integers(1, 9))
def test_scoring_batches_are_the_same_ones_on_any_number_of_processes(count, size, world, most):
    """Two processes with batches of b compute, together, what one does with batches of 2 b."""
    order = [(7 * index) % count for index in range(count)]

    def limit(total):
        return min(most, total)

    ranks = [ScoringBatches(order, size, limit, rank, world) for rank in range(world)]
    single = ScoringBatches(order, size * world, limit)
    dealt = [ranks[k % world].batches()[k // world] for k in range(sum(map(len, ranks)))]
    whole = single.batches()
    # A set's tail that does not fill every rank is dropped in training, and so it is in scoring.
    assert dealt == [batch for batch in whole if world == 1 or len(batch) == size * world][:most] or (
        len(whole) == 1 and dealt == whole
    )
    assert all(one.examples == sum(map(len, dealt)) for one in ranks)
    assert flat(dealt) == order[: len(flat(dealt))]
    assert [len(one) for one in ranks] == [len(list(one)) for one in ranks]


@given(st.integers(1, 30), st.integers(1, 30), SEEDS)
def test_a_mixed_order_takes_training_and_validation_in_turn(train, validation, seed):
    order = mixed_order(train, validation, draws(seed, "mixed", 0))
    shorter = min(train, validation)
    pairs, rest = order[: 2 * shorter], order[2 * shorter :]
    assert all(index < train for index in pairs[::2])
    assert all(index >= train for index in pairs[1::2])
    assert len(set(order)) == len(order)
    # Of training examples no more are taken than there are of the others; those are all there, at last.
    assert sorted(pairs[1::2] + rest) == list(range(train, train + validation))
    assert order == mixed_order(train, validation, draws(seed, "mixed", 0))


def test_a_mixed_order_draws_among_all_training_examples():
    orders = [mixed_order(40, 3, draws(0, "mixed", number)) for number in range(60)]
    assert {index for order in orders for index in order[::2]} == set(range(40))
    assert len({tuple(order) for order in orders}) == 60
    assert {order[0] for order in orders} - {0, 1, 2}


def test_a_few_global_batches_are_the_first_or_spread_evenly():
    assert list(first(3, 10)) == [0, 1, 2] and list(first(3, 2)) == [0, 1]
    assert evenly_spaced(3, 10) == [0, 3, 6] and evenly_spaced(3, 2) == [0, 1]
    for choose in (partial(first, 2), partial(evenly_spaced, 2)):
        alone = EvalBatches(21, 4, choose=choose).batches()
        assert len(alone) == 2
        halves = [EvalBatches(21, 2, rank, 2, choose).batches() for rank in (0, 1)]
        assert [sum(pair, []) for pair in zip(*halves)] == alone
    assert EvalBatches(21, 4, choose=partial(evenly_spaced, 9)).batches() == EvalBatches(21, 4).batches()
