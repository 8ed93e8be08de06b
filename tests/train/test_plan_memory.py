"""The memory that a plan predicts, against what torch's allocator reports of a real step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tilth.model.families import FAMILIES
from tilth.recipe import load_recipe
from tilth.train.planning.memory import (
    SPARE,
    Network,
    _free_in_control_group,
    estimate,
    free_memory,
    measured_peak,
    rows_that_fit,
)

HEADS = {
    "bert": ("masked", "next_sentence"),
    "roberta": ("masked",),
    "electra": ("replaced_token",),
    "modernbert": ("masked",),
    "gpt2": ("causal",),
    "gpt3": ("causal",),
    "qwen3": ("causal",),
}
CPU = torch.device("cpu")


def network(name: str, length: int, precision: str = "float32", *settings: str, device: torch.device = CPU) -> Network:
    recipe = load_recipe(f"{name}-mini", [f"data.length={length}", *settings])
    config = replace(FAMILIES[name].sizes["mini"], vocab_size=8192, max_length=length)
    return Network(FAMILIES[name], config, HEADS[name], recipe, getattr(torch, precision), device)


def small(name: str) -> Network:
    """One block, so that estimating is quick."""
    model = network(name, 32)
    return replace(model, config=replace(model.config, layers=1, width=64, heads=2, head_size=32, mlp_width=256))


CASES = {
    "bert": [(2, 64, "float32", 2, ())],
    "roberta": [(2, 64, "bfloat16", 2, ("train.optimizer=adamw",))],
    "gpt2": [(2, 256, "float32", 1, ("model.dropout=0.1",))],
    "gpt3": [(1, 64, "float32", 1, ())],
    "electra": [(4, 64, "float32", 2, ()), (1, 64, "bfloat16", 1, ())],
    "modernbert": [(4, 64, "float32", 2, ())],
    "qwen3": [(1, 64, "bfloat16", 2, ())],
}
GRID = [
    pytest.param(name, rows, length, precision, micro_batches, (), marks=pytest.mark.slow)
    for name in HEADS
    for rows, length in ((1, 64), (16, 64), (4, 128), (16, 128), (2, 512), (8, 512))
    for precision in ("float32", "bfloat16")
    for micro_batches in (1, 2)
]


@pytest.mark.parametrize(
    ("name", "rows", "length", "precision", "micro_batches", "settings"),
    [*((name, *case) for name, cases in CASES.items() for case in cases), *GRID],
)
def test_the_estimate_is_what_the_allocator_reports(name, rows, length, precision, micro_batches, settings):
    """Promised are 10 %; the two count the same tensors, so 1 % holds."""
    model = network(name, length, precision, *settings)
    memory = estimate(model, rows, micro_batches)
    assert memory.peak == pytest.approx(measured_peak(model, rows, micro_batches), rel=0.01)
    parameters = sum(parameter.nbytes for parameter in model.model().parameters())
    assert memory.weights == memory.gradients == parameters
    if "train.optimizer=adamw" in settings:  # two moments, and a count of steps for each tensor
        assert memory.optimizer == pytest.approx(2 * parameters, rel=1e-3)
    else:
        assert parameters < memory.optimizer < 2 * parameters
    parts = memory.weights + memory.gradients + memory.optimizer + memory.activations
    assert memory.peak == parts if micro_batches > 1 else memory.peak <= parts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "precision"), [("bert", "bfloat16"), ("gpt2", "bfloat16"), ("gpt3", "float32")])
def test_the_estimate_is_about_what_a_gpu_takes(name, precision):
    """Of so small a model the working memory of libraries is a tenth, which is not in the estimate."""
    model = network(name, 256, precision, device=torch.device("cuda"))
    for micro_batches in (1, 2):
        estimated = estimate(model, 64, micro_batches).peak
        assert estimated == pytest.approx(measured_peak(model, 64, micro_batches), rel=0.15)


def test_activations_grow_with_rows_and_weights_do_not():
    one, two, four = (estimate(small("roberta"), rows, 2) for rows in (64, 128, 256))
    assert one.weights == two.weights == four.weights and one.optimizer == two.optimizer == four.optimizer
    assert 1.5 < two.activations / one.activations < 2.1
    assert 1.5 < four.activations / two.activations < 2.1


def test_the_rows_that_fit_are_the_most_halvings_that_do():
    model = small("roberta")
    needed = estimate(model, 16, 2).peak
    rows, memory = rows_that_fit(model, 32, int(needed / (1 - SPARE)) + 1)
    assert rows == 16 and memory.peak == needed
    assert rows_that_fit(model, 32, int(needed / (1 - SPARE)) - 10)[0] == 8
    assert rows_that_fit(model, 2, 1000)[0] == 0


def test_a_large_model_is_estimated_without_its_memory():
    """GPT-3's 6.7B with two of its blocks: some 2.5 GB of weights, of which none is allocated."""
    family = FAMILIES["gpt3"]
    recipe = load_recipe("gpt3-mini", ["data.length=256"])
    config = replace(family.sizes["6.7b"], layers=2)
    before = int(Path("/proc/self/statm").read_text().split()[1])
    memory = estimate(Network(family, config, ("causal",), recipe, torch.bfloat16, CPU), 1, 1)
    assert int(Path("/proc/self/statm").read_text().split()[1]) - before < 25_000  # pages of 4 KB
    assert memory.weights == pytest.approx(4 * (2 * 12 * 4096**2 + (50_257 + 2048) * 4096), rel=1e-3)
    assert memory.peak > memory.weights + memory.gradients + memory.optimizer


def test_free_memory_is_that_of_the_machine_or_its_container(tmp_path: Path):
    free = free_memory(CPU)
    assert free is not None and 10**7 < free < 10**14
    assert _free_in_control_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert _free_in_control_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("5000\n")
    assert _free_in_control_group(tmp_path) == 4000
