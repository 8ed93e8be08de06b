import itertools
import json
from pathlib import Path

import pytest
import torch
import transformers

from tilth.errors import TilthError, UsageError
from tilth.evidence.evaluate import evaluate_task
from tilth.model.folder import load_model, save_model
from tilth.settings import load_settings
from tilth.tasks.classify import Classify
from tilth.tasks.data import Examples
from tilth.tasks.finetune import finetune, split_for_stopping
from tilth.tasks.fit import batch_indexes, parameter_groups
from tilth.tasks.settings import FinetuneSettings
from tilth.use.predict import predict

FAST = ["epochs=2", "min_steps=4", "max_steps=30", "lr=3e-3", "precision=float32"]
SUBJECTS = ["this film", "the plot", "that dog", "an actor", "the end", "his cat", "our song", "the sea"]


def reviews(count: int) -> list[tuple[str, str]]:
    """Texts whose label is one word of theirs, near the start: the tests' models read few tokens."""
    adverbs = ["", "very ", "rather ", "truly ", "so "]
    return [
        (f"{adverbs[number % 5]}{word} was {SUBJECTS[number % 8]} number {number}", word)
        for number in range(count // 2)
        for word in ("good", "bad")
    ]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows), encoding="utf-8"
    )
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write(tmp_path / "train.jsonl", reviews(160))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_it_learns_what_can_be_learned(small_folder, tmp_path: Path, family: str):
    train = write(tmp_path / "train.jsonl", reviews(720))
    start = small_folder(family, "masked" if family == "bert" else "causal")
    settings = ["epochs=5", "lr=5e-3", "batch_size=16", "precision=float32", "dropout=0", "patience=10"]
    result = finetune(start, train, tmp_path / "out", overrides=settings, progress=False)
    assert result["labels"] == ["bad", "good"]
    assert result["examples"] == {"train": 612, "valid": 108}
    assert result["history"][-1]["train_loss"] < 0.3 < result["history"][0]["train_loss"]
    assert result["valid"]["accuracy"]["value"] >= 0.9
    unseen = [f"{word} was {subject} number 40{n}" for n, subject in enumerate(SUBJECTS) for word in ("good", "bad")]
    answers = predict(tmp_path / "out", unseen)
    assert sum(text.startswith(answer["label"]) for text, answer in zip(unseen, answers, strict=True)) >= 15
    assert json.loads((tmp_path / "out" / "finetune.json").read_text()) == result


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_text_has_the_same_vector_alone_and_among_others(small_model, family: str):
    model = small_model(family, 40, ()).eval()
    pieces = [[2, *range(5, 5 + length), 3] for length in (3, 20, 1, 8, 8, 2)]
    together = Classify().features(model, pieces, 0, torch.float32)
    alone = torch.cat([Classify().features(model, [piece], 0, torch.float32) for piece in pieces])
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_the_same_seed_gives_the_same_weights(small_folder, train: Path, tmp_path: Path):
    start = small_folder("bert", "masked")
    hashes = [
        finetune(start, train, tmp_path / name, overrides=[*FAST, f"seed={seed}"], progress=False)["weights_sha256"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "gpt3"])
def test_a_fine_tuned_folder_answers_the_same_in_transformers(small_folder, train: Path, tmp_path: Path, family: str):
    transformers = pytest.importorskip("transformers")
    start = small_folder(family, "masked" if family in ("bert", "roberta") else "causal")
    out = tmp_path / "out"
    finetune(start, train, tmp_path / "tuned", overrides=[*FAST, "summary=trained"], progress=False)
    model, own_tokenizer = load_model(tmp_path / "tuned")
    with torch.no_grad():  # larger weights, so that a short training's answers differ from text to text
        for parameter in model.parameters():
            parameter.mul_(4.0)
    save_model(model, own_tokenizer, out)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    texts = ["good", "this film is not good, it is bad", "naïve £5"]
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        probabilities = torch.softmax(theirs(**batch).logits, -1)
    ours = [list(answer["probabilities"].values()) for answer in predict(out, texts)]
    assert torch.tensor(ours) == pytest.approx(probabilities, abs=1e-4)
    answers = sorted(row[0] for row in ours)
    assert min(b - a for a, b in itertools.pairwise(answers)) > 5e-4  # a swap would be seen


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("summary", [None, "trained", "mean"])
def test_a_frozen_trunk_stays_as_it_was(small_folder, train: Path, tmp_path: Path, family: str, summary: str | None):
    """Its top block starts as a mean only where that is asked for, and stays so."""
    start = small_folder(family, "causal" if family == "gpt2" else "masked")
    settings = ["freeze=true", "epochs=30", "max_steps=60", "precision=float32", "dropout=0", "head_lr=0.02"]
    settings += [f"summary={summary}"] if summary else []
    result = finetune(start, train, tmp_path / "out", overrides=settings, progress=False)
    assert result["settings"]["summary"] == (summary or "trained")
    before, after = load_model(start)[0].trunk.state_dict(), load_model(tmp_path / "out")[0].trunk.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {".".join(name.split(".")[:2]) for name in changed} == ({"blocks.1"} if summary == "mean" else set())
    assert before.keys() == after.keys()
    assert result["history"][-1]["train_loss"] < result["history"][0]["train_loss"]


def test_the_best_model_on_held_out_data_is_the_one_kept(small_folder, train: Path, tmp_path: Path):
    wrong = write(
        tmp_path / "valid.jsonl", [(text, "bad" if label == "good" else "good") for text, label in reviews(60)]
    )
    settings = ["epochs=20", "lr=5e-3", "precision=float32", "dropout=0", "patience=3"]
    result = finetune(
        small_folder("bert", "masked"), train, tmp_path / "out", valid=wrong, overrides=settings, progress=False
    )
    history = result["history"]
    best = max(history, key=lambda entry: (entry["valid_macro_f1"], -entry["valid_loss"]))
    assert result["best_epoch"] == best["epoch"]
    assert result["valid"]["macro_f1"]["value"] == pytest.approx(best["valid_macro_f1"])
    assert history[-1]["valid_macro_f1"] < best["valid_macro_f1"]
    assert result["stopped_early"] and result["steps"] < 100
    assert result["examples"] == {"train": 100, "valid": 60}
    right = sum(result["confusion"][index][index] for index in range(2))
    assert right / 60 == pytest.approx(result["valid"]["accuracy"]["value"])


def test_few_examples_are_all_learned_from(small_folder, tmp_path: Path, capsys):
    few, start = write(tmp_path / "few.jsonl", reviews(16)), small_folder("bert", "masked")
    result = finetune(start, few, tmp_path / "out", overrides=["min_steps=20"])
    told = (
        "No examples are held out: 0.15 of 16, which leave each label a text, are fewer than 100, too few to tell "
        "better weights from lucky ones."
    )
    assert told in capsys.readouterr().err
    other = write(tmp_path / "other.jsonl", [("nothing else is good", "good"), ("nothing else is bad", "bad")])
    for name, valid, setting in (("valid", other, []), ("none", None, ["valid_share=0"])):
        finetune(start, few, tmp_path / name, valid=valid, overrides=["max_steps=1", *setting])
        assert "held out" not in capsys.readouterr().err
    assert result["examples"] == {"train": 16, "valid": 0}
    assert result["steps"] == 20
    assert result["valid"] == {} and result["history"][-1]["valid_loss"] is None
    assert result["best_epoch"] == 20.0
    examples = Examples([str(number) for number in range(1000)], ["a", "b"] * 500)
    train, held_out = split_for_stopping(examples, FinetuneSettings(valid_share=0.1))
    assert held_out is not None and (len(train), len(held_out)) == (900, 100)
    assert split_for_stopping(examples.take(range(990)), FinetuneSettings(valid_share=0.1))[1] is None
    for labels in (1000, 930):  # no label has a second text, or 70 of them have
        of_many = Examples(examples.texts, [str(number % labels) for number in range(1000)])
        assert split_for_stopping(of_many, FinetuneSettings(valid_share=0.1)) == (of_many, None)


def test_long_texts_are_cut_and_counted(small_folder, tmp_path: Path):
    rows = [*reviews(30), ("word " * 100 + "good", "good"), ("word " * 100 + "bad", "bad")]
    data = write(tmp_path / "long.jsonl", rows)
    result = finetune(small_folder("roberta", "masked"), data, tmp_path / "out", overrides=["min_steps=1", "epochs=1"])
    pieces = [load_model(tmp_path / "out")[1].encode(text) for text, _ in rows]
    assert result["truncated"] == {"train": sum(len(piece) > 22 for piece in pieces), "valid": 0}
    answers = predict(tmp_path / "out", ["short", rows[-1][0], rows[-2][0]])
    assert "truncated" not in answers[0] and answers[1]["truncated"] is True
    assert answers[1]["probabilities"] == pytest.approx(answers[2]["probabilities"])


def test_a_limit_on_the_length_of_texts_goes_with_the_model(small_folder, tmp_path: Path):
    rows = [(f"{word} {number} and nothing else", word) for number in range(40) for word in ("good", "bad")]
    data, valid = write(tmp_path / "data.jsonl", rows[:40]), write(tmp_path / "valid.jsonl", rows[40:])
    settings = ["min_steps=1", "max_steps=1", "max_length=9"]
    result = finetune(small_folder("bert", "masked"), data, tmp_path / "out", valid=valid, overrides=settings)
    model, tokenizer = load_model(tmp_path / "out")
    assert model.reads == 9 and model.config.max_length == 24
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 9
    pieces, _ = Classify().encode(model, tokenizer, [rows[0][0]])
    assert len(pieces[0]) == 9
    found = evaluate_task(tmp_path / "out", valid)
    assert found["truncated"] == result["truncated"]["valid"] == 40
    assert found["accuracy"] == result["valid"]["accuracy"]
    again = finetune(tmp_path / "out", data, tmp_path / "again", overrides=settings[:2])
    assert again["settings"]["max_length"] == 24 and load_model(tmp_path / "again")[0].reads == 24


def test_every_example_comes_once_an_epoch():
    stream = [index for step in range(30) for index in batch_indexes(step, 7, 70, seed=3)]
    epochs = [stream[start : start + 70] for start in range(0, 210, 70)]
    assert all(sorted(epoch) == list(range(70)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    crossing = [index for step in range(2) for index in batch_indexes(step, 4, 6, seed=0)]
    assert sorted(crossing[:6]) == list(range(6)) and len(crossing) == 8


def test_rates_fall_towards_the_input(small_folder):
    model, _ = load_model(small_folder("bert", "masked"))
    model.add_head("classify", labels=["a", "b"])
    settings = FinetuneSettings(lr=1.0, head_lr=2.0, layer_decay=0.5, weight_decay=0.3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, settings)
    rates = {names[id(parameter)]: group["peak"] for group in groups for parameter in group["params"]}
    assert rates["trunk.embeddings.tokens.weight"] == 0.25
    assert rates["trunk.blocks.0.mlp.up.weight"] == 0.5
    assert rates["trunk.blocks.1.mlp.up.bias"] == 1.0
    assert rates["heads.classify.out.weight"] == 2.0
    assert not any(name.startswith("heads.masked") for name in rates)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] == 0.3 for p in group["params"]}
    assert "trunk.blocks.0.mlp.up.weight" in decayed and "trunk.blocks.0.mlp.up.bias" not in decayed


def test_the_settings_used_are_recorded(small_folder, train: Path, tmp_path: Path):
    def used(name: str, *overrides: str) -> list:
        settings = ["epochs=1", "max_steps=1", *overrides]
        finetune(small_folder("bert", "masked"), train, tmp_path / name, overrides=settings, progress=False)
        recorded = json.loads((tmp_path / name / "finetune.json").read_text())["settings"]
        return [recorded[setting] for setting in ("lr", "head_lr", "max_length")]

    assert used("a") == [0.0024, 0.0024, 24]
    assert used("b", "lr=1e-3", "max_length=12") == [0.001, 0.001, 12]
    assert used("c", "freeze=true") == [None, 0.003, 24]


def test_default_rate_falls_with_width():
    assert FinetuneSettings().peak_rates(768)[0] == pytest.approx(1e-4)
    assert FinetuneSettings().peak_rates(256)[0] == pytest.approx(3e-4)


def test_wrong_use_is_told_before_anything_is_written(small_folder, train: Path, tmp_path: Path):
    start = small_folder("bert", "masked")
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no task 'clasify'; there is classify"):
        finetune(start, train, out, task="clasify")
    with pytest.raises(UsageError, match="layer_deacy; did you mean layer_decay"):
        finetune(start, train, out, overrides=["layer_deacy=1"])
    with pytest.raises(TilthError, match="only one label .'good'."):
        finetune(start, write(tmp_path / "one.jsonl", [("a", "good"), ("b", "good")]), out, progress=False)
    with pytest.raises(TilthError, match="1 label.*not learned: 'ugly'"):
        finetune(start, train, out, valid=write(tmp_path / "v.jsonl", [("a", "ugly")]), progress=False)
    with pytest.raises(
        UsageError, match="max_length=4000 is more than the 24 tokens that the model reads; give at most"
    ):
        finetune(start, train, out, overrides=["max_length=4000"], progress=False)
    with pytest.raises(TilthError, match="no model folder at"):
        finetune(tmp_path / "none" / "such" / "folder", train, out, progress=False)
    assert not out.exists()


def test_a_fine_tuned_model_is_replaced_only_when_asked(small_folder, train: Path, tmp_path: Path):
    start, out = small_folder("bert", "masked"), tmp_path / "new" / "out"
    first = finetune(start, train, out, overrides=FAST, progress=False)
    with pytest.raises(
        UsageError, match=r"out holds a model fine-tuned from .*train.jsonl \('bad', 'good'\).*--overwrite"
    ):
        finetune(start, train, out, overrides=[*FAST, "seed=1"], progress=False)
    assert json.loads((out / "finetune.json").read_text()) == first
    second = finetune(start, train, out, overrides=[*FAST, "seed=1"], overwrite=True, progress=False)
    assert json.loads((out / "finetune.json").read_text()) == second != first


def test_epochs_that_are_given_are_what_is_trained(small_folder, tmp_path: Path):
    data = write(tmp_path / "data.jsonl", reviews(60))
    start = small_folder("bert", "masked")
    result = finetune(start, data, tmp_path / "out", overrides=["epochs=1", "batch_size=8"], progress=False)
    assert (result["steps"], result["history"][-1]["epoch"]) == (8, pytest.approx(8 * 8 / 60, abs=1e-3))
    assert (result["settings"]["min_steps"], result["settings"]["max_steps"]) == (1, None)
    defaults, given = FinetuneSettings(), load_settings(FinetuneSettings, ["epochs=1", "min_steps=7"])
    assert (defaults.min_steps, defaults.max_steps, given.min_steps, given.max_steps) == (100, 6000, 7, None)
    assert given.model_copy(update={"seed": 3}).min_steps == 7


def test_rows_left_out_are_told_on_standard_error(small_folder, tmp_path: Path, capsys):
    data = write(tmp_path / "data.jsonl", [*reviews(60), ("", "good")])
    finetune(small_folder("bert", "masked"), data, tmp_path / "out", overrides=FAST)
    assert f"{data}: 1 of 61 rows was left out: no text (line 61)" in capsys.readouterr().err


def test_a_folder_of_other_files_is_not_replaced(small_folder, train: Path, tmp_path: Path):
    with pytest.raises(TilthError, match="holds other files"):
        finetune(small_folder("bert", "masked"), train, tmp_path)
    assert train.is_file()


def test_a_rate_that_blows_up_is_told(small_folder, train: Path, tmp_path: Path):
    with pytest.raises(TilthError, match="not finite at update .*lower lr"):
        finetune(
            small_folder("gpt2", "causal"), train, tmp_path / "out", overrides=["lr=1e30", "clip=1e30"], progress=False
        )


def test_settings_have_bounds():
    with pytest.raises(UsageError, match="valid_share"):
        load_settings(FinetuneSettings, ["valid_share=0.7"])
    with pytest.raises(UsageError, match=r"min_steps \(30\) is above max_steps \(20\)"):
        load_settings(FinetuneSettings, ["min_steps=30", "max_steps=20"])
    assert load_settings(FinetuneSettings, ["max_steps=20"]).min_steps == 100, "a default bound gives way"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["freeze=true", "lr=1e-4"], "lr has no effect beside freeze=true"),
        (["freeze=true", "layer_decay=0.9"], "layer_decay has no effect beside freeze=true"),
        (["valid_share=0", "patience=4"], "patience has no effect beside valid_share=0.0"),
    ],
)
def test_idle_settings_are_refused(overrides, problem):
    with pytest.raises(UsageError, match=problem):
        load_settings(FinetuneSettings, overrides)
    assert load_settings(FinetuneSettings, overrides[:1])


def test_a_share_to_hold_out_is_idle_beside_validation_data(small_folder, train: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="valid_share has no effect beside --valid"):
        finetune(small_folder("bert", "masked"), train, tmp_path / "out", valid=train, overrides=["valid_share=0.15"])
    assert not (tmp_path / "out").exists()


def test_examples_that_are_also_validation_data_are_not_learned_from(small_folder, train: Path, tmp_path: Path):
    valid = write(tmp_path / "valid.jsonl", [*reviews(160)[:20], ("something new is good", "good")])
    result = finetune(
        small_folder("bert", "masked"), train, tmp_path / "out", valid=valid, overrides=FAST, progress=False
    )
    assert result["examples"] == {"train": 140, "valid": 21}
    assert result["left_out_as_also_in_valid"] == 20


def test_a_label_that_no_example_is_left_of_is_not_learned(small_folder, tmp_path: Path):
    train = write(tmp_path / "train.jsonl", [*reviews(40), ("so so", "neither")])
    for valid, examples in (("so so", 1), ("it is all good", 0)):
        held_out = write(tmp_path / "valid.jsonl", [(valid, "good")] * 3)
        result = finetune(
            small_folder("bert", "masked"), train, tmp_path / f"out{examples}", valid=held_out, overrides=FAST,
            progress=False,
        )  # fmt: skip
        assert result["left_out_as_also_in_valid"] == examples
        assert result["labels"] == (["bad", "good"] if examples else ["bad", "good", "neither"])
