from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.model.families import FAMILIES
from tilth.model.inputs import Inputs
from tilth.model.mean_pooling import start_mean_pooling
from tilth.model.model import Model, build_model

LENGTHS = (30, 17)


def trained(name: str, **shape: int) -> Model:
    """A model whose weights are far from fresh: what a start must not depend on is large."""
    family = FAMILIES[name]
    config = replace(family.sizes["mini"], vocab_size=300, max_length=64, **shape)
    model = build_model(family, config, (), seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(model.trunk.blocks.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.add_head("classify", labels=["no", "yes"], seed=0)
    return model.eval()


def inputs_of_two() -> Inputs:
    tokens = torch.randint(5, 300, (2, max(LENGTHS)), generator=torch.Generator().manual_seed(2))
    return Inputs.of_rows(tokens, torch.tensor(LENGTHS))


@torch.no_grad()
def below_the_top(model: Model, inputs: Inputs) -> Tensor:
    """What the top block reads (B, S, D)."""
    seen = {}
    hook = model.trunk.blocks[-1].register_forward_pre_hook(lambda _, given: seen.update(hidden=given[0]))
    model.encode(inputs)
    hook.remove()
    return seen["hidden"]


@pytest.mark.parametrize("name", sorted(FAMILIES))
@torch.no_grad()
def test_a_text_starts_as_the_mean_of_its_tokens(name):
    model = trained(name)
    start_mean_pooling(model, 0)
    inputs = inputs_of_two()
    hidden, read = model.encode(inputs), below_the_top(model, inputs)
    for row, length in enumerate(LENGTHS):
        place = 0 if model.family.summary == "first" else length - 1
        vectors = read[row, :length]
        normed = F.rms_norm if model.config.norm == "rms" else F.layer_norm
        if model.config.norm_placement == "before":
            vectors = normed(vectors, vectors.shape[-1:])
        # Of values that heads share, the part of the mean that they pass on.
        value = model.trunk.blocks[-1].attention.qkv.weight[model.config.width :].chunk(2)[1]
        mean = normed(vectors.mean(0) @ value.T @ value, vectors.shape[-1:])
        summary = normed(hidden[row, place], mean.shape)
        likeness = F.cosine_similarity(summary, mean, dim=0)
        assert likeness > 0.99, f"{name}: {likeness}"
        others = normed(vectors[place], mean.shape)
        assert likeness > F.cosine_similarity(others, mean, dim=0) + 0.05, "any token would have done"


@torch.no_grad()
def test_nothing_but_the_top_block_and_the_pooler_changes():
    model = trained("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_mean_pooling(model, 0)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    top = {name for name in before if name.startswith(f"trunk.blocks.{model.config.layers - 1}.")}
    assert changed <= top | {"heads.classify.pooler.weight"}
    assert {name for name in top if name.endswith("weight")} <= changed


def test_all_of_the_top_block_learns_within_two_updates():
    model = trained("bert").train()
    start_mean_pooling(model, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        logits = model.heads["classify"](model.encode(inputs_of_two())[:, 0])
        F.cross_entropy(logits, torch.tensor([0, 1])).backward()
        optimizer.step()
    for name, parameter in model.trunk.blocks[-1].named_parameters():
        assert parameter.grad is not None
        if name == "attention.qkv.bias":  # a bias of the keys changes no attention weight
            query, _, value = parameter.grad.chunk(3)
            assert query.abs().max() > 0 and value.abs().max() > 0
        else:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", ["electra", "modernbert"])
@torch.no_grad()
def test_the_pooler_passes_the_mean_on(name):
    """GELU would cut off half of it."""
    head = trained(name).heads["classify"]
    model = trained(name)
    start_mean_pooling(model, 0)
    vectors = torch.randn(50, model.config.width, generator=torch.Generator().manual_seed(0))
    seen = {}
    model.heads["classify"].out.register_forward_pre_hook(lambda _, given: seen.update(pooled=given[0]))
    model.heads["classify"](vectors)
    likeness = F.cosine_similarity(F.layer_norm(seen["pooled"], vectors.shape[1:]), vectors)
    assert likeness.min() > 0.97
    assert not torch.equal(head.pooler.weight, model.heads["classify"].pooler.weight)


def test_it_is_the_same_for_equal_seeds_and_another_for_others():
    states = []
    for seed in (0, 0, 1):
        model = trained("bert")
        start_mean_pooling(model, seed)
        states.append(model.trunk.blocks[-1].attention.qkv.weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@torch.no_grad()
def test_heads_that_do_not_make_up_the_width_stay_as_they_are():
    model = trained("gpt3", head_size=32)
    before = model.trunk.blocks[-1].attention.qkv.weight.clone()
    start_mean_pooling(model, 0)
    assert torch.equal(model.trunk.blocks[-1].attention.qkv.weight, before)
