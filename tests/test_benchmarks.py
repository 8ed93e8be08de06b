"""Benchmarks write where they are told to, and what they count by themselves is right."""

import importlib
import json
import multiprocessing
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tilth
from tilth.corpus.build import build_corpus
from tilth.model.families import FAMILIES
from tilth.model.model import Model
from tilth.recipe import TokenizerSettings
from tilth.tokens.shards import open_shards, write_shards
from tilth.tokens.tokenizer import train_tokenizer
from tilth.train.word_sample import BEGIN, END, WordSample

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

if not BENCHMARKS.is_dir():
    pytest.skip("needs the benchmarks, which are not beside these tests", allow_module_level=True)


@pytest.mark.parametrize(
    "name",
    [
        "cpu_bfloat16",
        "damage",
        "generation",
        "gpu_throughput",
        "kill_anywhere",
        "loading",
        "muon",
        "planted_faults",
        "roofline",
        "save_stall",
        "throughput",
    ],
)
def test_the_page_of_results_can_be_named(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "--results RESULTS" in capsys.readouterr().out


def test_a_short_trial_writes_elsewhere(tmp_path):
    page = BENCHMARKS / "results" / "damage.md"
    before = page.read_bytes()
    command = [sys.executable, str(BENCHMARKS / "damage.py"), "--trials", "3", "--results", str(tmp_path / "page.md")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "3 trials, seed 0: 3 noticed" in (tmp_path / "page.md").read_text()
    assert page.read_bytes() == before


def test_the_roofline_counts_the_operations_of_the_model(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    roofline = importlib.import_module("roofline")
    products = (*roofline.PRODUCTS, "attention")
    for name, size, head, share, needed in (
        ("bert", "mini", "masked", 0.15, 1.0),
        ("gpt2", "124m", "causal", 1.0, 0.5),
    ):
        config = replace(FAMILIES[name].sizes[size], vocab_size=9000)
        with torch.device("meta"):
            model = Model(FAMILIES[name], config, (head,))
        work = roofline.parts(config, 256, share, 4096, is_fused=False)
        attention = 12 * config.layers * config.width * 256
        # Of causal attention half is needed; of the last block what belongs to a query, for the predicted tokens.
        last = 6 * (config.width**2 + 2 * config.width * config.mlp_width) + needed * attention / config.layers
        expected = model.flops_per_token(256, share) - (1 - needed) * attention - (1 - share) * last
        assert sum(work[part].operations for part in products) == pytest.approx(expected, rel=1e-12)
        assert work["attention"].operations == pytest.approx(needed * attention * (1 - (1 - share) / config.layers))


def test_the_roofline_is_drawn_the_same_each_time(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    roofline = importlib.import_module("roofline")
    panel = ("one", *roofline.on_h200(), roofline.H200)
    drawn = roofline.draw([panel, panel])
    assert drawn == roofline.draw([panel, panel])
    assert drawn.count("matrix products, 47%") == 2 and "772 TFLOP/s" in drawn and "4,300 GB/s" in drawn


def test_repeated_shards_are_the_real_ones_again(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    loading = importlib.import_module("loading")
    rows = [json.dumps({"text": f"Text {number} has a few words. And a second sentence."}) for number in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    corpus = build_corpus([str(tmp_path / "texts.jsonl")], tmp_path / "corpus", progress=False)
    tokenizer = train_tokenizer(TokenizerSettings(kind="characters", vocab_size=100), corpus, 0, progress=False)
    once = write_shards(corpus, tokenizer, tmp_path / "once", progress=False, shard_tokens=701).split("train")
    loading.repeat_shards(tmp_path / "once", tmp_path / "again", 5 * once.num_tokens)
    again = open_shards(tmp_path / "again", verify=True).split("train")
    assert again.num_documents == 3 * once.num_documents  # a token takes two bytes
    ids = [split.tokens(np.array([0]), np.array([split.num_tokens])).tolist() for split in (once, again)]
    assert ids[1] == 3 * ids[0]
    assert np.diff(again.document_starts).tolist() == 3 * np.diff(once.document_starts).tolist()
    end = once.num_tokens
    sentences = once.sentence_starts(0, end).tolist()
    assert again.sentence_starts(2 * end, end).tolist() == sentences and len(sentences) == 2 * once.num_documents


def test_a_turn_counts_its_steps_and_its_seconds_only(monkeypatch):
    """Two turns of 4 seconds, whose steps take 3 seconds, with a pause of 100 seconds between them."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    turns = importlib.import_module("turns")
    # The third step of the warm-up ends at 9 and its pause at 50; the turns' last steps end at 56 and at 162.
    clock = iter([3.0, 6.0, 9.0, 50.0, 53.0, 56.0, 156.0, 159.0, 162.0, 200.0])
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    parent, child = multiprocessing.Pipe()
    turn = turns.Turns(child, seconds=4)
    for _ in range(3):
        parent.send("go on")
    for _ in range(turns.WARM_UP_STEPS + 4):
        turn.after_step()
    told = [parent.recv() for _ in range(3)]
    assert told == ["ready", 6 / 2, 6 / 2]


def test_an_endless_run_samples_words_at_as_many_steps_as_one_that_ends(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(WordSample, "at", lambda self, step, spent: BEGIN <= spent < END)
    importlib.import_module("turns").sample_words_as_often_as_a_run()
    sampled = [WordSample.at(None, step, 0.0) for step in range(20)]  # pyright: ignore[reportArgumentType]
    assert sum(map(bool, sampled)) == pytest.approx(20 * (END - BEGIN))


def test_a_causal_model_of_the_peer_can_be_scored(monkeypatch, tmp_path, small_folder):
    monkeypatch.syspath_prepend(BENCHMARKS)
    trainer = importlib.import_module("peers.trainer")
    tokenizer = trainer.read_tokenizer(small_folder("gpt2", "causal") / "tokenizer.json", is_masked=False)
    shape = trainer.Shape(False, len(tokenizer), layers=1, width=32, heads=2)
    model = trainer.make_model(shape, 16, tokenizer, dropout=0.0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "held_out.txt").write_text("the cat and the dog ran")
    scored = tilth.evaluate(tmp_path / "model", tmp_path / "held_out.txt", lm=True, progress=False)
    assert scored["loss"] == pytest.approx(np.log(len(tokenizer)), rel=0.05)  # it has learnt nothing


def test_times_as_fast_follow_from_the_trainers_runs(monkeypatch):
    """Its loss falls from 2 to 1 while its minutes double: half way they are the square root of 2 times as many."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    times_as_fast = importlib.import_module("time_to_quality").times_as_fast
    trainer = [(60.0, 1.0), (30.0, 2.0)]
    assert [times_as_fast(trainer, 10, loss) for loss in (2.1, 2.0, 1.5, 1.0, 0.9)] == [
        "", "3.0", f"{3 * 2**0.5:.1f}", "6.0", "more than 6.0",
    ]  # fmt: skip


def test_the_index_names_every_script_and_every_table():
    index = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    scripts = {path.name for path in BENCHMARKS.glob("*.py")} - {"machine.py", "turns.py"}
    assert {line.split("`")[1] for line in index.splitlines() if line.startswith("| `")} == scripts
    tables = {f"results/{path.name}" for path in (BENCHMARKS / "results").glob("*.md")}
    assert set(re.findall(r"\]\((results/[^)]*)\)", index)) == tables
