import itertools
from pydoc_data.topics import topics

import numpy as np
import pytest

from tilth.errors import TilthError
from tilth.objectives.next_sentence import FOLLOWS, RANDOM
from tilth.tokens.shards import ShardSplit

SEED = 3


def batch_of(objective, packing, indexes, epoch=0):
    return objective.make_batch(packing, np.array(indexes), np.full(len(indexes), epoch), SEED)


def pairs_of(objective, packing, epoch=0):
    """For every piece of the corpus: (its number, its document, A, B, label), masks undone, its frame checked."""
    every = np.arange(packing.num_rows)
    batch, rows = batch_of(objective, packing, every, epoch), packing.rows(every)
    predictions, openings = batch.predictions["masked"], batch.predictions["next_sentence"]
    tokens = batch.inputs.tokens.clone()
    tokens.view(-1)[predictions.places] = predictions.targets
    tokens, types = tokens.numpy(), batch.inputs.token_types.numpy()
    documents, positions = batch.inputs.documents.numpy(), batch.inputs.positions.numpy()
    cls, sep = objective.framing.piece_prefix[0], objective.separator
    assert len(openings.places) == len(rows.row)
    for piece, (place, label) in enumerate(zip(openings.places.tolist(), openings.targets.tolist(), strict=True)):
        row, column = divmod(place, packing.length)
        assert row == rows.row[piece]
        inside = documents[row] == documents[row, column]
        pair, kinds = tokens[row][inside], types[row][inside]
        assert positions[row][inside].tolist() == list(range(len(pair)))
        assert pair[0] == cls
        first, last = np.flatnonzero(pair == sep)
        assert last == len(pair) - 1
        assert kinds.tolist() == [0] * (first + 1) + [1] * (last - first)
        yield piece, int(rows.documents[piece]), pair[1:first], pair[first + 1 : last], label


def document_tokens(split: ShardSplit, number: int) -> list[int]:
    start, end = split.document_starts[number : number + 2]
    return split.tokens(np.array([start]), np.array([end - start])).tolist()


def places_of(whole: list[int], part: list[int]) -> list[int]:
    starts = range(len(whole) - len(part) + 1)
    return [start for start in starts if whole[start : start + len(part)] == part]


@pytest.mark.parametrize("epoch", [0, 1])
def test_b_follows_a_or_is_from_another_document(make, epoch):
    objective, packing, _ = make("bert-mini")
    rows = packing.rows(np.arange(packing.num_rows))
    begins = np.cumsum(rows.lengths) - rows.lengths
    texts = [document_tokens(packing.split, number) for number in range(packing.split.num_documents)]
    labels = []
    for piece, document, first, second, label in pairs_of(objective, packing, epoch):
        begin, length = begins[piece] + 1, rows.real_lengths[piece]
        text = rows.tokens[begin : begin + length].tolist()
        assert len(first) and first.tolist() == text[: len(first)]
        assert len(first) + len(second) <= length
        starts = packing.split.sentence_starts(int(rows.starts[piece]), int(length))
        has_inner_sentence = bool((starts > 0).any())
        if label == FOLLOWS:
            assert second.tolist() == text[len(first) :]
            assert len(first) in starts
        else:
            assert any(places_of(other, second.tolist()) for number, other in enumerate(texts) if number != document)
        assert has_inner_sentence or label == RANDOM
        if has_inner_sentence:
            labels.append(label)
    # Where there is a choice it is even: four standard deviations.
    assert len(labels) > 60
    assert np.mean(labels) == pytest.approx(0.5, abs=4 * 0.5 / len(labels) ** 0.5)


def test_the_length_of_a_pair_does_not_tell_what_it_is(make):
    """Of documents of many rows: B is as long as what follows A, from wherever in another document it is."""
    names = sorted(topics)
    texts = tuple("\n\n".join(topics[name] for name in names[number::6])[:12_000] for number in range(6))
    objective, packing, _ = make("bert-mini", "data.length=32", texts=texts)
    rows = packing.rows(np.arange(packing.num_rows))
    whole = [document_tokens(packing.split, number) for number in range(packing.split.num_documents)]
    sentences = [
        set(packing.split.sentence_starts(int(start), int(end - start)).tolist())
        for start, end in itertools.pairwise(packing.split.document_starts)
    ]
    short, at_sentences, random_pairs = [], 0, 0
    for piece, document, first, second, label in pairs_of(objective, packing):
        short.append((label, len(first) + len(second) < rows.real_lengths[piece]))
        if label == RANDOM:
            random_pairs += 1
            at_sentences += any(
                place in sentences[number]
                for number, tokens in enumerate(whole)
                if number != document
                for place in places_of(tokens, second.tolist())
            )
    assert not any(is_short for label, is_short in short if label == FOLLOWS)
    assert np.mean([is_short for label, is_short in short if label == RANDOM]) < 0.01
    # The others begin with a piece that has no sentence start inside.
    assert random_pairs > 300 and 0.5 < at_sentences / random_pairs < 1


def test_pairs_and_masks_fit_their_rows(make):
    objective, packing, tokenizer = make("bert-mini", "data.length=24")
    batch = batch_of(objective, packing, np.arange(packing.num_rows))
    real = batch.inputs.documents >= 0
    assert batch.inputs.tokens.shape == (packing.num_rows, 24)
    assert batch.tokens == int(real.sum())
    assert (batch.inputs.tokens[~real] == tokenizer.special.pad).all()
    assert (batch.inputs.token_types[~real] == 0).all()
    chosen = batch.predictions["masked"]
    assert not np.isin(chosen.targets.numpy(), list(tokenizer.special_ids)).any()
    assert real.flatten()[chosen.places].all()


def test_pairs_come_again_with_fixed_masks_and_differ_with_fresh_ones(make):
    for masks, period in (("objective.duplicates=2", 2), ("objective.masks=fresh", None)):
        objective, packing, _ = make("bert-mini", masks)
        epochs = [
            [(first.tolist(), second.tolist(), label) for _, _, first, second, label in pairs_of(objective, packing, e)]
            for e in range(3)
        ]
        assert epochs[0] != epochs[1] != epochs[2]
        assert (epochs[0] == epochs[2]) == (period == 2)


def test_a_row_has_the_same_pairs_in_any_batch(make):
    objective, packing, _ = make("bert-mini")
    together = batch_of(objective, packing, [4, 1])
    for place, row in enumerate([4, 1]):
        alone = batch_of(objective, packing, [row])
        assert together.inputs.tokens[place].tolist() == alone.inputs.tokens[0].tolist()
        assert together.inputs.token_types[place].tolist() == alone.inputs.token_types[0].tolist()


def test_one_document_gives_no_pairs(make):
    texts = tuple([topics[name][:700] for name in sorted(topics) if len(topics[name]) >= 700][:6])
    objective, packing, _ = make("bert-mini", "tokenizer.vocab_size=200", texts=texts, split="validation")
    assert packing.split.num_documents == 1
    with pytest.raises(TilthError, match=r"the validation split has one document.*objective\.name=masked"):
        batch_of(objective, packing, [0])
