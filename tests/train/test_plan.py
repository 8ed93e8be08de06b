"""A plan: what it predicts of a real run, what it claims and what it does not."""

import json
import math
from pydoc_data.topics import topics

import numpy as np
import pytest

from tilth.errors import TilthError, UsageError
from tilth.evidence.report import write_run_report
from tilth.recipe import load_recipe
from tilth.train.loop import pretrain
from tilth.train.planning.ladder import climb, fit_law, predict, rungs
from tilth.train.planning.plan import _tokens_and_seconds, plan
from tilth.train.planning.probe import Probe

TOKENS = np.array([1e6, 2e6, 4e6, 8e6, 16e6, 32e6])


def law(tokens):
    return 2.0 + 3.0 * (tokens / 1e6) ** -0.3


def test_a_law_without_noise_is_found_again():
    found = fit_law(TOKENS, law(TOKENS))
    assert (found.floor, found.scale, found.exponent) == pytest.approx((2.0, 3.0, 0.3), rel=0.02)
    assert float(found(1e9)) == pytest.approx(law(1e9), rel=1e-2)
    value, low, high = predict(TOKENS, law(TOKENS), 1e8, seed=0)
    assert value == pytest.approx(law(1e8), rel=2e-3)
    assert high - low < 0.05


def test_a_flat_ladder_stays_flat_and_a_falling_one_above_zero():
    assert float(fit_law(TOKENS, np.full(6, 4.0))(1e12)) == pytest.approx(4.0)
    assert float(fit_law(TOKENS, TOKENS**0.1)(1e12)) == pytest.approx((TOKENS**0.1).mean())
    steep = fit_law(TOKENS, 5 - np.log2(TOKENS / 1e6))
    assert steep.floor == 0 and 0 < float(steep(1e12)) < 1


def test_the_interval_holds_the_loss_about_nine_times_in_ten():
    """Over 100 noisy ladders, each drawn on to four times its longest run."""
    generator = np.random.default_rng(0)
    held, widths = 0, []
    for seed in range(100):
        losses = law(TOKENS) + generator.normal(0, 0.02, len(TOKENS))
        reached = law(1.28e8) + generator.normal(0, 0.02)
        _, low, high = predict(TOKENS, losses, 1.28e8, seed)
        held += low <= reached <= high
        widths.append(high - low)
    assert 0.83 <= held / 100 <= 0.98
    assert 0.02 < np.median(widths) < 0.5


def test_a_ladder_takes_its_minutes_and_halves_from_run_to_run():
    speed = Probe(tokens_per_second=1000, seconds_per_evaluation=2, start_seconds=1)
    amounts = rungs(10, speed)
    assert [amounts[0] / amount for amount in amounts] == [1, 2, 4, 8, 16, 32]
    assert sum(speed.seconds(amount, 1) for amount in amounts) == pytest.approx(600)
    with pytest.raises(UsageError, match=r"--ladder 0\.2: starting 6 runs alone takes 0\.3 minutes"):
        rungs(0.2, speed)


def test_time_and_tokens_of_a_probe_agree():
    speed = Probe(tokens_per_second=500, seconds_per_evaluation=2, start_seconds=6)
    assert speed.seconds(10_000) == 6 + 20 + 24
    assert speed.tokens(50) == pytest.approx(10_000)
    assert speed.tokens(3) == 0


@pytest.mark.parametrize(
    ("overrides", "tokens", "seconds"),
    [
        (["train.budget=1M tokens"], 1e6, 1 + 100 + 12 * 5),
        (["train.budget=1M tokens", "train.evaluate_every=100K tokens"], 1e6, 1 + 100 + 10 * 5),
        (["train.budget=1M tokens", "train.evaluate_every=1 steps"], 1e6, 1 + 100 + 250 * 5),
        (["train.budget=1M tokens", "train.evaluate_every=1 minutes"], 1e6, 1 + 100 + 100 / 55 * 5),
        (["train.budget=500 steps", "train.evaluate_every=0.5 epochs"], 2e6, 1 + 200 + 4 * 5),
        (["train.budget=10 minutes"], (600 - 1 - 60) * 10_000, 600),
        (["train.budget=30 minutes"], (1800 - 1 - 60) * 10_000, 1800),
        (["train.budget=5 minutes"], (300 - 1 - 30) * 10_000, 300),
        (["train.budget=10 minutes", "train.evaluate_every=25 steps"], (600 - 1 - 40 * 5) * 10_000, 600),
        (["train.budget=10 minutes", "train.evaluate_every=1 minutes"], (600 - 1 - 10 * 5) * 10_000, 600),
    ],
)
def test_evaluations_are_counted_as_often_as_the_recipe_has_them(overrides, tokens, seconds):
    speed = Probe(tokens_per_second=10_000, seconds_per_evaluation=5, start_seconds=1)
    settings = load_recipe("gpt2-mini", overrides).train
    found = _tokens_and_seconds(settings, {"tokens": 1.0, "steps": 4000.0, "epochs": 1e6}, speed)
    assert found == pytest.approx((tokens, seconds))


def test_no_loss_is_claimed_where_the_ladder_does_not_reach(recipe, tmp_path):
    settings = recipe("gpt2-mini")
    too_short = climb(settings, None, tmp_path, [5000, 2500, 1250], 10_000, print)  # type: ignore[arg-type]
    assert too_short.loss is None
    assert too_short.note.startswith("the ladder is too short: 1 of 3 runs would reach 8 steps, and 5 must")
    far = [2.0**-rung * 1e6 for rung in range(5)]
    beyond = climb(settings, None, tmp_path, far, 1e9, print)  # type: ignore[arg-type]
    assert beyond.loss is None and beyond.note.startswith("the budget is 1000 times the ladder's longest run")


@pytest.mark.parametrize(("budget", "steps"), [("30 steps", 30), ("9000 tokens", None)])
def test_a_plan_foretells_the_run(budget, steps, recipe, corpus, opened, tmp_path):
    settings = recipe("gpt2-mini", f"train.budget={budget}", "train.batch_tokens=256")
    planned = plan(settings, corpus, price=3.6, progress=False)
    run = opened("gpt2-mini")
    assert planned["parameters"] == run.model.num_parameters()
    assert planned["memory"]["peak"] == pytest.approx(planned["memory"]["measured_peak"], rel=0.1)
    assert planned["micro_batch"] == {"rows": 8, "tokens": 256, "rows_that_fit": 8}
    assert planned["loss"] is None and planned["loss_note"] == "no loss is claimed without --ladder"
    assert planned["cost"] == {"price": 3.6, "total": pytest.approx(planned["seconds"] / 1000)}
    done = pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert planned["budget"]["steps"] == done["step"] == (steps or done["step"])
    assert planned["budget"]["tokens"] == pytest.approx(done["tokens"], rel=0.05)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    epochs = [record["epoch"] for record in log if record["event"] == "step"][-1]
    assert planned["budget"]["epochs"] == pytest.approx(epochs, rel=0.03)
    assert planned["seconds"] > 0 and planned["probe"]["tokens_per_second"] > 100


def test_a_plan_takes_the_settings_of_a_run_and_tracks_nothing(recipe, corpus, tmp_path):
    """Shards at a URL, another share of raw text held out, trackers: as a run has them, or left alone."""
    (tmp_path / "raw").mkdir()
    for name in sorted(topics)[:24]:
        (tmp_path / "raw" / f"{name}.txt").write_text(topics[name])
    plan(recipe("gpt2-mini", "data.validation=0.3", "train.budget=20 steps"), tmp_path / "raw", progress=False)
    out = tmp_path / "run"
    pretrain(recipe("gpt2-mini", "train.budget=1 steps"), corpus, out, progress=False)
    given = f"data.shards=file://{out / 'shards'}", f"data.cache={tmp_path / 'cache'}"
    settings = recipe("gpt2-mini", *given, f"tokenizer.path={out / 'tokenizer.json'}", "train.trackers=[mlflow]")
    result = plan(settings, corpus, progress=False)
    assert result["probe"]["tokens_per_second"] > 0
    assert not list(tmp_path.rglob("mlflow"))


def test_many_passes_are_warned_of_and_the_same_operations_are_spent_otherwise(recipe, corpus):
    planned = plan(recipe("roberta-mini", "train.budget=4 epochs"), corpus, progress=False)
    assert planned["warnings"] == [] and planned["budget"]["epochs"] == pytest.approx(4)
    (warning,) = plan(recipe("bert-mini", "train.budget=9 epochs"), corpus, progress=False)["warnings"]
    assert warning.startswith("the budget is 9.0 passes") and "Muennighoff et al. 2023" in warning

    best, tokens = planned["compute_optimal"], planned["budget"]["tokens"]
    assert best["tokens"] == pytest.approx(20 * best["parameters"], abs=20)
    assert best["tokens"] * best["parameters"] == pytest.approx(planned["parameters"] * tokens, rel=1e-3)
    assert best["tokens_per_parameter"] == pytest.approx(tokens / planned["parameters"])
    assert "rule of thumb" in best["rule"]


def test_a_ladder_gives_a_loss_and_only_plan_json_is_left(recipe, corpus, tmp_path, monkeypatch):
    settings = recipe("gpt2-mini", "train.batch_tokens=32", "train.budget=1200 tokens")
    monkeypatch.setattr("tilth.train.planning.plan.rungs", lambda minutes, speed: [1000 * 0.75**n for n in range(5)])
    planned = plan(settings, corpus, ladder=0.2, out=tmp_path / "run", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["plan.json"]
    assert json.loads((tmp_path / "run" / "plan.json").read_text()) == planned
    assert [run["tokens"] for run in planned["ladder"]] == pytest.approx([1000 * 0.75**n for n in range(5)], abs=48)
    assert "drawn on to 1.2 times the longest" in planned["loss_note"]
    loss = planned["loss"]
    assert 0 < loss["low"] <= loss["value"] <= loss["high"]
    reached = pretrain(settings, corpus, tmp_path / "run", progress=False)["held_out_loss"]
    assert loss["value"] == pytest.approx(reached, abs=0.25)
    assert "Predicted and reached" in write_run_report(tmp_path / "run").read_text()


def test_what_does_not_fit_is_said_and_not_tried(recipe, corpus, monkeypatch):
    monkeypatch.setattr("tilth.train.planning.plan.free_memory", lambda device: 1000)
    planned = plan(recipe("gpt2-mini"), corpus, progress=False)
    assert planned["micro_batch"]["rows_that_fit"] == 0
    assert planned["probe"] is planned["seconds"] is planned["memory"]["measured_peak"] is None
    assert planned["warnings"][0].startswith("not even one row of 32 tokens fits")


def test_wrong_use_is_told(recipe, corpus, tmp_path):
    for arguments in ({"price": 0.0}, {"ladder": -1.0}, {"price": math.nan}):
        with pytest.raises(UsageError, match="is not above 0"):
            plan(recipe("gpt2-mini"), corpus, progress=False, **arguments)
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError, match="cannot write to .*file"):
        plan(recipe("gpt2-mini"), corpus, out=tmp_path / "file", progress=False)
