import os

import pytest
import torch

from tilth.model.threads import choose_threads, fastest, measure, threads_restored

CPU = torch.device("cpu")
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def torchs_own_number(monkeypatch: pytest.MonkeyPatch):
    """As a process starts in which nobody has chosen."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with threads_restored():
        torch.set_num_threads(CORES)
        yield


def test_the_fastest_number_is_taken_and_of_equals_the_largest():
    assert fastest({4: 1.0, 2: 1.6, 1: 3.0}) == 4
    assert fastest({4: 5.0, 2: 1.6, 1: 1.1}) == 1
    assert fastest({4: 1.05, 2: 1.0, 1: 3.0}) == 4


def test_every_number_is_measured_and_the_present_one_kept():
    seconds = measure([2, 1])
    assert list(seconds) == [2, 1]
    # 0.27 billion operations: no core does them in a twentieth of a millisecond.
    assert all(taken > 5e-5 for taken in seconds.values())
    assert torch.get_num_threads() == CORES


def test_the_choice_is_one_of_the_halves_and_is_set_until_the_end(capfd: pytest.CaptureFixture[str]):
    with threads_restored():
        chosen = choose_threads(CPU)
        assert chosen in [CORES >> halvings for halvings in range(CORES.bit_length())]
        assert torch.get_num_threads() == chosen
    assert torch.get_num_threads() == CORES
    said = f"Computing with {chosen} of {CORES} threads: the fastest now" in capfd.readouterr().err
    assert said == (chosen < CORES)


def test_a_run_goes_on_with_the_number_of_before(capfd: pytest.CaptureFixture[str]):
    assert choose_threads(CPU, recorded=CORES + 2) == torch.get_num_threads() == CORES + 2
    torch.set_num_threads(CORES)
    if CORES > 1:
        assert choose_threads(CPU, recorded=1) == torch.get_num_threads() == 1
        assert f"with 1 of {CORES} threads: as before" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "torch"])
def test_what_the_user_set_stays(name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    torch.set_num_threads(CORES + 3)
    if name != "torch":
        monkeypatch.setenv(name, str(CORES + 3))
    assert choose_threads(CPU) == torch.get_num_threads() == CORES + 3
    assert capfd.readouterr().err == ""
    assert choose_threads(CPU, recorded=1) == torch.get_num_threads() == CORES + 3
    assert f"with {CORES + 3} threads as set, not the 1 of before" in capfd.readouterr().err


def test_one_thread_is_said_in_the_singular(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    choose_threads(CPU, recorded=2)
    assert "Computing with 1 thread as set, not the 2 of before" in capfd.readouterr().err


def test_other_devices_do_not_compute_with_them():
    assert choose_threads(torch.device("cuda"), recorded=CORES + 5) == torch.get_num_threads() == CORES
