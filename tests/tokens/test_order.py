import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilth.tokens.order import row_indexes


@given(num_rows=st.integers(1, 200), rows_per_step=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_every_row_comes_once_per_epoch_for_any_batch_size(num_rows: int, rows_per_step: int, seed: int):
    steps = -(-3 * num_rows // rows_per_step)
    parts = [row_indexes(step, rows_per_step, num_rows, seed) for step in range(steps)]
    indexes = np.concatenate([indexes for indexes, _ in parts])[: 3 * num_rows]
    epochs = np.concatenate([epochs for _, epochs in parts])[: 3 * num_rows]
    assert epochs.tolist() == np.repeat([0, 1, 2], num_rows).tolist()
    for epoch in range(3):
        assert sorted(indexes[epochs == epoch]) == list(range(num_rows))


def test_the_order_differs_between_epochs_and_seeds():
    first = row_indexes(0, 500, 500, seed=0)[0]
    assert not np.array_equal(first, np.arange(500))
    assert not np.array_equal(first, row_indexes(1, 500, 500, seed=0)[0])
    assert not np.array_equal(first, row_indexes(0, 500, 500, seed=1)[0])


def test_a_step_is_the_same_whatever_the_number_of_rows_a_step_takes():
    whole = row_indexes(0, 60, 25, seed=3)
    halves = [row_indexes(step, 30, 25, seed=3) for step in range(2)]
    for part in range(2):
        assert np.array_equal(whole[part], np.concatenate([half[part] for half in halves]))
