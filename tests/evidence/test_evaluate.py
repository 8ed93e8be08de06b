import json
from pathlib import Path

import pytest

from tilth.errors import TilthError
from tilth.evidence.evaluate import evaluate_task
from tilth.model.folder import load_model, save_model
from tilth.use.predict import predict


@pytest.fixture
def classifier(small_folder, tmp_path: Path) -> Path:
    model, tokenizer = load_model(small_folder("gpt2", "causal"))
    model.add_head("classify", labels=["no", "yes"], seed=3)
    save_model(model, tokenizer, tmp_path / "classifier")
    return tmp_path / "classifier"


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path


def test_metrics_are_those_of_the_predictions(classifier: Path, tmp_path: Path):
    texts = [f"{word} {number} {'x' * (number % 7)}" for number in range(20) for word in ("film", "dog", "cat")]
    answers = [answer["label"] for answer in predict(classifier, texts)]
    truth = [answer if number % 4 else {"yes": "no", "no": "yes"}[answer] for number, answer in enumerate(answers)]
    data = write(tmp_path / "test.tsv", [*zip(texts, truth, strict=True), ("", "yes")])
    result = evaluate_task(classifier, data, tmp_path / "evaluation", progress=False)
    assert result["accuracy"]["value"] == 0.75
    assert 0.6 < result["accuracy"]["low"] < 0.75 < result["accuracy"]["high"] < 0.9
    assert set(result["macro_f1"]) == {"value", "low", "high"}
    pairs = list(zip(truth, answers, strict=True))
    assert result["confusion"] == [[pairs.count((a, b)) for b in ("no", "yes")] for a in ("no", "yes")]
    assert result["per_class"]["yes"]["support"] == truth.count("yes")
    assert result["per_class"]["yes"]["recall"] == pytest.approx(pairs.count(("yes", "yes")) / truth.count("yes"))
    assert result["examples"] == 60
    assert result["rejected"] == [{"line": 61, "reason": "no text"}]
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text()) == result
    assert (tmp_path / "evaluation" / "confusion.svg").read_text().startswith("<svg")


def test_cut_texts_are_counted(classifier: Path, tmp_path: Path):
    data = write(tmp_path / "test.tsv", [("film " * 90, "yes"), ("film", "no")])
    assert evaluate_task(classifier, data, progress=False)["truncated"] == 1


def test_unknown_labels_are_named(classifier: Path, tmp_path: Path):
    data = write(tmp_path / "test.tsv", [("film", "yes"), ("dog", "perhaps")])
    with pytest.raises(TilthError, match=r"not learned: 'perhaps' \(1 examples\); the known labels are 'no', 'yes'"):
        evaluate_task(classifier, data, progress=False)


def test_a_model_without_labels_is_told(small_folder, tmp_path: Path):
    with pytest.raises(TilthError, match="has no head that gives a text one label; fine-tune it first"):
        evaluate_task(small_folder("bert", "masked"), write(tmp_path / "test.tsv", [("film", "yes")]), progress=False)
