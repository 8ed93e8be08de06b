import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import tilth
from tilth import cli, render
from tilth.errors import Interrupted, Terminated, TilthError, UsageError
from tilth.shell import Verbs

VERBS = ["demo", "corpus", "tokenizer", "plan", "pretrain", "finetune", "evaluate", "compare", "predict", "generate"]


def run(*args: str, app: typer.Typer = cli.app, stdin: str | None = None):
    return CliRunner().invoke(app, list(args), prog_name="tilth", input=stdin)


def python(code: str, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)


def failing(error: BaseException, verb: str = "fail") -> typer.Typer:
    """The command line with one verb, which fails."""
    app = typer.Typer(cls=Verbs, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(cli._global_options)

    @app.command(verb)
    def fail(words: list[str] | None = None, text: str = typer.Argument("")) -> None:
        raise error

    return app


def test_help_lists_every_verb_in_the_order_of_the_path():
    lines = run("--help").stdout.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == VERBS


@pytest.mark.parametrize(
    "verb", [*VERBS, *(f"corpus {verb}" for verb in ("build", "card", "match", "diff")), "tokenizer train"]
)
def test_every_verb_has_help(verb):
    result = run(*verb.split(), "--help")
    assert result.exit_code == 0
    assert f"Usage: tilth {verb} " in result.stdout


@pytest.mark.parametrize("model", ["/nowhere/model", "nowhere", "no/where"])
@pytest.mark.parametrize(
    "words",
    ["finetune MODEL --data DATA --out OUT", "predict MODEL text", "generate MODEL text", "evaluate MODEL --data DATA",
     "evaluate MODEL --data DATA --lm", "compare classify --data DATA --from MODEL --out OUT"],
)  # fmt: skip
def test_a_model_that_is_not_there_is_wrong_use(words: str, model: str, tmp_path: Path):
    data, out = tmp_path / "data.tsv", tmp_path / "out"
    data.write_text("text\tlabel\n" + "".join(f"text {number}\t{number % 2}\n" for number in range(20)))
    given = {"MODEL": model, "DATA": str(data), "OUT": str(out)}
    result = run(*(given.get(word, word) for word in words.split()))
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(f"no model folder at {model}|{model} is neither a model folder here nor", result.stderr)
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    ["corpus build NONE --out OUT", "plan bert-mini --corpus NONE", "pretrain bert-mini --corpus NONE --out OUT",
     "pretrain /nowhere/recipe.yaml --corpus DATA --out OUT", "finetune MODEL --data NONE --out OUT",
     "finetune MODEL --data DATA --valid NONE --out OUT", "evaluate MODEL --data NONE",
     "evaluate MODEL --data NONE --lm", "predict MODEL --data NONE",
     "compare classify --data NONE --from MODEL --out OUT",
     "compare classify --data DATA --test NONE --from MODEL --out OUT"],
)  # fmt: skip
def test_an_input_that_is_not_there_is_wrong_use(words: str, small_folder, tmp_path: Path):
    data, out = tmp_path / "data.tsv", tmp_path / "out"
    data.write_text("text\tlabel\n" + "a text\tgood\nanother\tbad\n" * 10)
    model = str(small_folder("gpt2", "causal"))
    given = {"MODEL": model, "DATA": str(data), "OUT": str(out), "NONE": "/nowhere/data.tsv"}
    result = run(*(given.get(word, word) for word in words.split()))
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search("/nowhere/data.tsv( does not exist|: no such file)|no recipe '/nowhere/", result.stderr)
    assert not out.exists()


def test_settings_among_sources_are_told_by_their_form(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pg19", "a=b.txt"):
        Path(name).write_text("\n".join(f"the text number {number} of a small corpus" for number in range(30)))
    settings = ("filters.c4=false", "mixture.pg19=0.5", "mixture.a=0.5", "near_duplicates=keep")
    result = run("corpus", "build", "pg19", "a=b.txt", "--out", "out", *settings)
    assert (
        result.exit_code == 2 and "mixture: there is no source 'a'; the source 'a=b.txt' has no weight" in result.stderr
    )
    result = run("corpus", "build", "pg19", "a=b.txt", "--out", "out", "filters.c4.lines=false")
    assert result.exit_code == 2 and "c4" in result.stderr and "no such file" not in result.stderr
    assert run("corpus", "build", "pg19", "a=b.txt", "--out", "out", "--text-column", "0").exit_code == 0


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"tilth {tilth.__version__}\n")


def test_importing_and_asking_for_help_load_nothing_heavy():
    code = """
import sys, tilth, tilth.cli
sys.argv = ["tilth", "pretrain", "--help"]
try:
    tilth.cli.main()
except SystemExit as stop:
    assert stop.code == 0
print(sorted({"torch", "numpy", "pyarrow", "sklearn", "matplotlib", "transformers", "tokenizers"} & set(sys.modules)))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "tilth", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"tilth {tilth.__version__}\n")


def test_the_exit_searches_no_cycles_of_what_was_loaded():
    """After torch was loaded that takes a second."""
    code = """
import atexit, gc, sys
from tilth import cli
atexit.register(lambda: print(len(gc.get_objects()) < gc.get_freeze_count() / 10))
sys.argv = ["tilth", "--version"]
cli.main()
"""
    assert python(code).stdout.splitlines()[-1] == "True"


def test_no_function_shares_its_name_with_a_module():
    """`tilth.demo` would become the module as soon as anything imported `tilth.demo`."""
    modules = {path.stem for path in Path(tilth.__file__).parent.iterdir()}
    assert not modules & set(tilth.__all__)
    assert set(tilth.__all__) <= set(dir(tilth))
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'"):
        tilth.pretrian  # noqa: B018


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pretrain", "bert-mini", "--corpus", "x", "--outt", "y"], "No such option: --outt (Possible options: --out)"),
        (["predct"], "No such command 'predct'. Did you mean 'predict'?"),
        (["pretrain", "bert-mini", "--out", "x"], "Missing option '--corpus'"),
        (["generate", "model", "prompt", "--top-k", "few"], "Invalid value for '--top-k'"),
        (["compare", "classify", "--data", "x", "--out", "y", "--labels", "8,0"], "--labels '8,0' is not a list"),
        (
            ["corpus", "match", "x", "--to", "y", "--nearest", "most"],
            "--nearest 'most' is not a share; give one such as",
        ),
        (["predict", "model", "text", "--data", "x"], "give texts or --data, not both"),
        (["generate", "model", "prompt", "--stop", ""], "--stop '' would stop before the first character"),
        (["pretrain", "bert-mini", "--corpus", "x", "--out", __file__], "test_cli.py is a file; choose another --out"),
    ],
)
def test_wrong_use_exits_2_and_says_what_was_wrong(args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (TilthError("the corpus is empty"), 1, "Error: the corpus is empty"),
        (UsageError("no recipe 'x'"), 2, "Error: no recipe 'x'"),
        (Interrupted("stopped after step 3", signal.SIGINT), 130, "Error: stopped after step 3"),
        (Interrupted("stopped after step 3", signal.SIGTERM), 143, "Error: stopped after step 3"),
        (OSError(28, "No space left on device", "/data/run"), 1, "Error: no space left to write /data/run: No space"),
        (OSError(28, "No space left on device"), 1, "Error: no space left to write: No space left on device; free"),
        (PermissionError(13, "Permission denied", "/a"), 1, "Error: cannot use /a: Permission denied; change its"),
        (IsADirectoryError(21, "Is a directory", "/a"), 1, "Error: /a is a folder where a file is needed; name a"),
        (NotADirectoryError(20, "Not a directory", "/a/b"), 1, "Error: cannot use /a/b: a file is where a folder is"),
        (FileNotFoundError(2, "No such file or directory", "/a"), 1, "Error: No such file or directory: /a"),
        (Terminated("stopped by SIGTERM", signal.SIGTERM), 143, "Error: stopped by SIGTERM; nothing half-written is"),
        (KeyboardInterrupt(), 130, "Error: interrupted; nothing half-written is left: the same command starts again"),
        (EOFError("cut short"), 1, "EOFError: cut short; this is a fault of Tilth's"),
        (MemoryError(), 1, "Error: out of memory; lower train.micro_batch_tokens"),
        (KeyError("x"), 1, "KeyError: 'x'; this is a fault of Tilth's"),
    ],
)
def test_failure_is_a_message_and_an_exit_status(error, status, message):
    result = run("fail", app=failing(error))
    assert result.exit_code == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("verb", "kept"),
    [("compare", "the finished trainings are kept"), ("demo", "the finished stages are kept"),
     ("pretrain", "its checkpoints are kept: --resume goes on"), ("finetune", "nothing half-written is left")],
)  # fmt: skip
def test_a_verb_that_is_interrupted_says_what_is_kept(verb, kept):
    result = run(verb, app=failing(KeyboardInterrupt(), verb))
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.startswith(f"Error: interrupted; {kept}")


def test_one_process_of_several_says_that_they_were_interrupted(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run("fail", app=failing(KeyboardInterrupt())).stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_a_result_that_cannot_be_printed_is_a_failure(tmp_path, json_flag, unbuffered):
    (tmp_path / "a.txt").write_text("word " * 400)
    tilth.corpus_build([str(tmp_path / "a.txt")], tmp_path / "corpus", progress=False)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tilth", "corpus", "card", str(tmp_path / "corpus"), *json_flag]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: cannot write the result to standard output: No space left on device; send it elsewhere\n",
    )


def test_pytorch_out_of_memory_says_what_to_lower():
    import torch

    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    result = run("fail", app=failing(raised.value))
    assert (result.exit_code, result.stderr[:28]) == (1, "Error: out of memory; lower ")
    assert run("fail", app=failing(torch.OutOfMemoryError("CUDA"))).stderr == result.stderr


def test_a_message_is_printed_as_it_is():
    message = "[red]x[/red] :smile: " + "a long path " * 30
    assert run("fail", app=failing(TilthError(message))).stderr == f"Error: {message}\n"


@pytest.mark.parametrize("args", [["--debug", "fail"], ["fail", "--debug"], ["fail", "--debug", "--", "text"]])
def test_debug_shows_the_traceback_before_or_after_the_verb(args):
    result = run(*args, app=failing(TilthError("the corpus is empty")))
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "TilthError: the corpus is empty" in result.stderr


def test_debug_after_two_dashes_is_text():
    result = run("fail", "--", "--debug", app=failing(TilthError("the corpus is empty")))
    assert "Traceback" not in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_and_gives_its_exit_status(tmp_path, number, status):
    code = """
import os, signal, sys, time
from pathlib import Path
from tilth import cli, files

# A process started in the background of a script has Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
path, number = sys.argv[1:]
sys.argv = ["tilth", "wait"]

@cli.app.command()
def wait():
    with files.whole_file(Path(path)) as aside:
        aside.write_text("half")
        os.kill(os.getpid(), int(number))
        time.sleep(50)

cli.main()
"""
    done = python(code, str(tmp_path / "out.txt"), str(int(number)))
    assert done.returncode == status
    assert ("interrupted" if number == signal.SIGINT else "stopped by SIGTERM") in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_is_strict(capsys):
    value = {"loss": float("nan"), "rate": float("inf"), "path": Path("a/b"), "parts": ({"x": 1},), 3: None, "ok": True}
    render.result(value, as_json=True)
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed == {"loss": None, "rate": None, "path": "a/b", "parts": [{"x": 1}], "3": None, "ok": True}


def test_tables_hold_every_figure(capsys):
    card = {
        "in": 12345,
        "dropped": {"duplicate": 3, "empty": {"blank": 1}},
        "accuracy": {"value": 0.91234, "low": 0.9, "high": 0.925},
        "best": True,
        "bits_per_byte": 2.345678,
        "curves": [{"model": "ours [x]", "macro_f1": 0.5}, {"model": "scratch", "macro_f1": 0.25}],
    }
    render.result(card, as_json=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "in 12,345" in lines
    assert "dropped: duplicate 3" in lines
    assert "dropped: empty: blank 1" in lines
    assert "accuracy 0.9123 (0.9 to 0.925)" in lines
    assert "best yes" in lines
    assert "bits per byte 2.346" in lines
    assert lines[lines.index("model macro f1") + 1 :] == ["ours [x] 0.5", "scratch 0.25"]


def test_predictions_are_one_line_each(capsys):
    item = {"text": "so good", "label": "1", "probabilities": {"0": 0.1, "1": 0.9}}
    render.predictions([item, item | {"truncated": True}])
    captured = capsys.readouterr()
    assert captured.out == "1\t0.900\tso good\n" * 2
    assert "1 of 2 texts" in captured.err
    render.predictions([item | {"text": "two\nlines"}])
    assert capsys.readouterr().out == "1\t0.900\ttwo lines\n"


PLAN = {
    "processor": "Processor 9000", "dtype": "bfloat16", "parameters": 5_273_088, "trunk_parameters": 3_159_040,
    "memory": {"weights": 21e6, "gradients": 21e6, "optimizer": 30e6, "activations": 1.5e9, "peak": 1.6e9,
               "measured_peak": 1.61e9, "free": 23e9},
    "micro_batch": {"rows": 64, "tokens": 4096, "rows_that_fit": 32},
    "budget": {"tokens": 301_236, "steps": 73, "epochs": 5.0, "tokens_in_data": 60_247},
    "probe": {"tokens_per_second": 2682.4}, "seconds": 7200.0, "cost": {"price": 2.0, "total": 4.0},
    "loss": {"value": 3.9, "low": 3.7, "high": 4.27}, "loss_note": "a power law through 5 runs",
    "compute_optimal": {"tokens_per_parameter": 0.0571, "parameters": 281_819, "tokens": 5_636_389, "rule": "a rule"},
    "warnings": ["the budget is 5.0 passes"],
}  # fmt: skip


def test_a_plan_says_everything_in_words(capsys):
    render.plan(PLAN)
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "5,273,088, of them 3,159,040 in the trunk", "1.60 GB estimated; 1.61 GB measured (weights 21.0 MB,",
        "23.00 GB free", "64 rows, 4,096 tokens; up to 32 rows of a step fit", "2,682 tokens a second",
        "301,236 tokens, 73 steps", "5.00 of 60,247 tokens", "2.0 hours", "4.00 at 2.00 an hour",
        "3.9 (3.7 to 4.27); a power law through 5 runs", "281,819 parameters on 5,636,389 tokens",
        "Warning: the budget is 5.0 passes.",
    ):  # fmt: skip
        assert words in text, text


def test_a_plan_that_knows_little_says_so(capsys):
    unknown = {"seconds": None, "cost": None, "probe": None, "loss": None, "compute_optimal": None, "warnings": []}
    budget = dict.fromkeys(PLAN["budget"])
    render.plan({**PLAN, **unknown, "budget": budget, "memory": {**PLAN["memory"], "measured_peak": None}})
    text = " ".join(capsys.readouterr().out.split())
    assert "speed not known budget not known in tokens passes over the data - time -" in text
    assert "measured" not in text and "cost" not in text


def comparison(long: str = "") -> dict:
    systems = [f"bert{long}", f"bert{long} from scratch", "TF-IDF + logistic regression"]
    return {
        "metric": "macro_f1", "budgets": [8, 32, 128, "all"], "budgets_left_out": [512],
        "systems": [{"name": name} for name in systems],
        "points": [{"system": name, "test": {"macro_f1": 0.5}} for name in systems] * 20,
        "summary": [{"system": name, "budget": budget, "mean": 0.625, "low": 0.5731, "high": 0.6772}
                    for name in systems for budget in (8, 32, 128, "all")],
        "verdict": "Compared with the same model from scratch, pre-training helped at 8 labels per class (+0.200).",
    }  # fmt: skip


@pytest.mark.parametrize("long", ["", " of a long name that goes on and on and on and on"])
def test_a_comparison_is_one_small_table_and_its_verdict(capsys, monkeypatch, long):
    monkeypatch.setenv("COLUMNS", "80")
    report = Path("/a/very/long/path" * 6) / "report.html"
    render.comparison(comparison(long), report)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24 and all(len(line) <= 80 for line in lines[:-1])
    assert lines[1].split() == ["8", "32", "128", "all"]
    assert sum(line.split()[-4:] == ["0.625"] * 4 for line in lines) == 3
    assert sum(line.split()[-4:] == ["0.573-0.677"] * 4 for line in lines) == 3
    text = " ".join(" ".join(lines[:-1]).split())
    assert "no label has more examples: 512 labels per class." in text
    assert text.endswith(f"{comparison()['verdict']}") and lines[-1] == f"Report: {report}"
    rows = [{**row, "low": None, "high": None} for row in comparison()["summary"]]
    render.comparison({**comparison(), "summary": rows}, report)
    assert "-0." not in capsys.readouterr().out


def test_an_evaluation_names_the_rows_and_columns_of_its_counts(capsys):
    value = {
        "accuracy": {"value": 0.41, "low": 0.3, "high": 0.5}, "labels": ["bad", "good"], "examples": 90,
        "per_class": {name: {"precision": 0.5, "recall": 0.25, "f1": 0.4, "support": 37} for name in ("bad", "good")},
        "confusion": [[11, 26], [10, 43]], "rejected": [{"line": 3, "reason": "no text"}],
    }  # fmt: skip
    render.evaluation(value)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["accuracy", "0.41", "(0.3", "to", "0.5)"] in lines
    assert ["true", "label", "bad", "good"] in lines and ["bad", "11", "26"] in lines and ["good", "10", "43"] in lines
    assert ["label", "precision", "recall", "f1", "support"] in lines and ["good", "0.5", "0.25", "0.4", "37"] in lines
    render.evaluation({**value, "labels": ["true", "not_true"]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["true", "label", "true", "not_true"] in lines and ["true", "11", "26"] in lines
    long = ["a refund that was not received", "a card that has not come yet", "an account to be closed"]
    counts = [[123, 2, 3], [4, 5, 6], [7, 8, 90]]
    render.evaluation({**value, "labels": long, "confusion": counts})
    lines = capsys.readouterr().out.splitlines()
    assert ["true", "label", "1", "2", "3"] in [line.split() for line in lines]
    for number, (label, row) in enumerate(zip(long, counts, strict=True), 1):
        assert f"{number} {label} {' '.join(map(str, row))}" in [" ".join(line.split()) for line in lines]
    many = [f"label{number}" for number in range(30)]
    render.evaluation({**value, "labels": many, "confusion": [[1] * 30] * 30})
    assert "true label" not in capsys.readouterr().out


def test_finetune_help_lists_every_setting():
    from tilth.tasks.settings import FinetuneSettings

    text = " ".join(run("finetune", "--help").stdout.split())
    assert "epochs=10 most passes over the examples" in text
    assert "lr peak learning rate" in text and "freeze=false" in text
    for name, field in FinetuneSettings.model_fields.items():
        assert name in text and field.description, name
    assert "tilth finetune --help lists them" in " ".join(run("compare", "--help").stdout.split())


@pytest.fixture
def two_corpora(tmp_path):
    """A corpus of texts of two kinds, and the file with texts of one of them."""
    for kind, words in {"farm": "soil plough barley wheat", "sea": "sail anchor tide storm"}.items():
        rows = [{"text": f"{words} {kind}{number} the and of {number % 7}"} for number in range(60)]
        (tmp_path / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = [str(tmp_path / name) for name in ("sea.jsonl", "farm.jsonl")]
    tilth.corpus_build(sources, tmp_path / "corpus", progress=False)
    return str(tmp_path / "corpus"), sources[1]


def test_match_and_diff_of_corpora(two_corpora, tmp_path):
    corpus, task = two_corpora
    done = run("corpus", "match", corpus, "--to", task, "--nearest", "50%", "--out", str(tmp_path / "half"))
    assert done.exit_code == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("farm.jsonl 6") for line in lines)
    assert any("60 documents, 50.0%" in line for line in lines)
    assert " ".join(lines).rstrip().endswith("nearest is farm.jsonl, farthest sea.jsonl.")
    done = run("corpus", "diff", corpus, str(tmp_path / "half"))
    assert "60 documents in both\n60 documents only in the first\n" in done.stdout
    assert "Characteristic of the first:" in done.stdout and "sail" in done.stdout
    assert "hold the same documents" in " ".join(run("corpus", "diff", corpus, corpus).stdout.split())
    for args in (["match", corpus, "--to", task], ["diff", corpus, corpus], ["card", corpus]):
        assert isinstance(json.loads(run("corpus", *args, "--json").stdout), dict)
    assert run("corpus", "card", corpus, "--html", str(tmp_path / "page.html")).exit_code == 0
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "corpus" / "card.html").read_bytes()
