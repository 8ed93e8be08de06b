import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

import tilth
from tilth.errors import TilthError, UsageError
from tilth.evidence.language import evaluate_language, score_language, windows
from tilth.model.folder import save_model
from tilth.model.model import Model
from tilth.tokens.load import special_tokens
from tilth.tokens.tokenizer import TextTokenizer

TEXTS = [
    "It was the best of times, it was the worst of times. " * 6,
    "Call me Ishmael: naïve, “quoted” — and £5.",
    "a",
    "",
]


@pytest.fixture(scope="module")
def tokenizer(byte_tokenizer) -> TextTokenizer:
    return byte_tokenizer(TEXTS)


@pytest.fixture
def small(small_model, tokenizer: TextTokenizer):
    """A function: a small model whose predictions are far from uniform."""

    def make(family: str, *heads: str, **changes) -> Model:
        model = small_model(family, tokenizer.vocab_size, heads, **changes)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4.0)
        return model

    return make


@pytest.mark.parametrize(
    ("num_tokens", "context", "stride"), [(1, 8, 4), (8, 8, 4), (9, 8, 4), (50, 8, 3), (50, 8, 8), (50, 8, 1)]
)
def test_windows_score_every_token_once_with_enough_context(num_tokens: int, context: int, stride: int):
    scored_positions = []
    for start, stop, scored in windows(num_tokens, context, stride):
        assert 0 <= start < stop <= num_tokens and stop - start <= context
        scored_positions += range(stop - scored, stop)
        assert stop - scored == 0 or stop - scored - start >= context - stride
    assert scored_positions == list(range(num_tokens))


def test_an_empty_document_has_no_windows():
    assert list(windows(0, 8, 4)) == []


def test_causal_loss_is_that_of_transformers(small, tokenizer: TextTokenizer, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    save_model(small("gpt2", "causal"), tokenizer, tmp_path / "model")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "model").eval()
    context, stride = 24, 12
    total, count = 0.0, 0
    for text in TEXTS:  # the plain protocol: one token at a time, with the context that the stride leaves it
        ids = [tokenizer.special.eot, *tokenizer.encode(text)]
        for target in range(1, len(ids)):
            newest = context if target <= context else context + math.ceil((target - context) / stride) * stride
            newest = min(newest, len(ids) - 1)
            read = ids[max(0, newest - context) : target]
            with torch.no_grad():
                logits = theirs(torch.tensor([read])).logits[0, -1]
            total -= torch.log_softmax(logits, -1)[ids[target]].item()
            count += 1
    (tmp_path / "text").mkdir()
    for number, text in enumerate(TEXTS[:3]):
        (tmp_path / "text" / f"{number}.txt").write_text(text, encoding="utf-8")
    result = evaluate_language(tmp_path / "model", tmp_path / "text", progress=False)
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    assert result["tokens"] == count
    assert result["bytes"] == num_bytes
    assert result["stride"] == 12
    assert result["loss"] == pytest.approx(total / count, abs=1e-4)
    assert result["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(total / num_bytes / math.log(2), rel=1e-4)


def test_batching_changes_nothing(small, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch):
    model = small("gpt3", "causal")
    together = score_language(model, tokenizer, TEXTS)
    monkeypatch.setattr("tilth.evidence.language.TOKENS_AT_ONCE", 1)
    monkeypatch.setattr("tilth.evidence.language._CHARACTERS_AT_ONCE", 1)
    one_by_one = score_language(model, tokenizer, TEXTS)
    assert together["loss"] == pytest.approx(one_by_one["loss"], abs=1e-5)
    assert together["documents"] == one_by_one["documents"] == 4


def test_a_longer_context_is_used(small, tokenizer: TextTokenizer):
    model = small("gpt2", "causal")
    losses = {stride: score_language(model, tokenizer, TEXTS, stride)["loss"] for stride in (1, 24)}
    assert losses[1] != pytest.approx(losses[24], abs=1e-3)


def test_masked_loss_is_repeatable_and_on_a_sixth_of_the_tokens(small, tokenizer: TextTokenizer):
    model = small("roberta", "masked")
    result = score_language(model, tokenizer, TEXTS)
    assert result == score_language(model, tokenizer, TEXTS)
    assert "masked" in result["protocol"] and "15 %" in result["protocol"]
    assert result["tokens"] == sum(len(tokenizer.encode(text)) for text in TEXTS)
    expected = result["loss"] * result["tokens"] / result["bytes"] / math.log(2)
    assert result["bits_per_byte"] == pytest.approx(expected)


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(small, tokenizer: TextTokenizer):
    for family, head in (("gpt2", "causal"), ("bert", "masked")):
        model = small(family, head)
        with torch.no_grad():
            model.trunk.embeddings.tokens.weight.zero_()
        assert score_language(model, tokenizer, TEXTS)["loss"] == pytest.approx(
            math.log(model.config.vocab_size), abs=1e-4
        )


def test_an_output_of_its_own_is_what_predicts(small, tokenizer: TextTokenizer):
    """With an untied output of zeros every token is alike likely, whatever the token table holds."""
    model = small("qwen3", "causal", tied=False)
    before = score_language(model, tokenizer, TEXTS)["loss"]
    with torch.no_grad():
        model.heads["causal"].weight.zero_()
    even = math.log(model.config.vocab_size)
    assert score_language(model, tokenizer, TEXTS)["loss"] == pytest.approx(even, abs=1e-4)
    assert before != pytest.approx(even, abs=1e-4)


def test_a_model_that_detects_replaced_tokens_refers_to_its_generator(small, tokenizer: TextTokenizer):
    model = small("electra", "replaced_token")
    with pytest.raises(TilthError, match="predicts no text: .*; its generator does: the folder generator"):
        score_language(model, tokenizer, TEXTS)
    assert "masked" in score_language(model.generator, tokenizer, TEXTS)["protocol"]


def test_a_text_of_nothing_but_unknown_characters_is_told(small_model):
    backend = Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    letters = TextTokenizer(backend, special_tokens(backend))
    masked = small_model("bert", letters.vocab_size, ("masked",))
    assert score_language(masked, letters, ["a"])["tokens"] == 1
    with pytest.raises(TilthError, match="no text to score: the tokenizer knows none of its 2 tokens"):
        score_language(masked, letters, ["☃ ☄"])


def test_wrong_use_is_told(small, tokenizer: TextTokenizer, tmp_path: Path):
    causal, masked = small("gpt2", "causal"), small("bert", "masked")
    with pytest.raises(UsageError, match="between 1 and the model's context of 24"):
        score_language(causal, tokenizer, TEXTS, stride=25)
    with pytest.raises(UsageError, match="stride is for causal models"):
        score_language(masked, tokenizer, TEXTS, stride=3)
    with pytest.raises(TilthError, match="no text to score"):
        score_language(causal, tokenizer, ["", ""])
    (tmp_path / "raw").write_text("A text of some length. " * 200)
    tilth.corpus_build([str(tmp_path / "raw")], tmp_path / "corpus", progress=False)
    with pytest.raises(UsageError, match="corpus is a corpus, which has no other texts than its documents"):
        tilth.evaluate(tmp_path / "no model", tmp_path / "corpus", lm=True, text_column="body")
    masked.heads.clear()
    with pytest.raises(TilthError, match="predicts no text"):
        score_language(masked, tokenizer, TEXTS)
