"""What may change when a run goes on, and what it says of it."""

import json
import re
import shutil
from pydoc_data.topics import topics

import pytest
import torch
from pydantic import BaseModel

from tilth.errors import UsageError
from tilth.model.precision import compute_dtype
from tilth.recipe import _ON_RESUME, Recipe, on_resume
from tilth.train import identity
from tilth.train.checkpoint import load_latest, save_checkpoint
from tilth.train.identity import _MEASURED_BY, check_identity, measured_otherwise
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log

SETTINGS = ("bert-mini", "model.dropout=0.1", "objective.duplicates=2")


def names(kind: type[BaseModel], group: str = "") -> list[str]:
    """The dotted names of all settings."""
    found = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        is_group = (
            isinstance(inner, type)
            and issubclass(inner, BaseModel)
            and name in ("model", "tokenizer", "data", "objective", "train")
        )
        found += names(inner, f"{group}{name}.") if is_group else [f"{group}{name}"]
    return found


def test_every_setting_declares_what_its_change_means():
    declared = [name for text in _ON_RESUME.values() for name in text.split()]
    assert len(declared) == len(set(declared))
    missing = set(names(Recipe)) - set(declared)
    assert not missing, f"say in recipe.py, _ON_RESUME, what a change of {missing} means for a run that goes on"
    assert not set(declared) - set(names(Recipe)), "settings that are gone"
    assert on_resume("train.not_yet_declared") == "alters"


@pytest.fixture(scope="module")
def straight(recipe, corpus, tmp_path_factory, outcome):
    out = tmp_path_factory.mktemp("straight") / "run"
    pretrain(recipe(*SETTINGS), corpus, out, progress=False)
    return outcome(out)


@pytest.fixture(scope="module")
def stopped_run(recipe, corpus, tmp_path_factory):
    """A run stopped after step 7, not to be changed."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    pretrain(recipe(*SETTINGS, "train.budget=12 steps"), corpus, out, progress=False)
    shutil.rmtree(out / "checkpoints" / "step-00000012")  # as if killed after the save of step 10
    return out


@pytest.fixture
def stopped(stopped_run, tmp_path):
    return shutil.copytree(stopped_run, tmp_path / "run")


def resumed(run):
    return [record for record in read_log(run / "log.jsonl") if record["event"] == "resume"]


def test_harmless_changes_pass_are_logged_and_leave_the_result(recipe, corpus, stopped, straight, outcome):
    settings = recipe(
        *SETTINGS, "train.save_every=1e-6 minutes", "train.keep_checkpoints=5", "train.keep_every=1 steps",
        "train.device=auto" if not torch.cuda.is_available() else "train.device=cpu",
    )  # fmt: skip
    pretrain(settings, corpus, stopped, resume=True, progress=False)
    (record,) = resumed(stopped)
    assert record["step"] == 10 and record["accepted"] == []
    assert "train.save_every (was 5 steps, is 1e-06 minutes)" in record["changed"]
    assert "train.keep_checkpoints (was 2, is 5)" in record["changed"]
    result = outcome(stopped)
    assert result["log"] == straight["log"]
    for part in ("weights", "optimizer", "model"):
        assert result[part] == straight[part], part
    steps = [record["step"] for record in read_log(stopped / "log.jsonl") if record["event"] == "checkpoint"]
    assert steps == [5, 10, 11, 12], "an interval in another unit counts from where the run goes on"


def test_when_a_checkpoint_is_saved_alters_a_run_that_may_go_back_to_it(recipe, corpus, run_until, tmp_path):
    settings = (*SETTINGS, "train.on_spike=rewind")
    run_until(recipe(*settings), corpus, tmp_path / "run", stop=6)
    with pytest.raises(UsageError, match=r"train\.save_every \(was 5 steps, is 4 steps\).*--accept-changes"):
        pretrain(recipe(*settings, "train.save_every=4 steps"), corpus, tmp_path / "run", resume=True, progress=False)


def test_prompts_change_nothing_but_samples(recipe, corpus, stopped, straight, outcome):
    pretrain(recipe(*SETTINGS, "train.prompts=['the [MASK] is']"), corpus, stopped, resume=True, progress=False)
    result = outcome(stopped)
    assert [result[part] == straight[part] for part in ("weights", "optimizer", "model")] == [True] * 3
    samples = [record for record in result["log"] if record["event"] == "sample" and record["step"] == 12]
    assert [record["prompt"] for record in samples] == ["the [MASK] is"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("train.lr=0.5", r"train\.lr \(was 0\.001, is 0\.5\)"),
        ("train.budget=24 steps", r"train\.budget \(was 12 steps, is 24 steps\)"),
        ("model.dropout=0.2", r"model\.dropout \(was 0\.1, is 0\.2\)"),
        ("seed=5", r"seed \(was 0, is 5\)"),
    ],
)
def test_changes_of_the_result_are_named_and_can_be_accepted(change, named, recipe, corpus, stopped, straight, outcome):
    before = (stopped / "log.jsonl").read_bytes()
    settings = recipe(*SETTINGS, change)
    with pytest.raises(UsageError, match=f"{named}.*restore them, accept them with --accept-changes"):
        pretrain(settings, corpus, stopped, resume=True, progress=False)
    assert (stopped / "log.jsonl").read_bytes() == before
    summary = pretrain(settings, corpus, stopped, resume=True, accept_changes=True, progress=False)
    assert summary["step"] == (24 if "budget" in change else 12)
    (record,) = resumed(stopped)
    assert record["changed"] == [] and len(record["accepted"]) == 1
    assert record["accepted"][0].startswith(change.partition("=")[0])
    assert outcome(stopped)["weights"] != straight["weights"]
    assert outcome(stopped)["state"]["identity"]["recipe"] == settings.model_dump(mode="json")


@pytest.mark.parametrize(
    "change",
    [
        "model.width=64",
        "train.optimizer=adamw",
        "train.batch_tokens=1024",
        "tokenizer.vocab_size=310",
        "data.length=16",
    ],
)
def test_what_cannot_change_within_a_run_is_refused_even_when_accepted(change, recipe, corpus, stopped):
    with pytest.raises(UsageError, match=rf"cannot change within a run: {change.partition('=')[0]} \(was"):
        pretrain(recipe(*SETTINGS, change), corpus, stopped, resume=True, accept_changes=True, progress=False)


def test_another_version_of_the_code_is_named(recipe, corpus, stopped, monkeypatch):
    monkeypatch.setattr(identity, "RESULT_VERSION", 10_000)
    with pytest.raises(UsageError, match=r"code\.result_version \(was \d+, is 10000\).*--accept-changes"):
        pretrain(recipe(*SETTINGS), corpus, stopped, resume=True, progress=False)
    monkeypatch.undo()
    checkpoint, _ = load_latest(stopped / "checkpoints")
    checkpoint.identity["code"]["torch"] = "1.0"
    save_checkpoint(stopped / "checkpoints", 10, checkpoint, keep=1)
    with pytest.raises(UsageError, match=rf"code\.torch \(was 1\.0, is {re.escape(torch.__version__)}\)"):
        pretrain(recipe(*SETTINGS), corpus, stopped, resume=True, progress=False)


def test_units_for_bfloat16_come_and_go_with_the_processor(recipe, corpus, stopped, monkeypatch):
    """Muon multiplies in bfloat16 where they are, whatever the recipe's precision."""
    has_them = compute_dtype("auto", torch.device("cpu")) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not has_them})
    with pytest.raises(UsageError, match=r"processor \(was .*, is .*\).*--accept-changes"):
        pretrain(recipe(*SETTINGS), corpus, stopped, resume=True, progress=False)


def test_a_run_that_has_ended_goes_on_when_more_is_asked_of_it(recipe, corpus, stopped_run, stopped):
    pretrain(recipe(*SETTINGS), corpus, stopped, resume=True, progress=False)
    settings = recipe(*SETTINGS, "train.budget=15 steps")
    summary = pretrain(settings, corpus, stopped, resume=True, accept_changes=True, progress=False)
    assert summary["step"] == json.loads((stopped / "summary.json").read_text())["step"] == 15
    assert [record["step"] for record in read_log(stopped / "log.jsonl") if record["event"] == "step"] == [
        *range(1, 16)
    ]
    assert [record["step"] for record in read_log(stopped / "log.jsonl") if record["event"] == "evaluation"] == [
        3, 6, 9, 12, 15,
    ]  # fmt: skip


def test_another_number_of_threads_is_named(recipe, corpus, stopped, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "set by the user, so not to be chosen")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(UsageError, match=rf"threads \(was {threads}, is {threads + 1}\)"):
            pretrain(recipe(*SETTINGS), corpus, stopped, resume=True, progress=False)
    finally:
        torch.set_num_threads(threads)


def test_another_corpus_is_named_and_can_be_accepted(recipe, make_corpus, stopped):
    other = make_corpus([text[:200] for text in list(topics.values())[30:50]])
    with pytest.raises(UsageError, match=r"made from another corpus \(was .*--accept-changes"):
        pretrain(recipe(*SETTINGS), other, stopped, resume=True, progress=False)
    pretrain(recipe(*SETTINGS), other, stopped, resume=True, accept_changes=True, progress=False)
    (record,) = resumed(stopped)
    assert [change.partition(" ")[0] for change in record["accepted"]] == ["corpus"]


@pytest.fixture
def far(stopped):
    """The stopped run, as if its losses had been far lower than they can be, up to a divergence."""
    checkpoint, _ = load_latest(stopped / "checkpoints")
    checkpoint.state["monitor"] |= {"best_loss": 1.0, "losses": [1.0] * 32, "lowest": 1.0}
    save_checkpoint(stopped / "checkpoints", 10, checkpoint, keep=1)
    return stopped


def evaluated(run):
    return [
        (r["step"], r["best"]) for r in read_log(run / "log.jsonl") if r["event"] == "evaluation" and r["step"] > 10
    ]


def warned(run):
    return [record["kind"] for record in read_log(run / "log.jsonl") if record["event"] == "warning"]


def test_losses_on_another_corpus_are_not_compared_with_those_before(recipe, make_corpus, far):
    other = make_corpus([text[:200] for text in list(topics.values())[30:50]])
    settings = recipe(*SETTINGS, "train.budget=40 steps", "train.evaluate_every=10 steps")
    summary = pretrain(settings, other, far, resume=True, accept_changes=True, progress=False)
    assert evaluated(far)[0] == (20, True)
    assert summary["best_step"] >= 20
    assert json.loads((far / "model" / "training.json").read_text())["step"] == summary["best_step"]
    assert warned(far) == []
    first = next(r for r in read_log(far / "log.jsonl") if r["event"] == "evaluation" and r["step"] == 20)
    losses = [r["loss"] for r in read_log(far / "log.jsonl") if r["event"] == "step" and 10 < r["step"] <= 20]
    assert first["train_loss"] == pytest.approx(sum(losses) / 10), "of the steps on this corpus alone"


def test_another_sample_of_held_out_text_gives_another_best(recipe, corpus, far):
    """The training loss is what it was, and so is what the monitor says of that."""
    settings = recipe(*SETTINGS, "train.evaluate_tokens=300")
    summary = pretrain(settings, corpus, far, resume=True, accept_changes=True, progress=False)
    assert evaluated(far) == [(12, True)]
    assert summary["best_step"] == 12
    assert warned(far) == ["spike"]


def test_the_best_model_stays_it_when_what_is_measured_is_the_same(recipe, corpus, far):
    settings = recipe(*SETTINGS, "train.lr=2e-3", "train.budget=14 steps", "train.evaluate_every=2 steps")
    before = (far / "model" / "model.safetensors").read_bytes()
    pretrain(settings, corpus, far, resume=True, accept_changes=True, progress=False)
    assert evaluated(far) == [(12, False), (14, False)]
    assert (far / "model" / "model.safetensors").read_bytes() == before
    assert warned(far) == ["spike"]


def test_what_losses_depend_on_is_known(recipe):
    def identity(*overrides, **values):
        settings = recipe(*SETTINGS, *overrides).model_dump(mode="json")
        return {"recipe": settings, "corpus": "one", "tokenizer": "one", "processes": 1, "compiled": False} | values

    both = ["held_out", "training"]
    for now, others in (
        (identity(), []),
        (identity("train.lr=0.5", "train.budget=40 steps", "train.evaluate_every=1 steps", "train.clip=2"), []),
        (identity("train.device=auto", "train.patience=9", processes=2, threads=5), []),
        (identity(corpus="other"), both),
        (identity(tokenizer="other"), both),
        (identity("seed=1"), both),
        (identity("data.cross_documents=true"), both),
        (identity("objective.rate=0.3"), both),
        (identity("objective.duplicates=3"), both),
        (identity("train.evaluate_tokens=300"), ["held_out"]),
        (identity("objective.vocabulary_share=0.5"), ["training"]),
        (identity("model.dropout=0.2"), ["training"]),
    ):
        assert measured_otherwise(identity(), now) == others
    named = set().union(*_MEASURED_BY.values()) - {"corpus", "tokenizer"}
    assert named <= set(names(Recipe)), "settings that are gone"


def test_a_refused_change_leaves_the_run_as_it_was(recipe, corpus, make_corpus, stopped):
    """Also where a change that goes with it would be accepted, and have the shards made anew."""
    other = make_corpus([text[:200] for text in list(topics.values())[30:50]])
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    settings = recipe(*SETTINGS, "train.batch_tokens=1024")
    with pytest.raises(UsageError, match=r"cannot change within a run: train\.batch_tokens \(was 512, is 1024\)"):
        pretrain(settings, other, stopped, resume=True, accept_changes=True, progress=False)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
    assert pretrain(recipe(*SETTINGS), corpus, stopped, resume=True, progress=False)["step"] == 12


def test_a_setting_that_an_older_version_did_not_have_was_at_its_default(recipe):
    now = {"recipe": recipe(*SETTINGS).model_dump(mode="json"), "processes": 1, "compiled": False}
    before = json.loads(json.dumps(now))
    del before["recipe"]["train"]["clip"], before["processes"], before["compiled"]
    assert check_identity(before, now, False) == {"accepted": [], "changed": []}
    now["recipe"]["train"]["clip"] = 0.5
    with pytest.raises(UsageError, match=r"train\.clip \(was 1\.0, is 0\.5\)"):
        check_identity(before, now, False)


def test_accepting_goes_with_resuming(recipe, corpus, tmp_path):
    with pytest.raises(UsageError, match="--accept-changes with --resume"):
        pretrain(recipe(*SETTINGS), corpus, tmp_path / "run", accept_changes=True, progress=False)
