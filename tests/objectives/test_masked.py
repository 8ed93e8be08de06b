import numpy as np
import pytest

from tilth.errors import UsageError
from tilth.objectives import build_objective
from tilth.objectives.masked import Masking
from tilth.recipe import load_recipe

SEED = 3


def masked(batch):
    """(corrupted (B, S), original (B, S), chosen (B, S)) of a batch."""
    corrupted = batch.inputs.tokens.numpy()
    places, targets = (tensor.numpy() for tensor in vars(batch.predictions["masked"]).values())
    original, chosen = corrupted.copy(), np.zeros(corrupted.shape, dtype=bool)
    original.reshape(-1)[places] = targets
    chosen.reshape(-1)[places] = True
    return corrupted, original, chosen


def batch_of(objective, packing, indexes, epoch=0, seed=SEED):
    return objective.make_batch(packing, np.array(indexes), np.full(len(indexes), epoch), seed)


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_each_row_has_exactly_its_share_of_predictions(make, rate):
    objective, packing, tokenizer = make("roberta-mini", f"objective.rate={rate}")
    every = np.arange(packing.num_rows)
    original, _, documents = packing.rows(every).dense(objective.pad)
    ordinary = (documents >= 0) & ~np.isin(original, list(tokenizer.special_ids))
    _, restored, chosen = masked(batch_of(objective, packing, every))
    assert (restored == original).all()
    assert (chosen.sum(1) == np.maximum(1, np.rint(rate * ordinary.sum(1)))).all()
    assert not (chosen & ~ordinary).any()
    assert ordinary.sum() < (documents >= 0).sum() < documents.size


@pytest.fixture(scope="module")
def masking(make):
    """A function: the masking of a recipe, and its tokenizer."""

    def build(*overrides: str) -> Masking:
        return make("roberta-mini", *overrides)[0].masking

    return build


def test_a_row_of_few_tokens_has_one_prediction_and_one_of_none_has_none(masking):
    masking = masking()
    word = int(masking.ordinary[7])
    special = int(np.flatnonzero(masking.is_special)[0])
    tokens = np.array([[special, word, special], [special, special, special], [word, word, word]])
    real = np.array([[True, True, True], [True, True, True], [True, False, False]])
    _, predictions = masking.apply(tokens, real, np.arange(3), np.zeros(3, dtype=np.int64), SEED)
    assert predictions.places.tolist() == [1, 6]
    assert predictions.targets.tolist() == [word, word]


def test_of_the_chosen_four_fifths_are_hidden_and_a_tenth_replaced(masking):
    masking = masking("objective.rate=0.5")
    rows, width = 600, 96
    tokens = np.full((rows, width), masking.ordinary[0])
    corrupted, predictions = masking.apply(
        tokens, np.ones_like(tokens, dtype=bool), np.arange(rows), np.zeros(rows, dtype=np.int64), SEED
    )
    chosen = corrupted.reshape(-1)[predictions.places.numpy()]
    assert len(chosen) == rows * width // 2
    hidden, same = chosen == masking.mask, chosen == masking.ordinary[0]
    replaced = chosen[~hidden & ~same]
    # Four standard deviations of a share of these 28,800 draws are below 0.01.
    assert hidden.mean() == pytest.approx(0.8, abs=0.01)
    assert same.mean() == pytest.approx(0.1, abs=0.01)
    assert len(replaced) / len(chosen) == pytest.approx(0.1, abs=0.01)
    assert set(replaced) <= set(masking.ordinary)
    assert len(set(replaced)) > 0.9 * len(masking.ordinary)
    places = np.bincount(predictions.places.numpy() % width, minlength=width) / rows
    assert np.abs(places - 0.5).max() < 0.1


def test_random_tokens_and_predictions_are_never_special(make):
    objective, packing, tokenizer = make("bert-mini", "objective.name=masked", "objective.rate=0.9")
    for epoch in range(5):
        corrupted, original, chosen = masked(batch_of(objective, packing, np.arange(packing.num_rows), epoch))
        assert not np.isin(original[chosen], list(tokenizer.special_ids)).any()
        changed = chosen & (corrupted != original) & (corrupted != tokenizer.special.mask)
        assert changed.any()
        assert not np.isin(corrupted[changed], list(tokenizer.special_ids)).any()


@pytest.mark.parametrize("name", ["bert-mini", "roberta-mini"])
def test_fixed_masks_come_again_after_all_copies(make, name):
    objective, packing, _ = make(name, "objective.masks=fixed", "objective.duplicates=3")
    epochs = [batch_of(objective, packing, [0, 4], epoch).inputs.tokens.tolist() for epoch in range(6)]
    assert epochs[:3] == epochs[3:]
    assert all(epochs[first] != epochs[second] for first, second in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("name", ["bert-mini", "roberta-mini"])
def test_fresh_masks_differ_in_every_epoch(make, name):
    objective, packing, _ = make(name, "objective.masks=fresh")
    epochs = [str(batch_of(objective, packing, [0, 4], epoch).inputs.tokens.tolist()) for epoch in range(12)]
    assert len(set(epochs)) == 12


@pytest.mark.parametrize("name", ["bert-mini", "roberta-mini"])
def test_a_row_is_masked_the_same_in_any_batch(make, name):
    objective, packing, _ = make(name)
    together = batch_of(objective, packing, [7, 2, 5])
    for place, row in enumerate([7, 2, 5]):
        alone = batch_of(objective, packing, [row])
        assert together.inputs.tokens[place].tolist() == alone.inputs.tokens[0].tolist()
    assert together.inputs.tokens.tolist() == batch_of(objective, packing, [7, 2, 5]).inputs.tokens.tolist()
    other_seed = batch_of(objective, packing, [7, 2, 5], seed=SEED + 1)
    assert together.inputs.tokens.tolist() != other_seed.inputs.tokens.tolist()


def test_epochs_may_differ_within_a_batch(make):
    objective, packing, _ = make("roberta-mini")
    mixed = objective.make_batch(packing, np.array([3, 3]), np.array([0, 1]), SEED)
    for place in (0, 1):
        assert mixed.inputs.tokens[place].tolist() == batch_of(objective, packing, [3], place).inputs.tokens[0].tolist()
    assert mixed.inputs.tokens[0].tolist() != mixed.inputs.tokens[1].tolist()


def test_attention_stays_in_documents_unless_the_recipe_says_so(make):
    for cross in (False, True):
        objective, packing, _ = make("roberta-mini", f"data.cross_documents={str(cross).lower()}")
        rows = packing.rows(np.arange(packing.num_rows))
        several = int(np.argmax(np.bincount(rows.row)))
        inputs = batch_of(objective, packing, [several]).inputs
        real = inputs.documents[0] >= 0
        if cross:
            assert set(inputs.documents[0][real].tolist()) == {0}
            assert inputs.positions[0][real].tolist() == list(range(int(real.sum())))
        else:
            assert set(inputs.documents[0][real].tolist()) == set(range(int(np.bincount(rows.row).max())))
            assert (inputs.positions[0] == 0)[real].sum() == np.bincount(rows.row).max()


def test_bits_per_byte_charges_every_token_alike(make):
    objective, packing, _ = make("roberta-mini", split="validation")
    split = packing.split
    assert objective.bits_per_byte(np.log(8), split) == pytest.approx(3 * split.num_tokens / split.num_bytes)


def test_a_tokenizer_without_a_mask_is_a_wrong_recipe(make):
    _, _, characters = make("gpt2-mini", "tokenizer.kind=characters")
    with pytest.raises(UsageError, match=r"needs mask, start and separator tokens.*tokenizer\.kind=wordpiece"):
        build_objective(load_recipe("roberta-mini"), characters)
