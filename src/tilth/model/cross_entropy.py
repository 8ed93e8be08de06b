"""Cross-entropy over a large vocabulary without holding all logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tilth.model import cpu_bfloat16
from tilth.model.compiled import has_triton

CHUNK_LOGITS = {"cpu": 20_000_000, "cuda": 2**29, "mps": 20_000_000}
"""Logits held at once, in the compute type, by device: a GPU needs more to be kept busy. Each chunk costs a pass over
the gradient of the weight."""
FLOAT_LOGITS = {"cpu": 2**18, "cuda": 2**25, "mps": 2**25}
"""Logits held in float32 at once: 1 MB on a CPU, which a core's cache holds."""
ALIGNMENT = {"cpu": 32, "cuda": 128, "mps": 1}
"""Of the columns of logits, in bfloat16 or on a GPU. A GPU's kernels are several times slower where a side is no
multiple of 8, and their tiles have 128; on a CPU the logits take half as long again or more where their rows begin
within a line of the cache."""


Gradients = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Sample:
    """Words that stand for the whole vocabulary in the loss of a step.

    words (C,): int64, each once. log_weights (C,): float32, the logarithm of how many words each stands for. places
    (V,): int64, where each word of the vocabulary is among them, -1 where it is not.
    """

    words: Tensor
    log_weights: Tensor
    places: Tensor


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, where the logits are at hand; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        features_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        fused: bool,
        sample: Sample | None,
    ) -> Tensor:
        bias_gradient = None if bias_V is None else torch.zeros_like(bias_V)
        make_weight_gradient = torch.empty_like if len(features_ND) and sample is None else torch.zeros_like
        ctx.gradients = (torch.empty_like(features_ND), make_weight_gradient(weight_VD), bias_gradient)
        if sample is not None:
            return _sampled_loss(features_ND, weight_VD, bias_V, targets_N, ctx.gradients, fused, sample)
        return _chunked_loss(features_ND, weight_VD, bias_V, targets_N, ctx.gradients, fused)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = output_gradients
        if ctx.gradients is None:
            raise RuntimeError("the gradients were given away: run the forward pass again")
        gradients, ctx.gradients = ctx.gradients, None
        # The scale stays float32: rounded to bfloat16 it would be off by up to 0.4 % for all features alike. On a GPU
        # it needs a dimension for that.
        scale = scale if scale.device.type == "cpu" else scale.view(1)
        return *(None if gradient is None else gradient.mul_(scale) for gradient in gradients), None, None, None


def linear_cross_entropy(
    features_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    fused: bool = False,
    sample: Sample | None = None,
) -> Tensor:
    """Sum over N of the cross-entropy of softmax(features @ weight.T + bias) against the targets, in nats.

    features (N, D) in the compute type; weight (V, D) and bias (V,) float32; targets (N,) int64, each below V. fused:
    on a GPU, do what happens to the logits in one kernel, where Triton is there. Returns a float32 scalar.
    The idea is that of fused linear cross-entropy (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
    Models"). sample: estimate the sum of the softmax from the target and these words (Bengio and Senecal 2008,
    "Adaptive Importance Sampling"; Jean et al. 2015, section 3), where there are gradients.
    """
    fused = fused and has_triton(features_ND.device)
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(features_ND, weight_VD, bias_V, targets_N, fused, sample)
    return _chunked_loss(features_ND, weight_VD, bias_V, targets_N, None, fused)


def _chunked_loss(
    features_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    gradients: Gradients | None,
    fused: bool,
) -> Tensor:
    """The loss; `gradients` (of features, weight and bias), where given, are filled in on the way."""
    device, words = features_ND.device, len(weight_VD)
    # In float32 on a CPU, where the weights are not cast, padding would cost a copy of them.
    is_padded = device.type != "cpu" or features_ND.dtype != weight_VD.dtype
    padding = -words % ALIGNMENT[device.type] if is_padded else 0
    weight = _with_rows_of_no_word(weight_VD, padding, features_ND.dtype)
    bias = None if bias_V is None else _with_rows_of_no_word(bias_V, padding, features_ND.dtype)
    loss = torch.zeros((), dtype=torch.float32, device=device)
    rows = max(1, CHUNK_LOGITS[device.type] // words)
    of_logits = _fused_loss_and_gradient if fused else _loss_and_gradient
    for start in range(0, len(features_ND), rows):
        chunk = slice(start, start + rows)
        features, targets = features_ND[chunk], targets_N[chunk]
        padded = cpu_bfloat16.product(features, weight, bias)
        if gradients is None:
            loss += of_logits(padded, words, targets, None, False)[0]
            continue
        features_gradient, weight_gradient, bias_gradient = gradients
        chunk_loss, scale_N1 = of_logits(padded, words, targets, bias_gradient, True)
        loss += chunk_loss
        if scale_N1 is None:
            features_gradient[chunk] = padded @ weight
            _accumulate(weight_gradient, (padded.T @ features)[:words], start)
        else:
            features_gradient[chunk] = (padded @ weight).float() * scale_N1
            _accumulate(weight_gradient, (padded.T @ (features * scale_N1).to(features.dtype))[:words], start)
    return loss


def _sampled_loss(
    features_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    gradients: Gradients,
    fused: bool,
    sample: Sample,
) -> Tensor:
    """The loss where a sample stands for the vocabulary; `gradients` are added to.

    A row's target counts for itself, whatever it stands for in the sample: its logit gets a column after theirs.
    """
    device, count, dtype = features_ND.device, len(sample.words), features_ND.dtype
    log_weights = sample.log_weights if bias_V is None else sample.log_weights + bias_V[sample.words]
    padding = 1 + -(count + 1) % ALIGNMENT[device.type]
    weight = _with_rows_of_no_word(weight_VD[sample.words], padding, dtype)
    bias = _with_rows_of_no_word(log_weights, padding, dtype)
    features_gradient, weight_gradient, bias_gradient = gradients
    of_bias = None if bias_gradient is None else bias_gradient.new_zeros(count + 1)
    loss = torch.zeros((), dtype=torch.float32, device=device)
    rows = max(1, CHUNK_LOGITS[device.type] // (count + padding))
    of_logits = _fused_loss_and_gradient if fused else _loss_and_gradient
    for start in range(0, len(features_ND), rows):
        chunk = slice(start, start + rows)
        features, targets = features_ND[chunk], targets_N[chunk]
        own_ND, own_places = weight_VD[targets], sample.places[targets]
        padded = cpu_bfloat16.product(features, weight, bias)
        padded.scatter_(1, own_places.where(own_places >= 0, count)[:, None], torch.finfo(dtype).min)
        own_logits = (features.float() * own_ND).sum(1)
        padded[:, count] = own_logits if bias_V is None else own_logits + bias_V[targets]
        chunk_loss, scale_N1 = of_logits(padded, count + 1, torch.full_like(targets, count), of_bias, True)
        loss += chunk_loss
        scale_N1 = 1.0 if scale_N1 is None else scale_N1
        own_gradient_N1 = padded[:, count, None].float() * scale_N1
        padded[:, count] = 0
        features_gradient[chunk] = (padded @ weight).float() * scale_N1 + own_gradient_N1 * own_ND
        of_weight = (padded.T @ (features * scale_N1).to(dtype))[:count]
        weight_gradient.index_add_(0, sample.words, of_weight.float())
        weight_gradient.index_add_(0, targets, own_gradient_N1 * features)
        if bias_gradient is not None:
            bias_gradient.index_add_(0, targets, own_gradient_N1[:, 0])
    if bias_gradient is not None and of_bias is not None:
        bias_gradient.index_add_(0, sample.words, of_bias[:count])
    return loss


def _with_rows_of_no_word(weight: Tensor, padding: int, dtype: torch.dtype) -> Tensor:
    """In another type, with rows of zeros at the end, whose sums are cut off later."""
    if not padding:
        return weight.to(dtype)
    padded = weight.new_empty((len(weight) + padding, *weight.shape[1:]), dtype=dtype)
    padded[: len(weight)] = weight
    padded[len(weight) :] = 0
    return padded


def _accumulate(total: Tensor, part: Tensor, rows_before: int) -> None:
    """Add a chunk's part. The first one, often the only, needs no zeros to be added to."""
    if rows_before:
        total += part
    else:
        total.copy_(part)


def _loss_and_gradient(
    padded_NC: Tensor, words: int, targets_N: Tensor, bias_gradient_V: Tensor | None, into_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """The loss of some rows of logits, after which come columns of no word, in float32. into_gradient: the logits
    become its gradient but for a factor of each row, which is returned (N, 1); it is also added to the bias's.

    A few rows at a time, so that little is held in float32. One is taken from the target's probability before the
    gradient is rounded: afterwards it would leave nothing but rounding where the probability is near one.
    """
    logits_NV, targets_N1 = padded_NC[:, :words], targets_N[:, None]
    of_targets = logits_NV.gather(1, targets_N1).float()
    largest, sums = torch.empty_like(of_targets), torch.empty_like(of_targets)
    rows = max(1, FLOAT_LOGITS[logits_NV.device.type] // logits_NV.shape[1])
    for start in range(0, len(logits_NV), rows):
        some = slice(start, start + rows)
        values = logits_NV[some].float()
        torch.amax(values, 1, keepdim=True, out=largest[some])
        values.sub_(largest[some]).exp_()
        torch.sum(values, 1, keepdim=True, out=sums[some])
        if not into_gradient:
            continue
        values.scatter_add_(1, targets_N1[some], -sums[some])
        if bias_gradient_V is not None:
            bias_gradient_V.addmv_(values.T, sums[some, 0].reciprocal())
        logits_NV[some] = values
    return (largest + sums.log() - of_targets).sum(), sums.reciprocal()


def _fused_loss_and_gradient(
    padded_NC: Tensor, words: int, targets_N: Tensor, bias_gradient_V: Tensor | None, into_gradient: bool
) -> tuple[Tensor, None]:
    """The same by a GPU kernel; no factor is left out."""
    from tilth.model.softmax_kernel import softmax_losses

    losses_N = softmax_losses(padded_NC, words, targets_N, into_gradient)
    if into_gradient and bias_gradient_V is not None:
        bias_gradient_V += padded_NC.sum(0, dtype=torch.float32)[:words]
    return losses_N.sum(), None
