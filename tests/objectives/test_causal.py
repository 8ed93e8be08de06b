from collections import Counter

import numpy as np
import pytest

from tilth.errors import UsageError
from tilth.objectives import build_objective
from tilth.recipe import load_recipe
from tilth.tokens.order import row_indexes


def document_tokens(split, number):
    start, end = split.document_starts[number : number + 2]
    return split.tokens(np.array([start]), np.array([end - start])).tolist()


@pytest.mark.parametrize("kind", ["byte_bpe", "characters"])
@pytest.mark.parametrize("length", [16, 48])
@pytest.mark.parametrize("cross", ["false", "true"])
def test_every_transition_of_every_document_is_predicted_once_an_epoch(make, kind, length, cross):
    objective, packing, tokenizer = make(
        "gpt2-mini", f"data.length={length}", f"tokenizer.kind={kind}", f"data.cross_documents={cross}"
    )
    end = tokenizer.special.eot
    expected = Counter()
    for number in range(packing.split.num_documents):
        text = [end, *document_tokens(packing.split, number), end]
        expected.update((number, before, after) for before, after in zip(text, text[1:], strict=False))
    seen = Counter()
    per_step = 7
    for step in range(packing.num_rows):
        indexes, epochs = row_indexes(step, per_step, packing.num_rows, seed=1)
        indexes, epochs = indexes[epochs == 0], epochs[epochs == 0]
        if not len(indexes):
            break
        batch, rows = objective.make_batch(packing, indexes, epochs, 1), packing.rows(indexes)
        assert batch.inputs.tokens.shape == (len(indexes), length)
        tokens = batch.inputs.tokens.flatten()
        _, _, pieces = rows.dense(end)
        first_piece = np.searchsorted(rows.row, np.arange(len(indexes)))
        predictions = batch.predictions["causal"]
        for place, target in zip(predictions.places.tolist(), predictions.targets.tolist(), strict=True):
            row, column = divmod(place, length)
            document = rows.documents[first_piece[row] + pieces[row, column]]
            seen[int(document), int(tokens[place]), target] += 1
            if column + 1 < length:
                assert target == tokens[place + 1]
    assert seen == expected
    assert sum(seen.values()) == packing.split.num_tokens + packing.split.num_documents
    assert sum(count for (_, _, target), count in seen.items() if target == end) == packing.split.num_documents


def test_attention_crosses_documents_only_when_asked(make):
    for cross in ("false", "true"):
        objective, packing, _ = make("gpt2-mini", f"data.cross_documents={cross}")
        rows = packing.rows(np.arange(packing.num_rows))
        several = int(np.argmax(np.bincount(rows.row)))
        inputs = objective.make_batch(packing, np.array([several]), np.array([0]), 0).inputs
        numbers = inputs.documents[0][inputs.documents[0] >= 0].unique().tolist()
        assert numbers == ([0] if cross == "true" else list(range(np.bincount(rows.row).max())))


def test_batches_do_not_depend_on_epoch_or_seed(make):
    objective, packing, _ = make("gpt2-mini")
    one = objective.make_batch(packing, np.array([2]), np.array([0]), 0)
    other = objective.make_batch(packing, np.array([2]), np.array([5]), 9)
    assert one.inputs.tokens.tolist() == other.inputs.tokens.tolist()


def test_bits_per_byte_pays_for_the_end_of_each_document(make):
    objective, packing, tokenizer = make("gpt2-mini", split="validation")
    split = packing.split
    uniform = objective.bits_per_byte(np.log(tokenizer.vocab_size), split)
    predictions = split.num_tokens + split.num_documents
    assert uniform == pytest.approx(np.log2(tokenizer.vocab_size) * predictions / split.num_bytes)
    assert split.num_bytes == sum(split.document_bytes)


def test_a_tokenizer_without_an_end_of_text_is_a_wrong_recipe(make):
    _, _, wordpiece = make("bert-mini")
    with pytest.raises(UsageError, match=r"needs an end-of-text token.*tokenizer\.kind=byte_bpe"):
        build_objective(load_recipe("gpt2-mini"), wordpiece)
