"""The sizes of the papers, counted without memory for their weights."""

import pytest
import torch
import transformers

from tilth.model.families import FAMILIES
from tilth.model.model import Model

PUBLISHED = {
    ("bert", "tiny"): 4.4e6,  # Turc et al. 2019, and their released models
    ("bert", "mini"): 11.3e6,
    ("bert", "small"): 29.1e6,
    ("bert", "medium"): 41.7e6,
    ("bert", "base"): 110e6,  # Devlin et al. 2019, section 3
    ("bert", "large"): 340e6,
    ("roberta", "base"): 125e6,  # Liu et al. 2019, appendix, table 9, and the released models
    ("roberta", "large"): 355e6,
    ("gpt2", "124m"): 124e6,  # the released models; the paper's own 117M is a slip its authors corrected
    ("gpt2", "355m"): 355e6,
    ("gpt2", "774m"): 774e6,
    ("gpt2", "1.5b"): 1558e6,
    ("gpt3", "125m"): 125e6,  # Brown et al. 2020, table 2.1
    ("gpt3", "350m"): 350e6,
    ("gpt3", "760m"): 760e6,
    ("gpt3", "2.7b"): 2.7e9,
    ("gpt3", "6.7b"): 6.7e9,
    ("gpt3", "13b"): 13e9,
    ("gpt3", "175b"): 175e9,
    ("electra", "small"): 13.6e6,  # Clark et al. 2020, table 1, which says 14M: the discriminator
    ("electra", "base"): 110e6,
    ("electra", "large"): 335e6,
    ("modernbert", "base"): 149e6,  # Warner et al. 2024, section 2.1
    ("modernbert", "large"): 395e6,
    ("qwen3", "0.6b"): 0.6e9,  # Yang et al. 2025, table 1, and the released models
    ("qwen3", "1.7b"): 1.7e9,
    ("qwen3", "4b"): 4.02e9,
    ("qwen3", "8b"): 8.19e9,
    ("qwen3", "14b"): 14.8e9,
    ("qwen3", "32b"): 32.8e9,
}
ARCHITECTURES = {
    "bert": (2, 3072 / 768, 512, 30522),
    "roberta": (1, 4, 514, 50265),
    "gpt2": (0, 4, 1024, 50257),
    "gpt3": (0, 4, 2048, 50257),
}
"""Token types, feed-forward per width, rows of the position table, vocabulary."""
TABLE = {
    "bert": {
        "tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8), "medium": (8, 512, 8), "base": (12, 768, 12),
        "large": (24, 1024, 16),
    },
    "roberta": {"base": (12, 768, 12), "large": (24, 1024, 16)},
    "gpt2": {"124m": (12, 768, 12), "355m": (24, 1024, 16), "774m": (36, 1280, 20), "1.5b": (48, 1600, 25)},
    "gpt3": {
        "125m": (12, 768, 12, 64), "350m": (24, 1024, 16, 64), "760m": (24, 1536, 16, 96), "1.3b": (24, 2048, 24, 128),
        "2.7b": (32, 2560, 32, 80), "6.7b": (32, 4096, 32, 128), "13b": (40, 5140, 40, 128),
        "175b": (96, 12288, 96, 128),
    },
}  # fmt: skip
"""Layers, width, heads, and the size of a head where it is not width / heads, as the papers give them."""
CASES = [(name, size) for name, sizes in TABLE.items() for size in sizes]


THEIRS = {
    ("modernbert", "base"): transformers.ModernBertConfig(),
    ("modernbert", "large"): transformers.ModernBertConfig(
        num_hidden_layers=28, hidden_size=1024, num_attention_heads=16, intermediate_size=2624
    ),
    ("qwen3", "0.6b"): transformers.Qwen3Config(
        num_hidden_layers=28, hidden_size=1024, num_attention_heads=16, num_key_value_heads=8, intermediate_size=3072,
        tie_word_embeddings=True,
    ),
    ("qwen3", "8b"): transformers.Qwen3Config(
        num_hidden_layers=36, hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, intermediate_size=12288
    ),
    ("electra", "small"): transformers.ElectraConfig(),
    ("electra", "base"): transformers.ElectraConfig(
        embedding_size=768, hidden_size=768, num_attention_heads=12, intermediate_size=3072
    ),
}  # fmt: skip
"""Their released shapes, to be counted by transformers."""
THEIR_CLASSES = {
    "modernbert": transformers.ModernBertForMaskedLM,
    "qwen3": transformers.Qwen3ForCausalLM,
    "electra": transformers.ElectraForPreTraining,
}


def model_of(name: str, size: str) -> Model:
    heads = {
        "bert": ("masked", "next_sentence"),
        "roberta": ("masked",),
        "modernbert": ("masked",),
        "electra": ("replaced_token",),
    }.get(name, ("causal",))
    with torch.device("meta"):
        return Model(FAMILIES[name], FAMILIES[name].sizes[size], heads)


def count(name: str, size: str) -> int:
    """Parameters by hand, from the papers' tables and descriptions."""
    token_types, ratio, positions, vocabulary = ARCHITECTURES[name]
    layers, width, heads, *head_size = TABLE[name][size]
    inner = heads * (head_size[0] if head_size else width // heads)
    feed_forward = int(ratio * width)
    qkv_biases = 0 if name == "gpt3" else 3 * inner
    block = 3 * inner * width + qkv_biases + inner * width + width
    block += 2 * width * feed_forward + feed_forward + width + 4 * width
    total = (vocabulary + positions + token_types) * width + 2 * width + layers * block
    if name in ("bert", "roberta"):
        total += width * width + width + 2 * width + vocabulary  # the head of masked tokens, its output table tied
    if name == "bert":
        total += width * width + width + 2 * width + 2  # the pooler and next-sentence classifier
    return total


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_size_has_the_parameters_of_its_shape(name, size):
    assert model_of(name, size).num_parameters() == count(name, size)


@pytest.mark.parametrize(("name", "size"), THEIRS)
def test_a_size_has_as_many_parameters_as_theirs(name, size):
    with torch.device("meta"):
        theirs = THEIR_CLASSES[name](THEIRS[name, size]).num_parameters()
    ours = model_of(name, size)
    ours.generator = None
    assert ours.num_parameters() == theirs


def test_the_generators_have_the_shape_of_the_paper():
    """Clark et al. 2020, table 6: a share of the discriminator's width, feed-forward width and heads."""
    shapes = {}
    for size in ("small", "base", "large"):
        config = FAMILIES["electra"].sizes[size].generator()
        shapes[size] = (config.layers, config.width, config.mlp_width, config.heads, config.table_width)
    assert shapes == {
        "small": (12, 64, 256, 1, 128),
        "base": (12, 256, 1024, 4, 768),
        "large": (24, 256, 1024, 4, 1024),
    }


@pytest.mark.parametrize(("name", "size"), PUBLISHED)
def test_a_size_is_what_its_paper_says(name, size):
    """As published: the encoder with its pooler; a decoder with its tied output."""
    model = model_of(name, size)
    model.generator = None
    parameters = model.num_parameters()
    if name in ("bert", "roberta"):
        width, vocabulary = TABLE[name][size][1], ARCHITECTURES[name][3]
        parameters -= width * width + 3 * width + vocabulary
        parameters -= 2 * width + 2 if name == "bert" else 0
    assert parameters == pytest.approx(PUBLISHED[name, size], rel=0.03)


def test_the_size_whose_table_contradicts_its_name():
    """24 heads of 128 are wider than 2048: by the paper's table the 1.3B model has more than its name says."""
    assert model_of("gpt3", "1.3b").num_parameters() == pytest.approx(1.52e9, rel=0.01)


def test_all_sizes_but_our_own_are_in_the_table():
    for name, family in FAMILIES.items():
        table = set(TABLE.get(name, ())) | {size for family_name, size in PUBLISHED if family_name == name}
        assert set(family.sizes) - table <= {"mini"}
        assert table <= set(family.sizes)


def test_every_second_layer_of_gpt3_is_banded():
    for config in FAMILIES["gpt3"].sizes.values():
        windows = [config.window(layer) for layer in range(4)]
        assert windows[0] is windows[2] is None
        assert windows[1] == windows[3] and windows[1] is not None
    assert FAMILIES["gpt2"].sizes["124m"].window(1) is None


def test_training_flops_are_six_per_weight_and_attention():
    model = model_of("gpt2", "124m")
    matrices = 12 * 12 * 768 * 768
    attention = 12 * 12 * 768 * 1024
    assert model.flops_per_token(1024) == 6 * matrices + attention
    assert (
        model.flops_per_token(1024, predicted=0.5) == 6 * (matrices + 0.5 * model.config.vocab_size * 768) + attention
    )
