"""Cross-entropy over a large vocabulary without holding all logits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LOGITS = 8_000_000
"""Logits held at once, in the compute type."""
CACHED_LOGITS = 2**18
"""Logits held in float32 at once on a CPU: 1 MB, which a core's cache holds."""


Gradients = tuple[Tensor, Tensor, Tensor | None]


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, where the logits are at hand; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
        bias_gradient = None if bias_V is None else torch.zeros_like(bias_V)
        ctx.gradients = (torch.empty_like(features_ND), torch.zeros_like(weight_VD), bias_gradient)
        return _chunked_loss(features_ND, weight_VD, bias_V, targets_N, ctx.gradients)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = output_gradients
        # The scale stays float32: rounded to bfloat16 it would be off by up to 0.4 % for all features alike.
        scaled = tuple(None if gradient is None else gradient * scale for gradient in ctx.gradients)
        return *scaled, None


def linear_cross_entropy(features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """Sum over N of the cross-entropy of softmax(features @ weight.T + bias) against the targets, in nats.

    features (N, D) in the compute type; weight (V, D) and bias (V,) float32; targets (N,) int64. Returns a float32
    scalar.
    The idea is that of fused linear cross-entropy (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
    Models").
    """
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(features_ND, weight_VD, bias_V, targets_N)
    return _chunked_loss(features_ND, weight_VD, bias_V, targets_N, None)


def _chunked_loss(
    features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, gradients: Gradients | None
) -> Tensor:
    """The loss; `gradients` (of features, weight and bias), where given, are filled in on the way."""
    weight = weight_VD.to(features_ND.dtype)
    bias = None if bias_V is None else bias_V.to(features_ND.dtype)
    loss = torch.zeros((), dtype=torch.float32, device=features_ND.device)
    rows = max(1, CHUNK_LOGITS // len(weight_VD))
    for start in range(0, len(features_ND), rows):
        chunk = slice(start, start + rows)
        logits = F.linear(features_ND[chunk], weight, bias)
        if gradients is None:
            loss += _softmax_loss(logits, targets_N[chunk])
            continue
        features_gradient, weight_gradient, bias_gradient = gradients
        loss += _softmax_loss(logits, targets_N[chunk], bias_gradient, into_gradient=True)
        features_gradient[chunk] = logits @ weight
        weight_gradient += (logits.T @ features_ND[chunk]).float()
    return loss


def _softmax_loss(
    logits_NV: Tensor, targets_N: Tensor, bias_gradient_V: Tensor | None = None, into_gradient: bool = False
) -> Tensor:
    """The loss of some rows, in float32. into_gradient: the logits become its gradient, also added to the bias's.

    On a CPU a few rows at a time, so that what lies between reading and writing them stays in the cache.
    """
    loss = torch.zeros((), dtype=torch.float32, device=logits_NV.device)
    rows = max(1, CACHED_LOGITS // logits_NV.shape[1]) if logits_NV.device.type == "cpu" else len(logits_NV)
    for start in range(0, len(logits_NV), rows):
        logits, targets = logits_NV[start : start + rows], targets_N[start : start + rows, None]
        log_probabilities = F.log_softmax(logits.float(), dim=-1)
        of_targets = log_probabilities.gather(1, targets)
        loss -= of_targets.sum()
        if into_gradient:
            gradient = log_probabilities.exp_().scatter_add_(1, targets, torch.full_like(of_targets, -1.0))
            if bias_gradient_V is not None:
                bias_gradient_V += gradient.sum(0)
            logits.copy_(gradient)
    return loss
