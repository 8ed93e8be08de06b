import copy

import pytest
import torch

from tilth.tasks import fit as fitting
from tilth.tasks.classify import Classify
from tilth.tasks.fit import Encoded, fit
from tilth.tasks.settings import FinetuneSettings
from tilth.tasks.used_tokens import UsedTokens

TRAIN = Encoded([[2, 7, 9, 3], [2, 30, 3], [2, 9, 9, 41, 3], [2, 7, 3]], torch.tensor([0, 1, 0, 1]))
VALID = Encoded([[2, 44, 3], [2, 7, 44, 3]], torch.tensor([0, 1]))
OCCUR = [0, 2, 3, 7, 9, 30, 41, 44]
SETTINGS = {"min_steps": 12, "lr": 1e-2, "precision": "float32", "batch_size": 2}


def fresh(small_model):
    settings = FinetuneSettings(**SETTINGS)
    model = small_model("bert", 60, ("masked",))
    Classify().add_head(model, ["bad", "good"], settings)
    return model, settings


def test_learning_with_the_tokens_that_occur_is_learning_with_all(small_model):
    model, settings = fresh(small_model)
    before, with_all = copy.deepcopy(model), copy.deepcopy(model)
    table = model.trunk.embeddings.tokens
    fit(Classify(), model, TRAIN, VALID, settings, pad=0)
    fitting._fit(Classify(), with_all, TRAIN, VALID, settings, 0, lambda done, **figures: None)
    for (name, mine), whole in zip(model.named_parameters(), with_all.parameters(), strict=True):
        assert torch.allclose(mine, whole, atol=2e-5), name
    others = sorted(set(range(60)) - set(OCCUR))
    now, then = table.weight, before.trunk.embeddings.tokens.weight
    assert torch.equal(now[others], then[others])
    assert all((now[[2, 3, 7, 9, 30, 41]] - then[[2, 3, 7, 9, 30, 41]]).abs().amax(1) > 1e-3)
    assert model.trunk.embeddings.tokens is table
    assert model.heads["masked"].token_weight is table.weight


def test_the_rows_go_back_to_the_table_whatever_happens(small_model):
    model, _ = fresh(small_model)
    table = model.trunk.embeddings.tokens
    before = table.weight.detach().clone()
    used = UsedTokens([*TRAIN.pieces, *VALID.pieces], 0, 60)
    assert used.ids.tolist() == OCCUR
    assert used.renumbered([[2, 44, 0], [41]]) == [[1, 7, 0], [6]]
    with pytest.raises(KeyboardInterrupt), used.alone_in(model):
        alone = model.trunk.embeddings.tokens
        assert torch.equal(alone.weight, before[OCCUR])
        with torch.no_grad():
            alone.weight[7] = 5
        raise KeyboardInterrupt
    assert model.trunk.embeddings.tokens is table
    before[44] = 5
    assert torch.equal(table.weight, before)
