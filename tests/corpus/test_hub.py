"""Datasets of the Hugging Face hub, from a server that answers as the hub does."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tilth.corpus.reader import open_corpus
from tilth.corpus.remote.hub import is_dataset

REVISIONS = {"main": "0123456789abcdef0123456789abcdef01234567", "v1": "76543210fedcba9876543210fedcba9876543210"}

CARD = b"""---
configs:
- config_name: english
  default: true
  data_files:
  - {split: train, path: "en/train-*"}
  - {split: test, path: en/test.parquet}
- config_name: german
  data_files: de/*.parquet
---
A card is no document.
"""

NESTED = b"""---
configs:
- config_name: default
  data_files: nested.json
  field: rows
---
"""


def rows(name: str, count: int = 20) -> list[dict[str, str]]:
    return [{"id": f"{name}-{n}", "text": f"Text {n} of {name}: it rained on field {n * n}."} for n in range(count)]


def table(name: str) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows(name)), sink)
    return sink.getvalue().to_pybytes()


def lines(name: str) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(name)).encode()


TEXTS = {
    "README.md": CARD,
    "en/train-00000-of-00002.parquet": table("a"),
    "en/train-00001-of-00002.parquet": table("b"),
    "en/test.parquet": table("test"),
    "de/all.parquet": table("german"),
}


class Hub:
    """The parts of the hub's interface that reading datasets takes. repositories[name][revision][path]: content."""

    def __init__(self, serve: Callable[[Callable], str]) -> None:
        self.repositories = {
            "ann/texts": {REVISIONS["main"]: TEXTS, REVISIONS["v1"]: {"data.jsonl": lines("old")}},
            "ann/plain": {REVISIONS["main"]: {"train.jsonl": lines("plain"), "README.md": b"no settings"}},
            "ann/nested": {
                REVISIONS["main"]: {"nested.json": json.dumps({"rows": rows("nested")}).encode(), "README.md": NESTED}
            },
        }
        self.gated = {"ann/gated"}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = serve(self.answer)

    def answer(self, handler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.asked.append((handler.command, handler.path, dict(handler.headers)))
        path = urlsplit(handler.path).path
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api":
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[1:3]), parts[3:]
        if name in self.gated:
            return self.send(handler, 403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask for access."})
        if name not in self.repositories:
            return self.send(handler, 401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
        revision = rest[1] if len(rest) > 1 else "main"
        revision = REVISIONS.get(revision, revision)
        files = self.repositories[name].get(revision)
        if files is None:
            return self.send(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["resolve"]:
            return self.file(handler, files.get("/".join(rest[2:])), revision)
        if rest[:1] == ["tree"]:
            return self.send(handler, 200, json.dumps(self.tree(files, "/".join(rest[2:]), handler.path)).encode())
        if rest[:1] in ([], ["revision"]):
            siblings = [{"rfilename": each} for each in files]
            about = {"id": name, "sha": revision, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
            return self.send(handler, 200, json.dumps({**about, "likes": 0, "_id": "1"}).encode())
        return self.send(handler, 404, b"")

    def tree(self, files: dict[str, bytes], folder: str, asked: str) -> list[dict]:
        below = {path: content for path, content in files.items() if path.startswith(f"{folder}/" if folder else "")}
        found = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in below.items()
        ]
        folders = sorted({str(parent) for path in below for parent in Path(path).parents} - {".", folder})
        found += [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]
        if "recursive=true" in asked.lower():
            return found
        return [each for each in found if str(Path(each["path"]).parent) == (folder or ".")]

    def file(self, handler, content: bytes | None, revision: str) -> None:
        if content is None:
            return self.send(handler, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision})
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": revision,
            "Accept-Ranges": "bytes",
        }
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")):
            start, end = int(found[1]), int(found[2] or len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{min(end, len(content)) - 1}/{len(content)}"
            return self.send(handler, 206, content[start:end], headers)
        return self.send(handler, 200, content, headers)

    def send(self, handler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)


@pytest.fixture
def hub(serve) -> Hub:
    return Hub(serve)


@pytest.fixture
def run(hub, tmp_path):
    """run(argument, ...) runs Python; the libraries read where the hub is once for each process."""

    def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        told = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "cache")}
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **told, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip

    return python


@pytest.fixture
def build(run, tmp_path):
    """build(source, ...) builds into tmp_path/out."""
    return lambda *arguments: run("-m", "tilth", "corpus", "build", *arguments, "--out", str(tmp_path / "out"))


FIND = """
import json, sys
from tilth.corpus.sources import find_sources
from tilth.errors import UsageError
for text in sys.argv[1:]:
    try:
        (source,) = find_sources([text], None)
        print(json.dumps([source.name, [(file.path, file.name, file.size) for file in source.files]]))
    except UsageError as error:
        print(json.dumps([str(error), []]))
"""


@pytest.fixture
def find(run):
    """find([source, ...]) gives for each its name, or what is wrong, and its files as (url, name, bytes)."""

    def found(sources: list[str], **environment: str) -> list:
        done = run("-c", FIND, *sources, **environment)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return found


def texts(folder: Path) -> list[str]:
    corpus = open_corpus(folder)
    return sorted(document.text for split in ("train", "validation") for document in corpus.documents(split))


def expected(*names: str) -> list[str]:
    return sorted(row["text"] for name in names for row in rows(name))


def test_a_split_of_the_default_configuration(hub, build, tmp_path):
    done = build("hf://datasets/ann/texts", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert texts(tmp_path / "out") == expected("a", "b")
    card = open_corpus(tmp_path / "out").card
    assert [source["source"] for source in card["sources"]] == ["ann/texts"]
    told = f"ann/texts: revision {REVISIONS['main']}, configuration english, split train"
    assert told in card["notes"]
    hosts = {headers["Host"] for _, _, headers in hub.asked}
    assert hosts == {hub.url.removeprefix("http://")}
    assert not [path for _, path, _ in hub.asked if "telemetry" in path]
    assert not [path for _, path, _ in hub.asked if path.endswith(("test.parquet", "all.parquet"))]


FOUND = {
    "hf://datasets/ann/texts#english/test": ("ann/texts#english/test", "main", ["en/test.parquet"]),
    "hf://datasets/ann/texts#german": ("ann/texts#german", "main", ["de/all.parquet"]),
    "hf://datasets/ann/texts@v1": ("ann/texts", "v1", ["data.jsonl"]),
    "hf://datasets/ann/plain": ("ann/plain", "main", ["train.jsonl"]),
}


def test_configurations_splits_and_revisions(hub, find):
    for (name, files), (expected_name, revision, paths) in zip(find(list(FOUND)), FOUND.values(), strict=True):
        dataset, commit = name.partition("#")[0], REVISIONS[revision]
        assert name == expected_name
        assert files == [
            [
                f"hf://datasets/{dataset}@{commit}/{path}",
                f"{dataset}/{path}",
                len(hub.repositories[dataset][commit][path]),
            ]
            for path in paths
        ]


WRONG = {
    "hf://datasets/ann/nothing": "'ann/nothing' doesn't exist",
    "hf://datasets/ann/gated": "gated dataset",
    "hf://datasets/ann/texts#french": r"'french' not found. Available: \['english', 'german'\]",
    "hf://datasets/ann/texts#english/dev": "no split 'dev'; its splits are train, test",
    "hf://datasets/ann/texts@v9": "Revision 'v9' doesn't exist",
    "hf://datasets/ann/nested": "field='rows', which is not known here",
}


def test_what_is_not_to_be_had_is_told(find):
    for (problem, _), (source, words) in zip(find(list(WRONG)), WRONG.items(), strict=True):
        assert f"{source}: " in problem and re.search(words, problem)


def test_offline_is_told(find):
    ((problem, _),) = find(["hf://datasets/ann/texts"], HF_HUB_OFFLINE="1")
    assert "Couldn't reach 'ann/texts'" in problem and "ffline" in problem


def test_a_missing_column_names_those_there_are(hub, build):
    hub.repositories["ann/plain"][REVISIONS["main"]] = {"train.jsonl": b'{"story": "It rained."}\n' * 3}
    done = build("hf://datasets/ann/plain")
    assert done.returncode == 1
    assert "no column 'text'; the columns are 'story': choose one with --text-column" in done.stderr


def test_a_dataset_that_was_saved_to_disk(run, tmp_path):
    script = (
        "import datasets, json, sys; rows = json.loads(sys.argv[1])\n"
        "split = datasets.Dataset.from_list(rows); datasets.DatasetDict(train=split).save_to_disk('saved')\n"
        "from pathlib import Path; from tilth.corpus.build import build_corpus\n"
        "build_corpus(['saved'], Path('out'), progress=False)"
    )
    done = run("-c", script, json.dumps(rows("saved")))
    assert done.returncode == 0, done.stderr
    assert texts(tmp_path / "out") == expected("saved")
    assert open_corpus(tmp_path / "out").card["in"] == 20


def test_what_is_a_dataset():
    assert is_dataset("hf://datasets/imdb") and is_dataset("hf://datasets/a/b@refs%2Fpr%2F1#c/train")
    assert not is_dataset("hf://datasets/a/b/c.parquet") and not is_dataset("hf://a/b") and not is_dataset("a/b")
