"""Compiled functions that do not use up one another's room, and what they are compiled with."""

import importlib.util
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch


def compile_apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of a copy of a function.

    torch counts what it has compiled by code object, and from eight variants on runs what is new as it is: each kind of
    input that is known beforehand gets a code object of its own.
    """
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(copy)


@cache
def has_triton(device: torch.device) -> bool:
    """Whether GPU kernels can be written in Triton, which torch brings along on Linux, for an NVIDIA device."""
    return device.type == "cuda" and torch.version.hip is None and importlib.util.find_spec("triton") is not None
