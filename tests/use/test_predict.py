from pathlib import Path

import numpy as np
import pytest
import torch

from tilth.errors import TilthError, UsageError
from tilth.model.folder import load_model, save_model
from tilth.use.predict import predict, predict_with


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_answers_do_not_depend_on_the_other_texts(small_folder, family: str):
    model, tokenizer = load_model(small_folder(family, "masked" if family == "bert" else "causal"))
    model.add_head("classify", labels=["yes", "no", "maybe"], seed=1)
    texts = ["the cat", "", "a dog ran and sat and ran", "film " * 80, "naïve"] * 30
    together = predict_with(model, tokenizer, texts)
    assert [answer["text"] for answer in together] == texts
    for index in (0, 1, 2, 3, 4):
        (alone,) = predict_with(model, tokenizer, [texts[index]])
        for other in together[index::5]:
            assert other["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)
        assert alone["label"] == max(alone["probabilities"], key=alone["probabilities"].get)
        assert list(alone["probabilities"]) == ["yes", "no", "maybe"]
        assert sum(alone["probabilities"].values()) == pytest.approx(1)
        assert alone.get("truncated", False) is (index == 3)


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_device_gives_the_answers_of_the_cpu(small_folder, family: str, device: str, tmp_path: Path):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, tokenizer = load_model(small_folder(family, "masked" if family == "bert" else "causal"))
    model.add_head("classify", labels=["yes", "no", "maybe"], seed=1)
    save_model(model, tokenizer, tmp_path / "model")
    texts = ["the cat", "a dog ran and sat and ran", "film " * 80]
    expected = predict(tmp_path / "model", texts, device="cpu")
    assert expected == predict_with(model, tokenizer, texts)
    for answer, on_cpu in zip(predict(tmp_path / "model", texts, device=device), expected, strict=True):
        assert answer["probabilities"] == pytest.approx(on_cpu["probabilities"], abs=1e-5)
        assert answer["label"] == on_cpu["label"]


def test_the_model_is_moved_to_the_device_that_is_picked(small_folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model, tokenizer = load_model(small_folder("bert", "masked"))
    model.add_head("classify", labels=["yes", "no"], seed=1)
    save_model(model, tokenizer, tmp_path / "model")
    with pytest.raises(UsageError, match="no device 'tpu' here; available: auto"):
        predict(tmp_path / "model", ["text"], device="tpu")
    # Every machine has the meta device, which knows shapes and no values: what is sent there cannot be answered from.
    monkeypatch.setattr("tilth.use.predict.pick_device", lambda setting: torch.device("meta"))
    with pytest.raises(NotImplementedError, match="meta"):
        predict(tmp_path / "model", ["text"])


def test_no_texts_have_no_answers(small_folder, tmp_path: Path):
    model, tokenizer = load_model(small_folder("bert", "masked"))
    model.add_head("classify", labels=["yes", "no"])
    assert predict_with(model, tokenizer, []) == []


def test_a_bare_text_is_refused(small_folder, tmp_path: Path):
    model, tokenizer = load_model(small_folder("bert", "masked"))
    model.add_head("classify", labels=["yes", "no"])
    with pytest.raises(UsageError, match="^texts must be texts in a list, not 'good'$"):
        predict_with(model, tokenizer, "good")
    with pytest.raises(UsageError, match="^texts must be texts in a list, not 'good'$"):
        predict(tmp_path / "not opened", "good")


def test_texts_come_in_any_collection_and_nothing_else(small_folder):
    model, tokenizer = load_model(small_folder("bert", "masked"))
    model.add_head("classify", labels=["yes", "no"], seed=1)
    texts = ["the cat", "a dog"]
    answers = predict_with(model, tokenizer, texts)
    for given in (tuple(texts), iter(texts), np.array(texts), np.array(texts, object)):
        assert predict_with(model, tokenizer, given) == answers
    for given, words in (
        ([*texts, float("nan")], r"^texts\[2\] is no text but nan$"),
        ([None], r"^texts\[0\] is no text but None$"),
        (["a\ud800"], r"^texts\[0\] has a lone surrogate, which is no character: 'a\\ud800'$"),
    ):
        with pytest.raises(UsageError, match=words):
            predict_with(model, tokenizer, given)


def test_a_model_without_labels_is_told(small_folder):
    with pytest.raises(TilthError, match="has no head that gives a text one label; fine-tune it first"):
        predict(small_folder("bert", "masked"), ["text"])
