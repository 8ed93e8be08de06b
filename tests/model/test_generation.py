import pytest
import torch
import transformers

from tilth.errors import TilthError, UsageError
from tilth.model.families import FAMILIES
from tilth.model.folder import save_model
from tilth.model.generation import generate
from tilth.model.model import build_model


@pytest.fixture(params=["gpt2", "gpt3"])
def causal(request, text_tokenizer):
    family = FAMILIES[request.param]
    tokenizer = text_tokenizer(family)
    from dataclasses import replace

    config = replace(
        family.sizes["mini"],
        vocab_size=tokenizer.vocab_size,
        max_length=48,
        width=32,
        heads=4,
        head_size=8,
        mlp_width=64,
    )
    if config.windows != (None,):
        config = replace(config, windows=(None, 4))
    model = build_model(family, config, ("causal",), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.2
            )
    return model.eval(), tokenizer


def test_greedy_text_is_that_of_transformers(causal, tmp_path):
    model, tokenizer = causal
    save_model(model, tokenizer, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = [tokenizer.special.eot, *tokenizer.encode("the quick brown")]
    expected = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :].tolist()
    assert generate(model, tokenizer, "the quick brown", max_tokens=20, temperature=0) == tokenizer.decode(expected)


def test_the_cache_changes_nothing(causal):
    """Greedy text token by token with a cache is that of whole passes without one."""
    from tilth.model.inputs import Inputs

    model, tokenizer = causal
    ids = [tokenizer.special.eot, *tokenizer.encode("a dog")]
    prompt_length = len(ids)
    with torch.inference_mode():
        for _ in range(15):
            hidden = model.encode(Inputs.of_rows(torch.tensor([ids])))
            ids.append(int(model.heads["causal"](hidden[0, -1:]).argmax()))
    got = generate(model, tokenizer, "a dog", max_tokens=15, temperature=0)
    assert tokenizer.decode(ids[prompt_length:]).startswith(got)


def test_equal_seeds_give_equal_texts_and_others_differ(causal):
    model, tokenizer = causal
    first, again, other = (generate(model, tokenizer, "the", max_tokens=24, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_top_k_of_one_is_greedy(causal):
    model, tokenizer = causal
    assert generate(model, tokenizer, "the", top_k=1, seed=9, max_tokens=12) == generate(
        model, tokenizer, "the", temperature=0, max_tokens=12
    )
    assert generate(model, tokenizer, "the", top_p=1e-9, seed=9, max_tokens=12) == generate(
        model, tokenizer, "the", temperature=0, max_tokens=12
    )


def test_it_ends_before_a_stop_text(causal):
    model, tokenizer = causal
    text = generate(model, tokenizer, "the", temperature=0, max_tokens=24)
    stop = text[5:8]
    assert generate(model, tokenizer, "the", temperature=0, max_tokens=24, stop=[stop]) == text[: text.find(stop)]


def test_a_prompt_longer_than_the_model_is_an_error(causal):
    model, tokenizer = causal
    with pytest.raises(TilthError, match="reads at most 48"):
        generate(model, tokenizer, "the quick brown fox " * 30)


@pytest.mark.parametrize("settings", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"max_tokens": 0}])
def test_settings_out_of_range_are_errors(causal, settings):
    model, tokenizer = causal
    with pytest.raises(UsageError, match=next(iter(settings))):
        generate(model, tokenizer, "the", **settings)
