"""Operations of a block in bfloat16 on the CPU, where torch's own are slower, or their gradients inexact.

Parameters are float32, and so are their gradients. Shapes: N rows of any leading dimensions, D and F widths.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def applies_to(values: Tensor) -> bool:
    """Whether to compute with these operations. A compiler makes its own."""
    return values.dtype == torch.bfloat16 and values.device.type == "cpu" and not torch.compiler.is_compiling()


@cache
def has_onednn_linear(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies a type here, by operations that torch makes for the code of its compiler."""
    # Private to torch: another version may lack them.
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
    if dtype == torch.bfloat16:
        return there and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return there and dtype == torch.float32


def product(rows_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` in one type, without gradients. Returns (N, F).

    Adds the bias while the product is in the cache; F.linear fills the result with it first and multiplies then.
    """
    if bias_F is not None and applies_to(rows_ND) and has_onednn_linear(rows_ND.dtype):
        return torch.ops.mkldnn._linear_pointwise(rows_ND, weight_FD, bias_F, "none", [], "")
    return F.linear(rows_ND, weight_FD, bias_F)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
        rows_ND, weight = _as_rows(values), weight_FD.to(values.dtype)
        bias = None if bias_F is None else bias_F.to(values.dtype)
        ctx.save_for_backward(rows_ND, weight)
        ctx.has_bias = bias is not None
        return product(rows_ND, weight, bias).view(*values.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows_ND, weight_FD = ctx.saved_tensors
        (gradient,) = gradients
        gradient_NF = _as_rows(gradient)
        of_values = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_values = (gradient_NF @ weight_FD).view(*gradient.shape[:-1], weight_FD.shape[1])
        if ctx.needs_input_grad[1]:
            # oneDNN is faster where the narrower of the two is the one to be transposed.
            is_wide = weight_FD.shape[0] > weight_FD.shape[1]
            of_weight = ((rows_ND.T @ gradient_NF).T if is_wide else gradient_NF.T @ rows_ND).float()
        if ctx.has_bias:
            of_bias = gradient_NF.sum(0).float()
        return of_values, of_weight, of_bias


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float) -> Tensor:
        normed, means, scales = torch.native_layer_norm(values, weight_D.shape, weight_D, bias_D, eps)
        ctx.save_for_backward(values, weight_D, means, scales)
        ctx.has_bias = bias_D is not None
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        values, weight_D, means, scales = ctx.saved_tensors
        (gradient,) = gradients
        of_values = _layer_norm_input_gradient(gradient, values, weight_D, means, scales)
        # Torch's kernel sums the parameters' gradients in bfloat16, which stops growing at 256 times what is added: it
        # lost half of a bias's gradient over 4,096 rows. Sums and products add up in float32.
        gradient_ND = _as_rows(gradient)
        of_bias_D = gradient_ND.sum(0).float() if ctx.has_bias else None
        centred_ND = (values - means.to(values.dtype)).reshape(gradient_ND.shape)
        return of_values, _column_sums(centred_ND.mul_(gradient_ND), scales.view(1, -1)), of_bias_D, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        values_ND = _as_rows(values)
        squares_N = torch.linalg.vector_norm(values_ND, dim=-1, dtype=torch.float32).square_().div_(len(weight_D))
        # Normalises each row as if it were a channel: one pass, with the scale in float32.
        normed_ND = F.batch_norm(values_ND[None], torch.zeros_like(squares_N), squares_N, eps=eps)[0]
        ctx.save_for_backward(values_ND, weight_D, squares_N.add_(eps).rsqrt_())
        return normed_ND.mul_(weight_D.to(values.dtype)).view(values.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        values_ND, weight_D, scales_N = ctx.saved_tensors
        (gradient,) = gradients
        gradient_ND, scales_N1 = _as_rows(gradient), scales_N[:, None]
        # Layer normalisation's with a mean of zero, but for the term that the mean would have brought.
        means_N1 = torch.zeros_like(scales_N1)
        of_values = _layer_norm_input_gradient(gradient_ND, values_ND, weight_D, means_N1, scales_N1)
        dots_N1 = (gradient_ND @ weight_D.to(gradient.dtype)[:, None]).float()
        of_values += dots_N1.mul_(scales_N1 / len(weight_D)).to(gradient.dtype)
        return of_values.view(gradient.shape), _column_sums(gradient_ND * values_ND, scales_N[None]), None


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _rotated(values, cosines, sines, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _rotated(gradients[0], cosines, sines, -1), None, None


def linear(values: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`: values (..., D). Returns (..., F)."""
    return _Linear.apply(values, weight_FD, bias_F)


def layer_norm(values: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float) -> Tensor:
    """`torch.nn.functional.layer_norm` over the last dimension."""
    return _LayerNorm.apply(values, weight_D, bias_D, eps)


def rms_norm(values: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.rms_norm` over the last dimension."""
    return _RMSNorm.apply(values, weight_D, eps)


def rotate(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of one number of the first half of the last dimension and one of the second."""
    return _Rotation.apply(values, cosines, sines)


def _as_rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])


def _layer_norm_input_gradient(
    gradient: Tensor, values: Tensor, weight_D: Tensor, means: Tensor, scales: Tensor
) -> Tensor:
    return torch.ops.aten.native_layer_norm_backward(
        gradient, values, weight_D.shape, means, scales, weight_D, None, [True, False, False]
    )[0]


def _column_sums(values_ND: Tensor, weights_1N: Tensor) -> Tensor:
    """Of the rows, weighted; float32 (D,)."""
    return (weights_1N.to(values_ND.dtype) @ values_ND)[0].float()


def _rotated(values: Tensor, cosines: Tensor, sines: Tensor, direction: int) -> Tensor:
    result = torch.empty(values.shape, dtype=values.dtype)
    (first, second), (first_result, second_result) = values.chunk(2, dim=-1), result.chunk(2, dim=-1)
    torch.mul(first, cosines, out=first_result).addcmul_(second, sines, value=-direction)
    torch.mul(second, cosines, out=second_result).addcmul_(first, sines, value=direction)
    return result


class _RepeatHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_BHSK: Tensor, times: int) -> Tensor:
        ctx.times = times
        return values_BHSK.repeat_interleave(times, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        first, *others = gradient.unflatten(1, (-1, ctx.times)).unbind(2)
        if len(others) == 1:
            return first + others[0], None
        total = first.float()
        for other in others:
            total += other
        return total.to(gradient.dtype), None


def repeat_heads(values_BHSK: Tensor, times: int) -> Tensor:
    """`repeat_interleave` of dimension 1; torch sums the gradients several times as slowly."""
    return _RepeatHeads.apply(values_BHSK, times)
