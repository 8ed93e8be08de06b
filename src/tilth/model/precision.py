"""Which device, which type to compute in, and how the processor is set up for training."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from tilth.errors import UsageError
from tilth.model.threads import threads_in_words


def pick_device(setting: str = "auto") -> torch.device:
    """The device to compute on: the one named, or the first of CUDA, Apple's mps (untested) and the CPU that is there.

    Raises: UsageError when the named device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if setting == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    kind = setting.partition(":")[0]
    if not available.get(kind, False):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise UsageError(f"no device {setting!r} here; available: auto, {there}")
    try:
        return torch.device(setting)
    except RuntimeError:
        raise UsageError(f"{setting!r} names no device; write one as {kind} or {kind}:0") from None


def compute_dtype(setting: str, device: torch.device) -> torch.dtype:
    """The type of activations. auto: bfloat16 where the processor has units for it, else float32."""
    if setting == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[setting]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("amx_bf16", "amx_tile", "avx512_bf16"))
    return False


@contextlib.contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """On a GPU, choose the kernels that give the same bits each time; on a CPU they do so anyway."""
    if device.type != "cuda":
        yield
        return
    # What cuBLAS needs for it (its documentation, "Results reproducibility"); it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    before, fills = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it guards against reading what was never written, at the cost of time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fills


def keep_freed_memory() -> None:
    """Let the C allocator keep what it frees (glibc only).

    By default every large activation is a fresh mapping whose pages the kernel must clear; keeping them made a
    forward and backward pass about twice as fast on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def return_freed_memory(device: torch.device) -> None:
    """Give back what the allocators keep of freed memory, so that it can be cut anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def describe_processor(device: torch.device) -> str:
    """What computes, in words, for logs and reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    cores = os.cpu_count() or 1
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}, {threads_in_words(torch.get_num_threads())}"
