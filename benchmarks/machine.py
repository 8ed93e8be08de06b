"""What a benchmark ran on, for the head of its table."""

import platform

import torch

from tilth.model.precision import compute_dtype, describe_processor


def describe(precision: str = "auto") -> str:
    """One line: processor, threads, compute type, versions. precision: the recipe's."""
    device = torch.device("cpu")
    dtype = str(compute_dtype(precision, device)).removeprefix("torch.")
    return f"{describe_processor(device)}; {dtype}; torch {torch.__version__}; Python {platform.python_version()}"
