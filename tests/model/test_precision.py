import pytest
import torch

from tilth.errors import UsageError
from tilth.model.precision import compute_dtype, describe_processor, pick_device
from tilth.model.threads import threads_restored

CPU = torch.device("cpu")


def test_a_named_type_is_taken_and_auto_is_what_the_processor_has_units_for(monkeypatch):
    assert compute_dtype("float32", CPU) == torch.float32
    assert compute_dtype("bfloat16", CPU) == torch.bfloat16
    for capabilities, expected in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        assert compute_dtype("auto", CPU) == expected
    assert compute_dtype("auto", torch.device("mps")) == torch.float32


def test_the_best_device_that_is_there_is_picked(monkeypatch):
    assert pick_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == CPU
    for absent in ("cuda", "cuda:1", "mps", "tpu"):
        with pytest.raises(UsageError, match=rf"no device '{absent}' here; available: auto, cpu"):
            pick_device(absent)
    with pytest.raises(UsageError, match="'cpu:first' names no device; write one as cpu or cpu:0"):
        pick_device("cpu:first")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_the_processor_is_named_in_words():
    with threads_restored():
        for threads, words in ((2, ", 2 threads"), (1, ", 1 thread")):
            torch.set_num_threads(threads)
            assert describe_processor(CPU).endswith(words)
