import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tilth.model import cross_entropy
from tilth.model.cross_entropy import Sample, linear_cross_entropy
from tilth.model.families import FAMILIES
from tilth.model.model import build_model
from tilth.objectives.objective import Batch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
EACH_WAY = pytest.mark.parametrize(
    ("device", "fused"),
    [("cpu", False), pytest.param("cuda", False, marks=needs_gpu), pytest.param("cuda", True, marks=needs_gpu)],
)


def tensors(bias: bool, rows: int = 11, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, 6, generator=generator).to(device, dtype).requires_grad_()
    weight = torch.randn(9, 6, generator=generator).to(device).requires_grad_()
    biases = torch.randn(9, generator=generator).to(device).requires_grad_() if bias else None
    targets = torch.randint(9, (rows,), generator=generator).to(device)
    return [features, weight, biases], targets


@pytest.mark.parametrize(("chunk", "cached"), [(1, 1), (30, 9), (30, 10**6), (10**6, 20), (10**6, 10**6)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_cross_entropy_is_that_of_torch(chunk, cached, bias, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", {"cpu": chunk})
    monkeypatch.setattr(cross_entropy, "FLOAT_LOGITS", {"cpu": cached})
    inputs, targets = tensors(bias)
    given = [tensor for tensor in inputs if tensor is not None]
    expected = F.cross_entropy(F.linear(*inputs), targets, reduction="sum")
    got = linear_cross_entropy(*inputs, targets)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(got * 0.37, given), torch.autograd.grad(expected * 0.37, given), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@EACH_WAY
def test_linear_cross_entropy_in_bfloat16_has_the_gradients_of_float32_within_rounding(device, fused):
    inputs, targets = tensors(True, rows=500, dtype=torch.bfloat16, device=device)
    scale = 1 / 499  # not a bfloat16 number: rounding it would shrink every gradient of the features alike
    got = torch.autograd.grad(linear_cross_entropy(*inputs, targets, fused) * scale, inputs)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    expected = torch.autograd.grad(F.cross_entropy(F.linear(*exact), targets, reduction="sum") * scale, exact)
    assert [gradient.dtype for gradient in got] == [torch.bfloat16, torch.float32, torch.float32]
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()
    ours, theirs = got[0].double(), expected[0].double()
    assert ((ours * theirs).sum() / (theirs**2).sum()).item() == pytest.approx(1, abs=1e-3)


@EACH_WAY
def test_gradients_in_bfloat16_keep_their_size_where_the_model_is_sure(device, fused):
    """One less a probability near one is small: rounded apart, the two would leave mostly rounding."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1000, 64, generator=generator)
    targets = torch.randint(1000, (40,), generator=generator)
    features = (0.21 * weight[targets] + 0.02 * torch.randn(40, 64, generator=generator)).bfloat16()
    features, weight, targets = features.to(device), weight.to(device), targets.to(device)
    exact = [features.double().requires_grad_(), weight.bfloat16().double().requires_grad_()]
    logits = F.linear(*exact)
    assert 0.95 < logits.softmax(-1).gather(1, targets[:, None]).median() < 0.999
    expected = torch.autograd.grad(F.cross_entropy(logits, targets, reduction="sum"), exact)
    inputs = [features.requires_grad_(), weight.requires_grad_()]
    got = torch.autograd.grad(linear_cross_entropy(inputs[0], inputs[1], None, targets, fused), inputs)
    errors = (got[0].double() - expected[0]).norm(dim=1) / expected[0].norm(dim=1)
    assert errors.median() < 0.05
    rows = targets.unique()
    errors = (got[1][rows].double() - expected[1][rows]).norm(dim=1) / expected[1][rows].norm(dim=1)
    assert errors.median() < 0.05


def sample_of(words: list[int], log_weights: list[float], device: str = "cpu") -> Sample:
    """Of a vocabulary of nine words."""
    places = [words.index(word) if word in words else -1 for word in range(9)]
    return Sample(*(torch.tensor(values, device=device) for values in (words, log_weights, places)))


def sampled_by_torch(features, weight, bias, targets, sample):
    """Each row on its own: the target by itself, and the words of the sample that are not the target."""
    losses = []
    for feature, target in zip(features, targets.tolist(), strict=True):
        logits = weight @ feature + (0 if bias is None else bias)
        others = [place for place, word in enumerate(sample.words.tolist()) if word != target]
        weighted = logits[sample.words[others]] + sample.log_weights[others]
        losses.append(torch.cat([logits[target, None], weighted]).logsumexp(0) - logits[target])
    return torch.stack(losses).sum()


@pytest.mark.parametrize("chunk", [1, 30, 10**6])
@pytest.mark.parametrize("bias", [True, False])
def test_a_sampled_cross_entropy_is_that_of_torch(chunk, bias, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", {"cpu": chunk})
    inputs, targets = tensors(bias)
    sample = sample_of([3, 0, 7, 8], [0.0, 0.0, 1.2, 1.2])
    assert 0 < (sample.places[targets] >= 0).sum() < len(targets)
    given = [tensor for tensor in inputs if tensor is not None]
    expected = sampled_by_torch(*inputs, targets, sample)
    got = linear_cross_entropy(*inputs, targets, sample=sample)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(got * 0.37, given), torch.autograd.grad(expected * 0.37, given), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        whole = linear_cross_entropy(*inputs, targets)
        assert linear_cross_entropy(*inputs, targets, sample=sample).item() == whole.item()


@EACH_WAY
def test_a_sampled_cross_entropy_in_bfloat16_is_that_of_float32_within_rounding(device, fused):
    inputs, targets = tensors(True, rows=500, dtype=torch.bfloat16, device=device)
    sample = sample_of([3, 0, 7, 8], [0.0, 0.0, 1.2, 1.2], device=device)
    got = linear_cross_entropy(*inputs, targets, fused, sample)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    expected = linear_cross_entropy(*exact, targets, sample=sample)
    assert got.item() == pytest.approx(expected.item(), rel=2e-3)
    gradients = torch.autograd.grad(got / 499, inputs), torch.autograd.grad(expected / 499, exact)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()


def test_all_words_as_a_sample_give_the_whole_softmax_and_draws_do_on_average():
    (features, weight, bias), targets = tensors(True)
    whole = linear_cross_entropy(features, weight, bias, targets)
    every = sample_of([4, 1, 0, 2, 3, 5, 8, 7, 6], [0.0] * 9)
    assert linear_cross_entropy(features, weight, bias, targets, sample=every).item() == pytest.approx(whole.item())
    # Word 0 is certain, and the target 8 counts for itself; of the other seven one is drawn.
    feature, target = features[:1], torch.tensor([8])
    logits = F.linear(feature, weight, bias)[0]
    samples = [sample_of([0, drawn], [0.0, math.log(7)]) for drawn in range(1, 8)]
    losses = [linear_cross_entropy(feature, weight, bias, target, sample=sample) for sample in samples]
    sums = (torch.stack(losses) + logits[8]).exp()
    assert sums.mean().item() == pytest.approx(logits.exp().sum().item(), rel=1e-5)


def test_gradients_are_given_once():
    inputs, targets = tensors(True)
    loss = linear_cross_entropy(*inputs, targets)
    torch.autograd.grad(loss, inputs, retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        torch.autograd.grad(loss, inputs)


@EACH_WAY
def test_linear_cross_entropy_of_nothing_is_zero(device, fused):
    inputs, targets = tensors(True, rows=0, device=device)
    loss = linear_cross_entropy(*inputs, targets, fused)
    assert loss.item() == 0
    assert all(gradient.abs().sum() == 0 for gradient in torch.autograd.grad(loss, inputs))


@EACH_WAY
def test_linear_cross_entropy_survives_large_logits(device, fused):
    features, weight = torch.tensor([[1e4]], device=device), torch.tensor([[1.0], [-1.0]], device=device)
    for target, loss in ((1, 2e4), (0, 0.0)):
        targets = torch.tensor([target], device=device)
        assert linear_cross_entropy(features, weight, None, targets, fused).item() == pytest.approx(loss)


@needs_gpu
@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 2**-8), (torch.float32, 1e-6)])
@pytest.mark.parametrize("words", [7, 4096, 9001])
def test_the_kernel_gives_the_loss_and_the_gradient_of_each_row(words, dtype, within):
    pytest.importorskip("triton")
    from tilth.model.softmax_kernel import softmax_losses

    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(5, words + 5, generator=generator)).to("cuda", dtype)
    targets = torch.tensor([0, words - 1, 1, 2, 3], device="cuda")
    exact = logits[:, :words].double().requires_grad_()
    losses = F.cross_entropy(exact, targets, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), exact)
    before = logits.clone()
    torch.testing.assert_close(softmax_losses(logits, words, targets, False).double(), losses, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits, before)
    torch.testing.assert_close(softmax_losses(logits, words, targets, True).double(), losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits[:, :words].double(), gradient, rtol=0, atol=within)
    assert torch.equal(logits[:, words:], before[:, words:])


@pytest.mark.parametrize(
    "name", ["bert-mini", "roberta-mini", "modernbert-mini", "gpt2-mini", "gpt3-mini", "qwen3-mini"]
)
def test_the_loss_at_chosen_places_is_that_of_full_logits(make, name):
    objective, packing, tokenizer = make(name)
    family = FAMILIES[name.removesuffix("-mini")]
    config = replace(
        family.sizes["mini"], vocab_size=tokenizer.vocab_size, layers=2, width=32, heads=2, head_size=16, mlp_width=64
    )
    model = build_model(family, config, objective.heads, seed=1)
    batch: Batch = objective.make_batch(packing, np.arange(5), np.zeros(5, dtype=np.int64), 0)
    sums = batch.loss_sums(model, torch.float32)
    assert set(sums) == set(objective.heads)
    hidden = model.encode(batch.inputs).flatten(0, 1)
    for head, total in sums.items():
        predictions = batch.predictions[head]
        labels = torch.full((len(hidden),), -100)
        labels[predictions.places] = predictions.targets
        full = F.cross_entropy(model.heads[head](hidden), labels, ignore_index=-100, reduction="sum")
        assert total.item() == pytest.approx(full.item(), rel=1e-5)
        assert batch.counts[head] == len(predictions.targets) == int((labels != -100).sum())
        assert total.item() / batch.counts[head] == pytest.approx(
            np.log(2 if head == "next_sentence" else 400), rel=0.2
        )
