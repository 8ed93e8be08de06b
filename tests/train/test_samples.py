import numpy as np
import pytest
import torch

from tilth.errors import TilthError
from tilth.model.inputs import Inputs
from tilth.train.loop import pretrain
from tilth.train.prepare import fresh_model, prepare
from tilth.train.samples import default_prompts, fill_mask, sample
from tilth.train.trackers import read_log

FLOAT = torch.float32


@pytest.fixture(scope="module")
def small(recipe, corpus, tmp_path_factory):
    """A function: (fresh model, tokenizer, held-out split) of a recipe."""

    def make(name: str):
        settings = recipe(name, "model.dropout=0.5")
        prepared = prepare(settings, corpus, tmp_path_factory.mktemp("run"), False, progress=False)
        return fresh_model(settings, prepared), prepared.tokenizer, prepared.validation.split

    return make


def test_prompts_are_the_beginnings_of_held_out_documents(small):
    for name, objective in (("gpt2-mini", "causal"), ("bert-mini", "masked"), ("roberta-mini", "masked")):
        _, tokenizer, split = small(name)
        prompts = default_prompts(split, tokenizer, objective)
        assert len(prompts) == min(2, split.num_documents)
        start, end = split.document_starts[:2]
        text = tokenizer.decode(split.tokens(np.array([start]), np.array([end - start])).tolist())
        if objective == "causal":
            assert text.startswith(prompts[0])
        else:
            mask = tokenizer.backend.id_to_token(tokenizer.special.mask)
            assert all(prompt.count(mask) == 1 for prompt in prompts)
            assert text.startswith(prompts[0].partition(mask)[0].rstrip())


def test_masks_are_filled_with_the_likeliest_entries(small):
    model, tokenizer, _ = small("bert-mini")
    with torch.no_grad():
        model.heads["masked"].bias[tokenizer.encode("the")[0]] += 50
    assert fill_mask(model, tokenizer, "what [MASK] is [MASK] ?") == ["“the” 100 %", "“the” 100 %"]
    assert sample(model, tokenizer, "[MASK]", 0, FLOAT) == "“the” 100 %"
    with torch.no_grad():
        model.heads["masked"].bias.zero_()
    special = tokenizer.special
    ids = [special.cls, *tokenizer.encode("what"), special.mask, *tokenizer.encode("is"), special.sep]
    with torch.no_grad():
        hidden = model.eval().encode(Inputs.of_rows(torch.tensor([ids])))[0, ids.index(special.mask)]
        chances = model.heads["masked"](hidden[None])[0].softmax(-1)
    word = tokenizer.decode([int(chances.argmax())]) or tokenizer.backend.id_to_token(int(chances.argmax()))
    assert fill_mask(model, tokenizer, "what [MASK] is") == [f"“{word}” {100 * float(chances.max()):.0f} %"]


def test_texts_that_cannot_be_filled_are_errors_and_leave_training_on(small):
    model, tokenizer, _ = small("bert-mini")
    model.train()
    with pytest.raises(TilthError, match=r"the prompt 'no mask' has no \[MASK\] to fill in"):
        fill_mask(model, tokenizer, "no mask")
    with pytest.raises(TilthError, match="the model reads at most 32"):
        fill_mask(model, tokenizer, "[MASK]" + " what" * 40)
    assert all(module.training for module in model.modules())
    fill_mask(model, tokenizer, "[MASK]")
    assert all(module.training for module in model.modules())


def test_continuations_depend_on_the_seed(small):
    model, tokenizer, _ = small("gpt2-mini")
    texts = [sample(model, tokenizer, "The", seed, FLOAT) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_that_does_not_fit_neither_stops_nor_changes_a_run(recipe, corpus, outcome, tmp_path):
    prompts = {"fits": "['What is [MASK] ?']", "long": f"['What is [MASK] {'very ' * 40}']"}
    for name, prompt in prompts.items():
        settings = recipe("bert-mini", f"train.prompts={prompt}", "model.dropout=0.3", "train.budget=6 steps")
        pretrain(settings, corpus, tmp_path / name, progress=False)
    texts = [record["text"] for record in read_log(tmp_path / "long" / "log.jsonl") if record["event"] == "sample"]
    assert len(texts) == 2 and all("reads at most 32" in text for text in texts)
    assert outcome(tmp_path / "fits")["weights"] == outcome(tmp_path / "long")["weights"]


def test_a_model_that_detects_replaced_tokens_fills_in_what_its_generator_would(small):
    model, tokenizer, _ = small("electra-mini")
    with torch.no_grad():
        model.generator.heads["masked"].bias[tokenizer.encode("the")[0]] += 50
    assert fill_mask(model, tokenizer, "it is [MASK] end") == ["“the” 100 %"]
