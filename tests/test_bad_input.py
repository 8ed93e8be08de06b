"""Bad input through the real command: one clear message on standard error, the right status, and nothing lost."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

CLOSED = Path("/sys/tilth")
"""Where even the superuser cannot make a folder."""
TINY = ["train.budget=2 steps", "train.batch_tokens=256", "data.length=32", "model.layers=1", "model.width=32",
        "model.heads=2", "tokenizer.vocab_size=300"]  # fmt: skip


@pytest.fixture(scope="module")
def tilth():
    """A function: runs the command. limit: most bytes a file may have, which stands in for a full disk."""
    command = [sys.executable, Path(__file__).with_name("command_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def run(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
            assert server.stdin is not None and server.stdout is not None
            server.stdin.write(json.dumps({"arguments": [*map(str, arguments)], "limit": limit}) + "\n")
            server.stdin.flush()
            done = json.loads(server.stdout.readline())
            return subprocess.CompletedProcess(command, done["status"], done["stdout"], done["stderr"])

        yield run
    assert server.returncode == 0


def assert_told(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in " ".join(done.stderr.split()), done.stderr


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(30):
        words = " ".join(f"word{(number * index) % 17} and thing{index % 5}" for index in range(60))
        (folder / f"{number}.txt").write_text(f"Text {number}. {words}.", encoding="utf-8")
    return folder


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"text": f"text {number} is {word}", "label": word} for number in range(12) for word in ("good", "bad")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_empty_folder(tilth, tmp_path):
    (tmp_path / "empty").mkdir()
    done = tilth("corpus", "build", tmp_path / "empty", "--out", tmp_path / "corpus")
    assert_told(done, 1, "no documents in empty", str(tmp_path / "corpus"))


def test_a_binary_file_and_a_truncated_gz_do_not_end_the_build(tilth, texts, tmp_path):
    (texts / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (texts / "cut.txt.gz").write_bytes(gzip.compress(b"some text " * 500)[:-20])
    done = tilth("corpus", "build", texts, "--out", tmp_path / "corpus", "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["rejected"] == {"binary": 1, "truncated": 1}
    assert card["in"] == 32 == card["kept"] + sum(card["dropped"].values()) + sum(card["rejected"].values())


def test_settings_that_do_not_exist_or_do_not_fit(tilth, texts, tmp_path):
    done = tilth("pretrain", "bert-mini", "--corpus", texts, "--out", tmp_path / "run", "train.lrr=1", "seed=x")
    assert_told(done, 2, "unknown key train.lrr", "train.lr", "seed")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_larger_than_the_corpus_supports(tilth, texts, tmp_path):
    out = ["--corpus", texts, "--out", tmp_path / "run"]
    done = tilth("pretrain", "bert-mini", *out, *TINY, "tokenizer.vocab_size=9000")
    assert_told(done, 1, "supports a vocabulary of", "9000", "tokenizer.vocab_size")


def test_folders_that_cannot_be_written(tilth, texts, tmp_path):
    assert_told(tilth("corpus", "build", texts, "--out", CLOSED), 1, "cannot write", "/sys", "--out")
    done = tilth("pretrain", "bert-mini", "--corpus", texts, "--out", CLOSED, *TINY)
    assert_told(done, 1, "cannot write", str(CLOSED), "--out")


def test_a_full_disk_while_training_a_tokenizer(tilth, texts, tmp_path):
    assert tilth("corpus", "build", texts, "--out", tmp_path / "corpus").returncode == 0
    out = tmp_path / "new" / "tokenizer.json"
    done = tilth("tokenizer", "train", tmp_path / "corpus", "--out", out, "--vocab-size", 90, limit=500)
    assert_told(done, 1, f"no space left to write {out}: ", "free some, or choose another place")
    assert not (tmp_path / "new").exists()


def test_a_verb_that_fails_leaves_no_empty_folder(tilth, labelled, small_folder, tmp_path):
    out = tmp_path / "out"
    assert_told(tilth("pretrain", "gpt2-mini", "--corpus", tmp_path / "no", "--out", out), 2, "no such file")
    assert_told(tilth("plan", "gpt2-mini", "--corpus", tmp_path / "no", "--out", out), 2, "no such file")
    one = tmp_path / "one.csv"
    one.write_text("text,label\na,same\nb,same\n")
    assert_told(tilth("finetune", small_folder("bert", "masked"), "--data", one, "--out", out), 1, "one label")
    assert not out.exists()


def test_a_full_disk_while_pretraining_and_finetuning(tilth, texts, labelled, small_folder, tmp_path):
    out = ["--corpus", texts, "--out", tmp_path / "run"]
    done = tilth("pretrain", "roberta-mini", *out, *TINY, limit=60_000)
    assert_told(done, 1, "cannot write", "space")
    model = small_folder("bert", "masked")
    tuned = ["--data", labelled, "--out", tmp_path / "tuned", "min_steps=1", "max_steps=1"]
    done = tilth("finetune", model, *tuned, limit=20_000)
    assert_told(done, 1, f"cannot write the model {tmp_path / 'tuned'}", "space")


def test_a_run_that_ended_before_its_first_checkpoint_is_started_anew(tilth, texts, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 0\n")
    (tmp_path / "run" / "log.jsonl").write_text('{"event": "start", "step": 0}\n')
    done = tilth("pretrain", "roberta-mini", "--corpus", texts, "--out", tmp_path / "run", *TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert events.count("start") == 1


def test_labelled_data_that_cannot_be_learned_or_scored(tilth, labelled, small_folder, tmp_path):
    model = small_folder("bert", "masked")
    (tmp_path / "one.csv").write_text("text,label\n" + "".join(f"text {number},same\n" for number in range(9)))
    done = tilth("finetune", model, "--data", tmp_path / "one.csv", "--out", tmp_path / "a")
    assert_told(done, 1, "one label", "same")
    (tmp_path / "other.csv").write_text("words,kind\na,b\nc,d\n")
    done = tilth("finetune", model, "--data", tmp_path / "other.csv", "--out", tmp_path / "a")
    assert_told(done, 1, "words", "kind", "--text-column")
    done = tilth("finetune", model, "--data", labelled, "--out", tmp_path / "tuned", "max_steps=1", "min_steps=1")
    assert done.returncode == 0, done.stderr
    (tmp_path / "test.csv").write_text("text,label\na text,good\nanother,strange\n")
    done = tilth("evaluate", tmp_path / "tuned", "--data", tmp_path / "test.csv")
    assert_told(done, 1, "strange")


def test_options_that_do_not_apply(tilth, labelled, small_folder):
    model = small_folder("gpt2", "causal")
    assert_told(tilth("evaluate", model, "--data", labelled, "--stride", 4), 2, "--stride", "--lm")
    assert_told(tilth("evaluate", model, "--data", labelled, "--lm", "--label-column", "x"), 2, "--label-column")


def test_text_without_a_text_column_or_mostly_broken_is_not_scored(tilth, small_folder, tmp_path):
    model = small_folder("gpt2", "causal")
    (tmp_path / "news.csv").write_text("headline,topic\nsomething happened,a\n")
    assert_told(tilth("evaluate", model, "--data", tmp_path / "news.csv", "--lm"), 1, "no_text_column")
    done = tilth("evaluate", model, "--data", tmp_path / "news.csv", "--lm", "--text-column", "headline", "--json")
    assert json.loads(done.stdout)["bytes"] == len("something happened")
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n' + "{broken\n" * 20)
    assert_told(tilth("evaluate", model, "--data", tmp_path / "bad.jsonl", "--lm"), 1, "20 records are broken")


def test_a_prompt_longer_than_the_model(tilth, small_folder):
    done = tilth("generate", small_folder("gpt2", "causal"), "many words " * 500)
    assert_told(done, 1, "shorten the prompt")


def test_predict_says_which_lines_were_left_out(tilth, labelled, small_folder, tmp_path):
    model, out = small_folder("bert", "masked"), tmp_path / "tuned"
    assert tilth("finetune", model, "--data", labelled, "--out", out, "max_steps=1", "min_steps=1").returncode == 0
    (tmp_path / "lines.txt").write_text("one\n\ntwo\u2028half\r\n", encoding="utf-8")
    done = tilth("predict", out, "--data", tmp_path / "lines.txt", "--json")
    texts = [answer["text"] for answer in json.loads(done.stdout)["predictions"]]
    assert texts == ["one", "two\u2028half"]
    assert "1 blank line" in done.stderr


def test_rows_that_are_left_out_are_told_and_too_many_end_the_evaluation(tilth, labelled, small_folder, tmp_path):
    model, out = small_folder("bert", "masked"), tmp_path / "tuned"
    assert tilth("finetune", model, "--data", labelled, "--out", out, "max_steps=1", "min_steps=1").returncode == 0
    (tmp_path / "two.tsv").write_bytes(b"text\tlabel\nfine\tgood\ncaf\xe9\tbad\n")
    done = tilth("evaluate", out, "--data", tmp_path / "two.tsv", "--out", tmp_path / "new")
    assert_told(done, 1, "1 of 2 rows cannot be used (line 3: not valid UTF-8)")
    assert not (tmp_path / "new").exists()
    (tmp_path / "more.tsv").write_bytes(b"text\tlabel\n" + b"fine\tgood\n" * 9 + b"caf\xe9\tbad\n")
    done = tilth("evaluate", out, "--data", tmp_path / "more.tsv", "--json")
    assert (done.returncode, json.loads(done.stdout)["examples"]) == (0, 9)
    assert "1 of 10 rows was left out: not valid UTF-8 (line 11)" in done.stderr
    done = tilth("predict", out, "--data", labelled, "--json")
    assert len(json.loads(done.stdout)["predictions"]) == 24
    assert json.loads(done.stdout)["predictions"][1]["text"] == "text 0 is bad"
    again = tilth("finetune", model, "--data", labelled, "--out", out, "max_steps=1", "min_steps=1")
    assert_told(again, 2, "holds a model fine-tuned from", "--overwrite")
