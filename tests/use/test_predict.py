from pathlib import Path

import pytest

from tilth.errors import TilthError
from tilth.model.folder import load_model
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


def test_no_texts_have_no_answers(small_folder, tmp_path: Path):
    model, tokenizer = load_model(small_folder("bert", "masked"))
    model.add_head("classify", labels=["yes", "no"])
    assert predict_with(model, tokenizer, []) == []


def test_a_model_without_labels_is_told(small_folder):
    with pytest.raises(TilthError, match="gives no labels; fine-tune it first"):
        predict(small_folder("bert", "masked"), ["text"])
