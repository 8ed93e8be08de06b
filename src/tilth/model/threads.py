"""How many threads to compute with on a CPU: as many as there are cores, unless other processes keep those busy.

Threads that work on one matrix product wait for the slowest of them. Beside another busy process that is one whose core
was taken away, and all cores together can be several times slower than one.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from tilth.processors import usable_processors

MEASURE_SECONDS = 0.3
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Put torch's number of threads back at the end; also a decorator."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_threads(device: torch.device, recorded: int | None = None, shown: bool = True) -> int:
    """Set torch's number of threads for training, and return it.

    A number that the user chose stays: OMP_NUM_THREADS, MKL_NUM_THREADS, or `torch.set_num_threads` with another number
    than torch's own (the cores, or half of them where two share one). Else it is `recorded`, that of a run to go on
    with, because the number of threads changes the last bits of sums; else the fastest of torch's number, a half, a
    quarter, ... and one, in products measured for a third of a second. shown: say on standard error what is unusual.
    """
    present, cores = torch.get_num_threads(), usable_processors()
    if device.type != "cpu":
        return present
    if any(os.environ.get(name) for name in _VARIABLES) or present not in (cores, cores // 2):
        if recorded not in (None, present) and shown:
            number = threads_in_words(present)
            _say(f"Computing with {number} as set, not the {recorded} of before: the last bits may differ")
        return present
    chosen = recorded or fastest(measure([present >> halvings for halvings in range(present.bit_length())]))
    torch.set_num_threads(chosen)
    if chosen < present and shown:
        why = "as before" if recorded else "the fastest now, beside other work"
        _say(f"Computing with {chosen} of {threads_in_words(present)}: {why} (OMP_NUM_THREADS sets another number)")
    return chosen


@torch.no_grad()
def measure(candidates: Sequence[int]) -> dict[int, float]:
    """Mean seconds of a block's first matrix product and GELU, for each number of threads, taken in turn."""
    rows_ND, weight_FD = torch.ones(512, 256), torch.ones(1024, 256)
    totals = dict.fromkeys(candidates, 0.0)
    rounds = 0
    with threads_restored():
        began = time.perf_counter()
        while rounds < 3 or time.perf_counter() - began < MEASURE_SECONDS:
            for threads in candidates:
                torch.set_num_threads(threads)
                F.gelu(F.linear(rows_ND, weight_FD))  # starts the threads
                started = time.perf_counter()
                for _ in range(4):
                    F.gelu(F.linear(rows_ND, weight_FD))
                totals[threads] += (time.perf_counter() - started) / 4
            rounds += 1
    return {threads: total / rounds for threads, total in totals.items()}


def fastest(seconds: dict[int, float]) -> int:
    """The number of threads with the least seconds; of those within a tenth of it, the largest."""
    least = min(seconds.values())
    return max(threads for threads, taken in seconds.items() if taken <= 1.1 * least)


def threads_in_words(number: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} thread" if number == 1 else f"{number} threads"


def _say(message: str) -> None:
    print(message, file=sys.stderr)
