import json
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tilth.errors import TilthError, UsageError
from tilth.evidence.compare import compare
from tilth.evidence.report_comparison import _difference_lines
from tilth.evidence.systems import NeuralSystem, TfidfSystem, pretraining_cost
from tilth.evidence.verdict import TestNoise, differences, interval, summarise, verdict
from tilth.model.folder import load_model
from tilth.tasks.metrics import scores, scores_with_intervals

SUBJECTS = ["this film", "the plot", "that dog", "an actor", "the end", "his cat", "our song", "the sea"]
FAST = ["epochs=1", "min_steps=2", "max_steps=2", "precision=float32"]
BASELINE = "TF-IDF + logistic regression"


def write(path: Path, count: int, offset: int = 0) -> Path:
    lines = [
        f"{SUBJECTS[number % 8]} number {number + offset} is {word}\t{word}\n"
        for number in range(count)
        for word in ("good", "bad")
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    return {"data": write(tmp_path / "train.tsv", 40), "test": write(tmp_path / "test.tsv", 20, offset=1000)}


def run(start: Path, data: dict[str, Path], out: Path, **changes) -> dict:
    settings = {"budgets": (4, "all"), "seeds": 2, "overrides": FAST, "progress": False, **changes}
    return compare("classify", data["data"], out, test=data["test"], models=[start], **settings)


def test_a_length_that_a_model_does_not_have_is_told_before_anything_is_trained(small_folder, data, tmp_path: Path):
    with pytest.raises(UsageError, match="max_length=99 is more than the 24 tokens that the model reads"):
        run(small_folder("bert", "masked"), data, tmp_path / "out", overrides=["max_length=99"])
    assert not (tmp_path / "out").exists()


def test_trainings_in_another_type_are_not_taken_for_these(small_folder, data, tmp_path: Path, monkeypatch):
    """`precision=auto` is float32 on one processor and bfloat16 on another."""
    start, overrides = small_folder("bert", "masked"), [*FAST[:-1], "precision=auto"]
    keys = []
    for units in ({}, {}, {"amx_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units)
        run(start, data, tmp_path / "out", overrides=overrides, budgets=(4,), overwrite=True)
        points = (tmp_path / "out" / "points.jsonl").read_text().splitlines()
        keys.append({point["key"] for point in map(json.loads, points) if point["system"] != BASELINE})
    assert keys[0] == keys[1] and keys[0] < keys[2] and len(keys[2]) == 2 * len(keys[0])


def test_every_system_is_measured_at_every_budget_and_seed(small_folder, data, tmp_path: Path):
    result = run(small_folder("bert", "masked"), data, tmp_path / "out")
    names = [system["name"] for system in result["systems"]]
    assert [system["kind"] for system in result["systems"]] == ["pretrained", "scratch", "baseline"]
    assert names[1] == f"{names[0]} from scratch" and names[2] == BASELINE
    seen = Counter((point["system"], point["budget"], point["seed"], point["examples"]) for point in result["points"])
    assert seen == Counter((name, b, seed, n) for name in names for b, n in ((4, 8), ("all", 80)) for seed in (0, 1))
    repeated = {(p["system"], p["budget"], p["seed"]) for p in result["points"] if p["repeats"]}
    assert repeated == {(BASELINE, "all", 1)}
    assert result["labels"] == ["bad", "good"]
    assert [row["system"] for row in result["differences"]] == [names[0]] * 4
    assert [row["against"] for row in result["differences"]] == [names[1]] * 2 + [BASELINE] * 2
    for row in result["summary"]:
        points = [p for p in result["points"] if (p["system"], p["budget"]) == (row["system"], row["budget"])]
        assert row["mean"] == pytest.approx(np.mean([p["test"]["macro_f1"] for p in points]))
        assert row["gap"] == pytest.approx(np.mean([p["train"]["macro_f1"] for p in points]) - row["mean"])
        assert row["low"] <= row["mean"] <= row["high"]
        assert (row["flops_mean"] is None) == (row["system"] == BASELINE)
    best = next(row for row in result["summary"] if row["system"] == BASELINE and row["budget"] == "all")
    assert best["mean"] == 1.0
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == result
    assert result["verdict"] in (tmp_path / "out" / "report.html").read_text()


def test_texts_that_are_cut_are_counted_and_told(small_folder, data, tmp_path: Path, capsys):
    start = small_folder("bert", "masked")
    tokenizer = load_model(start)[1]
    texts = [line.split("\t")[0] for path in data.values() for line in path.read_text().splitlines()]
    room = max(map(len, tokenizer.encode_batch(texts)))
    long = "this film number 7 is good, and the plot and that dog too"
    with open(data["data"], "a") as file:
        file.write(f"{long} by far\tgood\n")
    with open(data["test"], "a") as file:
        file.write(f"{long}\tgood\n{long}, yes\tgood\n")
    assert len(tokenizer.encode(long)) > room
    settings = {"budgets": (4,), "seeds": 1, "overrides": [*FAST, f"max_length={room + 2}"], "progress": True}
    result = run(start, data, tmp_path / "out", **settings)
    name = result["systems"][0]["name"]
    assert result["truncated"] == {name: {"train": 1, "test": 2}}
    told = f"{name} reads 1 of 81 training texts and 2 of 42 test texts only in part"
    assert told in capsys.readouterr().err
    assert told in (tmp_path / "out" / "report.html").read_text()
    assert run(start, data, tmp_path / "out", **settings)["truncated"] == result["truncated"]


def test_texts_without_words_are_compared(small_folder, tmp_path: Path):
    lines = [f"{mark * (number + 1)}\t{label}\n" for number in range(8) for mark, label in (("!", "a"), ("?", "b"))]
    for name in ("data", "test"):
        (tmp_path / f"{name}.tsv").write_text("".join(lines if name == "data" else ["!?!!\ta\n", "??!?\tb\n"]))
    files = {name: tmp_path / f"{name}.tsv" for name in ("data", "test")}
    result = run(small_folder("bert", "masked"), files, tmp_path / "out", budgets=("all",), seeds=1)
    assert result["summary"][-1]["system"] == BASELINE and result["summary"][-1]["mean"] == 1.0


def test_an_interrupted_comparison_goes_on_where_it_was(small_folder, data, tmp_path: Path, monkeypatch):
    start = small_folder("bert", "masked")
    whole = run(start, data, tmp_path / "whole")
    train, trained = NeuralSystem.run, []

    def counted(self, examples, seed):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((self.name, len(examples), seed))
        return train(self, examples, seed)

    monkeypatch.setattr(NeuralSystem, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        run(start, data, tmp_path / "out")
    monkeypatch.setattr(NeuralSystem, "run", train)
    path = tmp_path / "out" / "points.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 3 and not (tmp_path / "out" / "compare.json").exists()
    path.write_text("".join(lines) + lines[0][:50])  # as a crash in the middle of a write leaves it
    resumed = run(start, data, tmp_path / "out")
    assert path.read_text().startswith("".join(lines))
    assert len(path.read_text().splitlines()) == 11  # 12 points, of which the baseline's two at "all" are one training

    def timeless(value):
        if isinstance(value, dict):
            return {name: timeless(item) for name, item in value.items() if "seconds" not in name}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    assert timeless(resumed) == timeless(whole)


def test_other_settings_or_data_are_not_taken_from_the_record(small_folder, data, tmp_path: Path):
    start = small_folder("bert", "masked")
    settings = {"budgets": (4, 8), "seeds": 1}
    run(start, data, tmp_path / "out", **settings)
    record = tmp_path / "out" / "points.jsonl"
    assert len(record.read_text().splitlines()) == 6
    run(start, data, tmp_path / "out", **settings)
    assert len(record.read_text().splitlines()) == 6
    run(start, data, tmp_path / "out", **settings, overwrite=True, overrides=[*FAST, "lr=1e-3"])
    assert len(record.read_text().splitlines()) == 10  # the two neural systems again
    write(data["test"], 21, offset=1000)
    run(start, data, tmp_path / "out", **settings, overwrite=True)
    assert len(record.read_text().splitlines()) == 16


def test_another_comparison_is_replaced_only_when_asked(small_folder, data, tmp_path: Path):
    start, out = small_folder("bert", "masked"), tmp_path / "out"
    settings = {"budgets": (4,), "seeds": 1}
    first = run(start, data, out, **settings)
    page = (out / "report.html").read_text()
    assert run(start, data, out, **settings)["points"] == first["points"]
    for change, named in (
        ({"budgets": (8,)}, "--labels"),
        ({"seeds": 2}, "--seeds"),
        ({"overrides": [*FAST, "lr=1e-3"]}, "the settings"),
    ):
        with pytest.raises(UsageError, match=f"finished comparison that differs in {named}; .*--overwrite"):
            run(start, data, out, **settings | change)
    write(data["test"], 21, offset=1000)
    with pytest.raises(UsageError, match="differs in the examples; "):
        run(start, data, out, **settings)
    assert (out / "report.html").read_text() == page
    assert run(start, data, out, **settings | {"budgets": (8,)}, overwrite=True)["budgets"] == [8]
    other = tmp_path / "run"
    other.mkdir()
    (other / "report.html").write_text("of a run")
    with pytest.raises(UsageError, match="holds a report of something else"):
        run(start, data, other, **settings)
    assert [path.name for path in other.iterdir()] == ["report.html"]


def test_every_architecture_has_its_own_rival_from_scratch(small_folder, data, tmp_path: Path):
    bert, gpt2 = small_folder("bert", "masked"), small_folder("gpt2", "causal")
    models = [bert, gpt2, small_folder("bert", "masked", "next_sentence")]
    result = compare("classify", data["data"], tmp_path / "out", test=data["test"], models=models, budgets=(4, 8),
                     seeds=2, overrides=FAST, progress=False)  # fmt: skip
    kinds = {system["name"]: system["kind"] for system in result["systems"]}
    first, second, third = (name for name, kind in kinds.items() if kind == "pretrained")
    scratch = {f"{first} from scratch", f"{second} from scratch"}
    assert {name for name, kind in kinds.items() if kind == "scratch"} == scratch
    rivals = {(row["system"], row["against"]) for row in result["differences"]}
    assert rivals == {(name, BASELINE) for name in (first, second, third)} | {
        (first, f"{first} from scratch"), (second, f"{second} from scratch"), (third, f"{first} from scratch"),
        (second, first), (third, first),
    }  # fmt: skip
    means = {(row["system"], row["budget"]): row["mean"] for row in result["summary"]}
    for row in result["differences"]:
        against = means[row["against"], row["budget"]]
        assert row["mean"] == pytest.approx(means[row["system"], row["budget"]] - against)
    for name in (first, second, third):
        assert result["verdict"].count(f"{name}: ") == 1
    lines = _difference_lines(result)
    assert len(lines) == 8 == len({line.series for line in lines}) == len({line.label for line in lines})
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(line.label in page for line in lines), "names are not cut"


def test_what_fails_leaves_no_folder(small_folder, data, tmp_path: Path, monkeypatch):
    start, out = small_folder("bert", "masked"), tmp_path / "new" / "out"
    with pytest.raises(TilthError, match="does not exist"):
        run(start, {**data, "test": tmp_path / "none"}, out)

    def failing(self, examples, seed):
        raise TilthError("no luck")

    monkeypatch.setattr(NeuralSystem, "run", failing)
    with pytest.raises(TilthError, match="no luck"):
        run(start, data, out)
    assert not out.parent.exists()


def test_equal_seeds_have_an_interval_over_test_texts_alone_and_the_report_says_so(small_folder, data, tmp_path: Path):
    result = run(small_folder("bert", "masked"), data, tmp_path / "out", budgets=("all",))
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert "intervals over both seeds" in page and "has an interval over test texts alone" in page
    assert "intervals over seeds and test texts" in page
    assert len(result["points"]) == 6


def test_all_systems_learn_from_the_same_nested_samples_without_test_texts(small_folder, data, tmp_path, monkeypatch):
    seen: dict[tuple[str, int, int], list[str]] = {}
    for kind in (NeuralSystem, TfidfSystem):

        def spy(self, examples, seed, train=kind.run):
            seen[self.kind, len(examples), seed] = sorted(examples.texts)
            return train(self, examples, seed)

        monkeypatch.setattr(kind, "run", spy)
    with open(data["test"], "a") as file:
        file.write("This film number 0 is GOOD\tgood\n")  # a training text but for case
    result = run(small_folder("bert", "masked"), data, tmp_path / "out", budgets=(4, 8), seeds=2)
    assert result["examples"] == {"train": 79, "test": 41, "left_out_as_also_in_test": 1}
    for size in (8, 16):
        for seed in (0, 1):
            assert seen["pretrained", size, seed] == seen["scratch", size, seed] == seen["baseline", size, seed]
            assert "this film number 0 is good" not in seen["pretrained", size, seed]
    assert set(seen["pretrained", 8, 0]) < set(seen["pretrained", 16, 0])
    assert seen["pretrained", 8, 0] != seen["pretrained", 8, 1]


def test_without_test_data_a_fifth_is_held_out(small_folder, data, tmp_path: Path):
    result = run(small_folder("gpt2", "causal"), {**data, "test": None}, tmp_path / "out", seeds=1)
    assert result["examples"] == {"train": 64, "test": 16, "left_out_as_also_in_test": 0}
    assert "One seed says nothing" in result["verdict"]
    assert result["summary"][0]["low"] is None


def test_what_pre_training_cost_is_read_from_the_run(tmp_path: Path):
    summary = {"seconds": 60.0, "tokens": 1000, "parameters": 5, "flops_per_token": 30, "step": 3}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    expected = {"seconds": 60.0, "tokens": 1000, "parameters": 5, "flops": 30_000}
    assert pretraining_cost(tmp_path) == pretraining_cost(tmp_path / "model") == expected
    assert pretraining_cost(tmp_path / "other" / "model") is None


def test_budgets_beyond_the_data_are_all_of_it(small_folder, data, tmp_path: Path):
    result = run(small_folder("bert", "masked"), data, tmp_path / "out", budgets=(4, 40, 500, 0), seeds=1)
    assert result["budgets"] == [4, "all"]
    assert result["budgets_left_out"] == [40, 500]


def test_wrong_use_is_told(small_folder, data, tmp_path: Path):
    start, out = small_folder("bert", "masked"), tmp_path / "out"
    with pytest.raises(UsageError, match="name at least one pre-trained model"):
        compare("classify", data["data"], out, models=[])
    with pytest.raises(UsageError, match="no task 'tag'"):
        compare("tag", data["data"], out, models=[start])
    with pytest.raises(UsageError, match="seeds must be at least 1"):
        run(start, data, out, seeds=0)
    with pytest.raises(UsageError, match="budgets are numbers"):
        run(start, data, out, budgets=(-1,))
    with pytest.raises(UsageError, match="unknown key epoch; did you mean epochs"):
        run(start, data, out, overrides=["epoch=1"])
    with pytest.raises(TilthError, match="also in the held-out data"):
        run(start, {"data": data["data"], "test": data["data"]}, out)
    one = tmp_path / "one.tsv"
    one.write_text("a\tgood\nb\tgood\n")
    with pytest.raises(TilthError, match="only one label"):
        run(start, {"data": one, "test": data["test"]}, out)
    each = tmp_path / "each.tsv"
    each.write_text("text\tlabel\n" + "".join(f"text {number}\t{number}\n" for number in range(30)))
    with pytest.raises(TilthError, match="no label of .*each.tsv has two texts.*give --test"):
        run(start, {"data": each, "test": None}, out)
    out.mkdir(exist_ok=True)
    (out / "points.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(TilthError, match="is not a record of trainings"):
        run(start, data, out)


def test_interval_is_students_over_seeds_and_normal_over_tests():
    values = [0.70, 0.72, 0.74, 0.76, 0.78]
    mean, low, high = interval(values, np.zeros((5, 3)), (0, 1))
    half = 2.776445 * np.std(values, ddof=1) / np.sqrt(5)
    assert (mean, low, high) == (pytest.approx(0.74), pytest.approx(0.74 - half), pytest.approx(0.74 + half))
    resampled = np.random.default_rng(0).normal(0.7, 0.02, (1, 500)).repeat(5, axis=0)
    mean, low, high = interval([0.7] * 5, resampled, (0, 1))
    assert high - mean == pytest.approx(1.96 * 0.02, rel=0.1)
    assert interval([0.0, 1.0], np.zeros((2, 3)), (0, 1))[1:] == (0.0, 1.0)


def test_noise_of_the_test_set_agrees_with_the_bootstrap():
    generator = np.random.default_rng(0)
    true = generator.integers(0, 3, 400)
    predicted = np.where(generator.random(400) < 0.7, true, 0)
    resampled = TestNoise(true, 3).macro_f1(predicted)
    expected = scores_with_intervals(true, predicted)["macro_f1"]
    assert resampled.mean() == pytest.approx(scores(true, predicted)["macro_f1"], abs=0.005)
    assert np.percentile(resampled, 97.5) == pytest.approx(expected["high"], abs=0.008)


def test_the_resamples_of_a_large_test_set_take_a_byte_for_each_text():
    true = np.arange(20_000) % 2
    tracemalloc.start()
    try:
        noise = TestNoise(true, 2)
        figures = noise.macro_f1(true)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert figures.tolist() == [1.0] * 500
    assert 500 * 20_000 < peak < 1.3 * 500 * 20_000


def point(system: str, budget: int | str, seed: int, true: np.ndarray, predicted: np.ndarray) -> dict:
    test = scores(true, predicted)
    figures = {"examples": 9, "test": test, "train": test, "seconds": 1.0, "flops": None}
    return {"system": system, "budget": budget, "seed": seed, "predictions": predicted.tolist(), **figures}


def test_a_real_difference_is_found_and_chance_is_not():
    generator = np.random.default_rng(0)
    true = np.arange(1000) % 2
    accuracies = {("own", 8): 0.8, ("scratch", 8): 0.7, ("base", 8): 0.8, ("own", "all"): 0.9, ("scratch", "all"): 0.9}
    accuracies["base", "all"] = 0.95
    points = [
        point(system, budget, seed, true, np.where(generator.random(1000) < accuracy, true, 1 - true))
        for (system, budget), accuracy in accuracies.items()
        for seed in range(5)
    ]
    noise = TestNoise(true, 2)
    rows = differences(points, [("own", "scratch"), ("own", "base")], noise, "macro_f1")
    found = {(row["against"], row["budget"]): row for row in rows}
    assert found["scratch", 8]["low"] > 0.05 and found["scratch", 8]["mean"] == pytest.approx(0.1, abs=0.02)
    assert found["scratch", "all"]["low"] < 0 < found["scratch", "all"]["high"]
    assert found["base", "all"]["high"] < 0
    assert verdict(rows, "own", "scratch", "base") == (
        "Compared with the same model from scratch, pre-training helped at 8 labels per class "
        f"({found['scratch', 8]['mean']:+.3f}) and made no difference beyond chance at all labels; the pre-trained "
        f"model loses to base at all labels ({found['base', 'all']['mean']:+.3f})."
    )
    assert [row["mean"] for row in summarise(points, noise, "macro_f1")][:1] == [pytest.approx(0.8, abs=0.02)]


def rows(over_scratch: list[float], over_baseline: list[float]) -> list[dict]:
    """Differences at 8, 32 labels and all, each with an interval of 0.01 to either side."""
    return [
        {"system": "own", "against": against, "budget": budget, "mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        for against, means in (("scratch", over_scratch), ("base", over_baseline))
        for budget, mean in zip((8, 32, "all"), means, strict=True)
    ]


@pytest.mark.parametrize(
    ("over_scratch", "over_baseline", "sentence"),
    [
        (
            [0.2, 0.1, 0.02],
            [0.1, 0.0, -0.05],
            "Compared with the same model from scratch, pre-training helped at 8 and 32 labels per class and all "
            "labels (+0.200, +0.100, +0.020); the pre-trained model beats base at 8 labels per class (+0.100) and "
            "loses to it at all labels (-0.050).",
        ),
        (
            [0.0, 0.005, -0.005],
            [0.0, 0.0, 0.0],
            "Pre-training did not help here: compared with the same model from scratch, it made no difference beyond "
            "chance at 8 and 32 labels per class and all labels; the pre-trained model is not clearly better or worse "
            "than base.",
        ),
        (
            [0.0, -0.05, -0.1],
            [-0.1, -0.1, -0.1],
            "Pre-training did not help here: compared with the same model from scratch, it hurt at 32 labels per class "
            "and all labels (-0.050, -0.100) and made no difference beyond chance at 8 labels per class; the "
            "pre-trained model loses to base at 8 and 32 labels per class and all labels (-0.100, -0.100, -0.100).",
        ),
        (
            [0.05, 0.0, -0.1],
            [0.1, 0.1, 0.1],
            "Compared with the same model from scratch, pre-training helped at 8 labels per class (+0.050), hurt at "
            "all labels (-0.100) and made no difference beyond chance at 32 labels per class; the pre-trained model "
            "beats base at 8 and 32 labels per class and all labels (+0.100, +0.100, +0.100).",
        ),
    ],
)
def test_the_verdict_says_what_the_intervals_say(over_scratch, over_baseline, sentence: str):
    assert verdict(rows(over_scratch, over_baseline), "own", "scratch", "base") == sentence
