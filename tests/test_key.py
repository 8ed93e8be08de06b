import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.key import Key, permute


def test_equal_keys_draw_equal_numbers_and_any_field_changes_them():
    draws = {
        key: tuple(key.generator().integers(0, 2**63, 4))
        for key in (Key(0, 0, "masks"), Key(1, 0, "masks"), Key(0, 1, "masks"), Key(0, 0, "order"), Key(0, 11, "a"))
    }
    assert len(set(draws.values())) == len(draws)
    for key, drawn in draws.items():
        assert tuple(key.generator().integers(0, 2**63, 4)) == drawn


def test_draws_are_the_same_on_every_machine_and_version():
    key = Key(7, 42, "masks")
    assert key.digest() == 0xC083ECB24B00D4E25C09D7004849E338
    assert key.generator().integers(0, 1000, 5).tolist() == [303, 530, 470, 195, 49]
    assert permute(np.arange(10), 10, key).tolist() == [7, 0, 2, 9, 3, 6, 8, 5, 4, 1]


def test_torch_seed_is_what_torch_accepts():
    for index in range(100):
        assert 0 <= Key(0, index, "dropout").torch_seed() < 2**63


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_permute_is_a_bijection(size, seed):
    permuted = permute(np.arange(size), size, Key(seed, 0, "order"))
    assert permuted.dtype == np.int64
    np.testing.assert_array_equal(np.sort(permuted), np.arange(size))


@given(st.integers(1, 5000), st.data())
def test_permute_of_a_part_agrees_with_the_whole(size, data):
    key = Key(3, 1, "order")
    part = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    np.testing.assert_array_equal(permute(part, size, key), permute(np.arange(size), size, key)[part])


def test_permute_keeps_the_shape():
    key = Key(0, 0, "order")
    flat = permute(np.arange(12), 12, key)
    np.testing.assert_array_equal(permute(np.arange(12).reshape(3, 4), 12, key), flat.reshape(3, 4))
    assert permute(np.array(5), 12, key) == flat[5]
    assert permute(np.zeros(0, np.int64), 0, key).shape == (0,)


@pytest.mark.parametrize("size", [1000, 1024, 4097, 65_536])
def test_permute_leaves_no_trace_of_the_order(size):
    """Over many keys, fixed points, correlation and neighbours that stay neighbours are as rare as chance has them."""
    indexes = np.arange(size)
    fixed, correlations, neighbours = [], [], []
    for seed in range(50):
        permuted = permute(indexes, size, Key(seed, 0, "order"))
        fixed.append((permuted == indexes).sum())
        correlations.append(np.corrcoef(indexes, permuted)[0, 1])
        neighbours.append((np.abs(np.diff(permuted)) == 1).sum())
    assert 0.4 < np.mean(fixed) < 1.8  # Poisson(1) over 50 keys: mean 1, standard error 0.14
    assert 1.0 < np.mean(neighbours) < 3.2  # Poisson(2): mean 2, standard error 0.2
    assert abs(np.mean(correlations)) < 5 / np.sqrt(50 * size)
    assert 0.6 < np.std(correlations) * np.sqrt(size) < 1.5


def test_permute_sends_every_index_everywhere():
    """One index over many keys covers the range evenly: chi-squared of 15 degrees of freedom, below its 1e-6 tail."""
    goals = [int(permute(np.array([3]), 1000, Key(seed, 0, "order"))[0]) for seed in range(3200)]
    counts = np.bincount(np.array(goals) * 16 // 1000, minlength=16)
    expected = np.array([((np.arange(1000) * 16 // 1000) == cell).sum() for cell in range(16)]) * 3.2
    assert ((counts - expected) ** 2 / expected).sum() < 56.5


def test_permute_refuses_an_index_outside():
    with pytest.raises(AssertionError):
        permute(np.array([10]), 10, Key(0, 0, "order"))
