"""How much of this machine is ours to use."""

import os


def usable_processors() -> int:
    """How many logical processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
