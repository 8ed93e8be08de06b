import numpy as np
import pytest
import torch
import transformers

from tilth import api
from tilth.errors import TilthError, UsageError
from tilth.model.families import FAMILIES
from tilth.model.folder import save_model
from tilth.model.generation import _choose, _largest, complete
from tilth.model.generation import generate as generate_texts
from tilth.model.model import build_model


@pytest.fixture(params=["gpt2", "gpt3", "qwen3"])
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


def generate(model, tokenizer, prompt, **settings):
    (text,) = generate_texts(model, tokenizer, [prompt], **settings)
    return text


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


def test_every_text_says_why_it_ends(causal, tmp_path, monkeypatch):
    model, tokenizer = causal
    (whole,) = complete(model, tokenizer, ["the"], temperature=0, max_tokens=24)
    assert whole.reason == "length"
    stop = whole.text[5:8]
    (stopped,) = complete(model, tokenizer, ["the"], temperature=0, max_tokens=24, stop=[stop])
    assert (stopped.text, stopped.reason) == (whole.text[: whole.text.find(stop)], "stop")
    (full,) = complete(model, tokenizer, ["the"], temperature=0, max_tokens=10_000)
    assert full.reason == "length"
    drawn = iter([7, 8, tokenizer.special.eot, 9])
    monkeypatch.setattr("tilth.model.generation._choose", lambda *arguments: [next(drawn)])
    (ended,) = complete(model, tokenizer, ["the"], max_tokens=24)
    assert (ended.text, ended.reason) == (tokenizer.decode([7, 8]), "end_of_text")
    save_model(model, tokenizer, tmp_path / "model")
    drawn = iter([7, 8, 9])
    made = api.generate(tmp_path / "model", "the", max_tokens=3)
    assert made == {"prompt": "the", "text": tokenizer.decode([7, 8, 9]), "stop_reason": "length"}


def test_one_token_needs_no_copy_of_the_weights(causal, monkeypatch):
    model, tokenizer = causal

    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr("tilth.model.generation.Decoder", refuse)
    (completion,) = complete(model, tokenizer, ["the"], temperature=0, max_tokens=1)
    assert completion.reason == "length" and completion.text
    with pytest.raises(NotImplementedError):
        complete(model, tokenizer, ["the"], temperature=0, max_tokens=2)


def test_a_prompt_longer_than_the_model_is_an_error(causal):
    model, tokenizer = causal
    with pytest.raises(TilthError, match="reads at most 48"):
        generate(model, tokenizer, "the quick brown fox " * 30)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"max_tokens": 0},
        {"top_k": 2.5},
        {"stop": "the"},
        {"stop": ["the", ""]},
    ],
)
def test_settings_out_of_range_are_errors(causal, settings):
    model, tokenizer = causal
    with pytest.raises(UsageError, match=next(iter(settings))):
        generate(model, tokenizer, "the", **settings)


def test_prompts_of_many_lengths_are_continued_as_each_alone(causal):
    model, tokenizer = causal
    prompts = ["the", "a dog jumps over the quick brown fox", "lazy dog", "the quick brown fox jumps over a dog " * 2]
    together = generate_texts(model, tokenizer, prompts, temperature=0, max_tokens=40)
    assert together == [generate(model, tokenizer, prompt, temperature=0, max_tokens=40) for prompt in prompts]
    # The longest of them ends with the model's context, and the others go on.
    assert generate(model, tokenizer, prompts[-1], temperature=0, max_tokens=12) == together[-1]
    assert generate(model, tokenizer, prompts[0], temperature=0, max_tokens=12) != together[0]


def test_each_prompt_of_a_list_draws_by_its_place(causal):
    model, tokenizer = causal
    three = generate_texts(model, tokenizer, ["the"] * 3, max_tokens=16, seed=4)
    assert len(set(three)) == 3
    assert generate_texts(model, tokenizer, ["the"] * 2, max_tokens=16, seed=4) == three[:2]


def test_each_text_ends_before_its_own_stop(causal):
    model, tokenizer = causal
    prompts = ["the", "a dog"]
    whole = generate_texts(model, tokenizer, prompts, temperature=0, max_tokens=24)
    stops = [whole[0][5:8], whole[1][15:18]]
    expected = [text[: min(at for at in map(text.find, stops) if at >= 0)] for text in whole]
    assert generate_texts(model, tokenizer, prompts, temperature=0, max_tokens=24, stop=stops) == expected


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]]).log_softmax(-1)
    probabilities = logits.exp()[0]
    draws = (np.arange(4000) + 0.5) / 4000

    def shares(**kept):
        chosen = _choose(logits.expand(4000, 4), 1.0, kept.get("k"), kept.get("p"), draws)
        return torch.bincount(torch.tensor(chosen), minlength=4) / 4000

    assert (shares() - probabilities).abs().max() < 1e-3
    two = probabilities * torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert (shares(k=2) - two / two.sum()).abs().max() < 1e-3
    # 0.64 alone does not reach 0.7, with 0.24 it does.
    assert (shares(p=0.7) - two / two.sum()).abs().max() < 1e-3
    assert (shares(k=3, p=0.6) - torch.tensor([1.0, 0, 0, 0])).abs().max() == 0
    assert _choose(logits, 1.0, None, 0.7, np.array([1 - 2**-53])) == [2]


@pytest.mark.parametrize("vocab_size", [2000, 2048])
def test_the_largest_logits_are_those_of_topk(vocab_size):
    logits = torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(0))
    for k in (1, 7, 31, 500):
        values, tokens = _largest(logits, k)
        expected_values, expected_tokens = logits.topk(k)
        assert torch.equal(values, expected_values) and torch.equal(tokens, expected_tokens)


def test_no_prompts_is_an_error(causal):
    for prompts in ([], "the"):
        with pytest.raises(UsageError, match="prompts"):
            generate_texts(*causal, prompts)


def test_weights_compute_in_their_own_type_unless_told(causal):
    model, tokenizer = causal
    seen = []
    model.trunk.register_forward_hook(lambda module, inputs, hidden: seen.append(hidden.dtype))
    generate(model, tokenizer, "the", max_tokens=1)
    generate(model, tokenizer, "the", max_tokens=1, dtype=torch.bfloat16)
    generate(model.to(torch.bfloat16), tokenizer, "the", max_tokens=1)
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize("settings", [{"temperature": 0}, {}, {"top_k": 5}, {"top_p": 0.5}])
def test_a_model_without_numbers_is_an_error(causal, settings):
    model, tokenizer = causal
    with torch.no_grad():
        model.trunk.blocks[0].mlp.up.weight[0, 0] = float("nan")
    with pytest.raises(TilthError, match="NaN"):
        generate(model, tokenizer, "the", **settings)


@pytest.mark.parametrize("k", [None, 1, 40])
def test_one_logit_that_is_none_is_an_error(k):
    logits = torch.zeros(2, 4096)
    logits[1, 77] = float("nan")
    with pytest.raises(TilthError, match="NaN"):
        _choose(logits, 1.0, k, None, np.zeros(2))
