"""Values and gradients of the bfloat16 operations, against the same in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import NewGELUActivation

from tilth.model import cpu_bfloat16
from tilth.model.families import FAMILIES
from tilth.model.layers import MLP, repeat_heads, rotate

ROWS, WIDTH, EPS = 4096, 64, 1e-5
ROUNDING = 2**-8
"""Bound of one number's relative error where it is rounded to bfloat16 once."""

Operation = Callable[..., Tensor]
OPERATIONS: dict[str, tuple[Operation, Operation, tuple[int, ...]]] = {
    "linear to more columns": (cpu_bfloat16.linear, F.linear, (96, WIDTH)),
    "linear to fewer columns": (cpu_bfloat16.linear, F.linear, (32, WIDTH)),
    "layer_norm": (
        lambda values, weight, bias: cpu_bfloat16.layer_norm(values, weight, bias, EPS),
        lambda values, weight, bias: F.layer_norm(values, weight.shape, weight, bias, EPS),
        (WIDTH,),
    ),
    "layer_norm without a bias": (
        lambda values, weight, _: cpu_bfloat16.layer_norm(values, weight, None, EPS),
        lambda values, weight, _: F.layer_norm(values, weight.shape, weight, None, EPS),
        (WIDTH,),
    ),
    "rms_norm": (
        lambda values, weight, _: cpu_bfloat16.rms_norm(values, weight, EPS),
        lambda values, weight, _: F.rms_norm(values, weight.shape, weight, EPS),
        (WIDTH,),
    ),
}
"""(ours, torch's, shape of the weight)."""


def mean_error(found: Tensor, true: Tensor) -> float:
    """As a share of the true numbers' mean size."""
    return ((found.double() - true).abs().mean() / true.abs().mean()).item()


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (16, 256, WIDTH), (16, 2, 128, WIDTH)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_gradients_are_those_of_float64(name: str, shape: tuple[int, ...]):
    ours, theirs, weight_shape = OPERATIONS[name]
    generator = torch.Generator().manual_seed(len(shape))
    draw = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    values = (2 * draw(*shape) + 0.3).bfloat16()
    weight = draw(*weight_shape)
    bias = draw(len(weight))
    of_values = (draw(*shape[:-1], len(weight)) + 0.5).bfloat16()
    results = []
    for operation, kind in ((ours, None), (theirs, torch.float64)):
        leaves = [part.to(kind or part.dtype, copy=True).requires_grad_() for part in (values, weight, bias)]
        result = operation(*leaves)
        result.backward(of_values.to(result.dtype))
        results.append([result.detach(), *(leaf.grad for leaf in leaves)])
    for found, true in zip(*results, strict=True):
        if true is None:
            assert found is None
        else:
            assert mean_error(found, true) < ROUNDING


@pytest.mark.parametrize("shape", [(0, WIDTH), (0, 4, WIDTH)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_rows_give_no_values_and_gradients_of_zero(name: str, shape: tuple[int, ...]):
    """A micro-batch of which nothing is predicted."""
    ours, _, weight_shape = OPERATIONS[name]
    values = torch.empty(shape, dtype=torch.bfloat16, requires_grad=True)
    weight, bias = (torch.ones(size, requires_grad=True) for size in (weight_shape, weight_shape[:1]))
    result = ours(values, weight, bias)
    result.sum().backward()
    assert result.shape == (*shape[:-1], weight_shape[0])
    assert values.grad is not None and values.grad.shape == shape
    assert weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("there", [True, False])
def test_a_product_has_its_bias_where_onednn_is_there_and_where_it_is_not(there, monkeypatch):
    if not there:
        monkeypatch.setattr(cpu_bfloat16, "has_onednn_linear", lambda dtype: False)
    generator = torch.Generator().manual_seed(0)
    values, weight, bias = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((9, 16), (5, 16), (5,)))
    for added in (bias, None):
        true = F.linear(values.double(), weight.double(), None if added is None else added.double())
        assert mean_error(cpu_bfloat16.product(values, weight, added), true) < ROUNDING


def test_gradients_of_a_transposed_view():
    """Attention hands on heads that are not contiguous."""
    values = torch.randn(3, 5, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.linspace(0.5, 1.5, 8)
    gradients = []
    for part in (values, values.clone().contiguous()):
        leaf = part.requires_grad_()
        cpu_bfloat16.rms_norm(leaf.transpose(1, 2), weight, EPS).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    true = values.detach().double().requires_grad_()
    F.rms_norm(true.transpose(1, 2), weight.shape, weight.double(), EPS).sum().backward()
    assert true.grad is not None and gradients[0] is not None
    assert mean_error(gradients[0], true.grad) < 2 * ROUNDING


def test_a_rotation_and_its_gradient_are_those_of_float64():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 7, 3, 8, generator=generator).bfloat16()
    angles = torch.randn(2, 1, 7, 4, generator=generator)
    turn = angles.cos().bfloat16(), angles.sin().bfloat16()
    results = []
    for kind in (torch.bfloat16, torch.float64):
        leaf = values.to(kind, copy=True).requires_grad_()
        turned = rotate(leaf.transpose(1, 2), (turn[0].to(kind), turn[1].to(kind)))
        turned.backward((torch.arange(turned.numel()) % 5).view(turned.shape).to(kind))
        results.append((turned.detach(), leaf.grad))
    for found, true in zip(*results, strict=True):
        assert mean_error(found, true) < ROUNDING


@pytest.mark.parametrize("times", [2, 4])
def test_repeated_heads_and_their_gradient_are_those_of_float64(times):
    values = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    of_heads = torch.randn(2, 3 * times, 5, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    results = []
    for kind in (torch.bfloat16, torch.float64):
        leaf = values.to(kind, copy=True).requires_grad_()
        repeated = repeat_heads(leaf, times)
        repeated.backward(of_heads.to(kind))
        results.append((repeated.detach(), leaf.grad))
    (found, gradient), (true, true_gradient) = results
    assert torch.equal(found.double(), true)
    assert true_gradient is not None and torch.equal(gradient, true_gradient.bfloat16())


def test_the_approximate_gelu_is_nearer_to_its_formula_than_transformers_is():
    values = (2 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))).bfloat16()
    config = FAMILIES["gpt2"].sizes["mini"]
    results = []
    for activate, kind in (
        (MLP(config).activate, torch.bfloat16),
        (NewGELUActivation(), torch.bfloat16),
        (lambda exact: F.gelu(exact, approximate="tanh"), torch.float64),
    ):
        leaf = values.to(kind, copy=True).requires_grad_()
        activate(leaf).sum().backward()
        results.append((activate(leaf).detach(), leaf.grad))
    for ours, theirs, formula in zip(*results, strict=True):
        assert mean_error(ours, formula) < mean_error(theirs, formula)
