from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tilth.model.families import FAMILIES
from tilth.model.first_block import OFFSETS, WHOLE_DOCUMENT, start_first_block
from tilth.model.inputs import Inputs
from tilth.model.layers import attention_bias
from tilth.model.model import Model, build_model

LENGTH = 60


def started(name: str, seed: int = 0) -> Model:
    family = FAMILIES[name]
    config = replace(family.sizes["mini"], vocab_size=300, max_length=LENGTH)
    model = build_model(family, config, next(iter(family.architectures)), seed=seed)
    start_first_block(model, seed)
    return model.eval()


def first_attention(model: Model, inputs: Inputs) -> Tensor:
    """Attention weights (heads, S, S) of the first block on one row."""
    block, config = model.trunk.blocks[0], model.config
    qkv = block.attention.qkv(model.trunk.embeddings(inputs, torch.float32)).view(
        LENGTH, 3, config.heads, config.head_size
    )
    query, key, _ = qkv.permute(1, 2, 0, 3)
    bias = attention_bias(inputs.documents, False, None, torch.float32)
    return torch.softmax(query @ key.transpose(1, 2) * config.head_size**-0.5 + bias[0], dim=-1)


@pytest.mark.parametrize("name", ["bert", "roberta"])
@torch.no_grad()
def test_heads_read_the_token_at_their_offset_or_the_whole_document(name):
    model = started(name)
    inputs = Inputs.of_rows(torch.randint(5, 300, (1, LENGTH), generator=torch.Generator().manual_seed(0)))
    attention = first_attention(model, inputs)
    for head, offset in zip(range(model.config.heads), OFFSETS, strict=False):
        for place in range(8, LENGTH - 8):
            if offset == WHOLE_DOCUMENT:
                assert attention[head, place].max() < 0.2
            else:
                assert attention[head, place].argmax() == place + offset
                assert attention[head, place, place + offset] > 0.4


@torch.no_grad()
def test_it_is_the_same_for_equal_seeds_and_another_for_others():
    first, again, other = (started("bert", seed).trunk.blocks[0].attention.qkv.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "shape"), [("bert", {"width": 16, "heads": 2, "head_size": 8}), ("gpt2", {})])
@torch.no_grad()
def test_a_model_too_narrow_or_causal_stays_as_it_was(name, shape):
    family = FAMILIES[name]
    config = replace(family.sizes["mini"], vocab_size=50, max_length=32, **shape)
    model, fresh = (build_model(family, config, next(iter(family.architectures)), seed=0) for _ in range(2))
    start_first_block(model, seed=0)
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in model.state_dict().items())
