from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tilth.model.families import FAMILIES
from tilth.model.model import Model, build_model
from tilth.objectives.replaced_token import DETECTION_WEIGHT, draw_tokens

SEED = 3


def batch_of(made, indexes, epoch=0, seed=SEED):
    objective, packing, _ = made
    return objective.make_batch(packing, np.array(indexes), np.full(len(indexes), epoch), seed)


@pytest.fixture
def made(make):
    return make("electra-mini")


@pytest.fixture
def model(made) -> Model:
    config = replace(
        FAMILIES["electra"].sizes["mini"], vocab_size=made[2].vocab_size, layers=2, width=32, heads=2, head_size=16,
        mlp_width=64, generator_size=0.5,
    )  # fmt: skip
    model = build_model(FAMILIES["electra"], config, made[0].heads, seed=1)
    with torch.no_grad():  # far from fresh, so that tokens are not all alike likely
        for parameter in model.parameters():
            parameter.mul_(8)
    return model


def test_every_chosen_token_is_masked_and_every_real_one_is_judged(made):
    objective, packing, tokenizer = made
    batch = batch_of(made, [0, 3, 5])
    masked, detection = batch.predictions["masked"], batch.predictions["replaced_token"]
    tokens = batch.inputs.tokens.flatten()
    assert (tokens[masked.places] == tokenizer.special.mask).all()
    assert (tokens == tokenizer.special.mask).sum() == len(masked.places)
    original, _, documents = packing.rows(np.array([0, 3, 5])).dense(objective.pad)
    tokens[masked.places] = masked.targets
    assert (tokens.numpy() == original.reshape(-1)).all()
    assert detection.places.tolist() == np.flatnonzero(documents >= 0).tolist()
    assert batch.tokens == len(detection.places) and len(batch.draws) == len(masked.places)
    assert 0.1 < len(masked.places) / batch.tokens < 0.15


def test_draws_depend_on_the_seed_the_row_and_the_epoch_alone(made):
    together = batch_of(made, [7, 2])
    alone = [batch_of(made, [row]) for row in (7, 2)]
    assert together.draws.tolist() == torch.cat([batch.draws for batch in alone]).tolist()
    assert together.draws.min() >= 0 and together.draws.max() < 1 and len(together.draws.unique()) > 8
    for other in (batch_of(made, [7, 2], epoch=1), batch_of(made, [7, 2], seed=SEED + 1)):
        assert other.draws.tolist() != together.draws.tolist()


@torch.no_grad()
def test_draws_follow_the_probabilities(model):
    head = model.generator.heads["masked"]
    hidden = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)) * 3
    probabilities = torch.softmax(head(hidden)[0], dim=-1)
    assert probabilities.max() > 0.05
    count = 20_000
    draws = (torch.arange(count) + 0.5) / count
    shares = torch.bincount(draw_tokens(head, hidden.expand(count, -1), draws), minlength=len(probabilities)) / count
    assert (shares - probabilities).abs().max() < 2 / count
    last = draw_tokens(head, hidden, torch.tensor([1 - 2**-24]))
    assert probabilities[last] > 0


@torch.no_grad()
def test_the_losses_are_those_of_the_paper_computed_plainly(made, model):
    batch = batch_of(made, [1, 4])
    masked, detection = batch.predictions["masked"], batch.predictions["replaced_token"]
    logits = model.generator.heads["masked"](model.generator.encode(batch.inputs).flatten(0, 1)[masked.places])
    probabilities = logits.softmax(-1).double()
    of_originals = probabilities.gather(1, masked.targets[:, None])[:, 0]
    same = int(of_originals.argmax())  # where the generator is to draw the original token
    batch.draws[same] = probabilities[same].cumsum(-1)[masked.targets[same]] - of_originals[same] / 2
    drawn = [int(np.searchsorted(row.softmax(-1).double().cumsum(-1).numpy(), float(draw), side="right"))
             for row, draw in zip(logits, batch.draws, strict=True)]  # fmt: skip
    tokens = batch.inputs.tokens.clone()
    tokens.view(-1)[masked.places] = torch.tensor(drawn)
    original = batch.inputs.tokens.clone()
    original.view(-1)[masked.places] = masked.targets
    labels = (tokens != original).float().flatten()[detection.places]
    assert labels[(detection.places == masked.places[same]).nonzero()[0]] == 0
    assert 0 < labels.sum() < len(drawn)
    verdicts = model.heads["replaced_token"](
        model.encode(replace(batch.inputs, tokens=tokens)).flatten(0, 1)[detection.places]
    )
    sums = batch.loss_sums(model, torch.float32)
    assert list(sums) == ["masked", "replaced_token"]
    assert float(sums["masked"]) == pytest.approx(float(F.cross_entropy(logits, masked.targets, reduction="sum")))
    expected = F.binary_cross_entropy_with_logits(verdicts, labels, reduction="sum")
    assert float(sums["replaced_token"]) == pytest.approx(float(expected), rel=1e-5)
    counts = {"masked": 7, "replaced_token": 11}
    whole = sums["masked"] / 7 + DETECTION_WEIGHT * sums["replaced_token"] / 11
    assert DETECTION_WEIGHT == 50 and float(batch.loss(sums, counts)) == pytest.approx(float(whole))


def test_no_gradient_of_detection_reaches_the_generator(made, model):
    """It could not pass through the draws; the shared tables learn from both."""
    batch = batch_of(made, [1, 4])
    batch.loss_sums(model, torch.float32)["replaced_token"].backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert model.trunk.embeddings.tokens.weight.grad.abs().sum() > 0
    table = model.trunk.embeddings.tokens.weight.grad.clone()
    batch.loss_sums(model, torch.float32)["masked"].backward()
    assert all(parameter.grad is not None for parameter in model.generator.parameters())
    assert not torch.equal(model.trunk.embeddings.tokens.weight.grad, table)


@torch.no_grad()
def test_the_losses_do_not_depend_on_the_global_random_state(made, model):
    batch = batch_of(made, [1, 4])
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append({name: float(total) for name, total in batch.loss_sums(model, torch.float32).items()})
    assert losses[0] == losses[1]
