"""Token by token with a cache, every causal family computes what a whole pass does."""

from dataclasses import replace

import pytest
import torch

from tilth.model import decoding
from tilth.model.decoding import Decoder
from tilth.model.families import FAMILIES
from tilth.model.inputs import Inputs
from tilth.model.layers import Cache
from tilth.model.model import build_model

CAUSAL = sorted(name for name, family in FAMILIES.items() if family.sizes["mini"].attention == "causal")
LENGTHS = (3, 9, 6)
STEPS = 12


def make(name, **changes):
    """A small model with weights so large that attention and norms matter."""
    family = FAMILIES[name]
    config = replace(
        family.sizes["mini"], vocab_size=90, max_length=64, width=32, heads=4, head_size=8, mlp_width=64, **changes
    )
    if config.windows != (None,):
        config = replace(config, windows=(None, 4))
    model = build_model(family, config, ("causal",), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.add_(noise * 0.2)
    return model.eval()


def decoded(model, rows, lengths, dtype):
    """Logits (B, STEPS, V) after the prompts' ends: rows (B, S) hold prompts, padded on the left, and what follows."""
    longest = rows.shape[1] - STEPS
    padding = [longest - length for length in lengths]
    positions = torch.arange(longest) - torch.tensor(padding)[:, None]
    cache = Cache(rows.shape[1])
    inputs = Inputs(rows[:, :longest], positions.clamp(min=0), torch.where(positions < 0, -1, 0))
    model.trunk(inputs, dtype, cache)
    decoder = Decoder(model, cache, padding, longest, dtype)
    return torch.stack([decoder.read(rows[:, longest + step].tolist()) for step in range(STEPS)], dim=1)


def whole(model, row, dtype):
    return model.heads["causal"](model.encode(Inputs.of_rows(row[None]), dtype))[0, -STEPS:]


@pytest.mark.parametrize("capability", ["AVX2", "AVX512", "DEFAULT"])
@pytest.mark.parametrize("lengths", [(9, 9, 9), LENGTHS, (9,)])
@pytest.mark.parametrize("name", CAUSAL)
@torch.inference_mode()
def test_logits_are_those_of_a_whole_pass(name, lengths, capability, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(decoding, "TRANSPOSE_FROM", STEPS)
    if capability == "DEFAULT":
        monkeypatch.setattr(decoding, "has_onednn_linear", lambda dtype: False)
    model = make(name)
    rows = torch.randint(90, (len(lengths), 9 + STEPS), generator=torch.Generator().manual_seed(1))
    got = decoded(model, rows, lengths, torch.float32)
    expected = torch.stack(
        [whole(model, row[9 - length :], torch.float32) for row, length in zip(rows, lengths, strict=True)]
    )
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
@torch.inference_mode()
def test_bfloat16_is_as_close_to_float32_as_a_whole_pass_in_it(name):
    model = make(name)
    rows = torch.randint(90, (3, 9 + STEPS), generator=torch.Generator().manual_seed(2))
    exact = torch.stack([whole(model, row, torch.float32) for row in rows])
    passed = torch.stack([whole(model, row, torch.bfloat16) for row in rows])
    got = decoded(model, rows, (9, 9, 9), torch.bfloat16)
    assert got.dtype == torch.bfloat16
    deviation = (passed.float() - exact).square().mean().sqrt()
    assert 0 < (got.float() - exact).square().mean().sqrt() < 1.5 * deviation
    assert deviation < exact.std() / 10


@pytest.mark.parametrize(
    ("capability", "rows", "dtype", "tokens", "transposes"),
    [
        ("AVX2", 1, torch.float32, 64, True),
        ("AVX2", 1, torch.float32, 63, False),
        ("AVX2", 2, torch.float32, 64, False),
        ("AVX2", 1, torch.bfloat16, 64, False),
        ("AVX512", 1, torch.float32, 64, False),
    ],
)
@torch.inference_mode()
def test_weights_are_transposed_where_and_when_it_pays(capability, rows, dtype, tokens, transposes, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    transposed_linear, made = decoding._transposed_linear, []
    monkeypatch.setattr(decoding, "_transposed_linear", lambda *each: made.append(each) or transposed_linear(*each))
    model, cache = make("gpt2"), Cache(3 + tokens)
    model.trunk(Inputs.of_rows(torch.ones(rows, 3, dtype=torch.int64)), dtype, cache)
    Decoder(model, cache, [0] * rows, 3, dtype)
    assert len(made) == (4 * model.config.layers + 1 if transposes else 0)
