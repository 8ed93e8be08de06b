"""What a benchmark ran on, its table, and where that goes."""

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from tilth.model.precision import compute_dtype, describe_processor


def describe(precision: str = "auto", device: str = "cpu") -> str:
    """One line: processor, threads, compute type, versions. precision: the recipe's."""
    computes_on = torch.device(device)
    dtype = str(compute_dtype(precision, computes_on)).removeprefix("torch.")
    return f"{describe_processor(computes_on)}; {dtype}; torch {torch.__version__}; Python {platform.python_version()}"


def add_results(parser: argparse.ArgumentParser, script: str) -> None:
    """Let `--results` name the page to write: by default that of the script in `results`, beside it."""
    path = Path(script)
    default = path.parent / "results" / f"{path.stem}.md"
    parser.add_argument("--results", type=Path, default=default, help="the page to write, elsewhere for a short trial")


def write_table(path: Path, doc: str, about: str, lines: Sequence[str]) -> None:
    """Write a results page: the first two paragraphs of a benchmark's docstring, what to know of the run, the table."""
    head = "\n\n".join(doc.split("\n\n")[:2])
    path.write_text(f"# {head}\n\n{about}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
