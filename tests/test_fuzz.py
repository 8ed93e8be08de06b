"""Damaged files of every kind end in a clear error, or are read within bounds; those with hashes never read otherwise.

Hypothesis damages one file of a folder at a time. `pytest -m slow tests/test_fuzz.py` tries forty times as many.
"""

import bz2
import gzip
import io
import json
import lzma
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_pdf import PdfPages

from tilth.corpus.build import build_corpus
from tilth.corpus.reader import open_corpus
from tilth.corpus.reading import Reading
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sources import find_sources, read_files
from tilth.errors import TilthError
from tilth.model.folder import load_model
from tilth.model.inputs import Inputs
from tilth.recipe import Recipe, load_recipe
from tilth.tokens.packing import Framing, Packing
from tilth.tokens.shards import open_shards, write_shards
from tilth.train.checkpoint import Checkpoint, load_latest, save_checkpoint

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**60, 2**63, 2**64, 10**400, -(2**63), 1.5, -0.5, 1e308, float("nan"), "",
    "../../x", "/etc/passwd", "a\0b", "nan", "x" * 1000, [], {}, [[]], [None], ["a", 1], {"a": {}},
]  # fmt: skip
MEMORY = 2 * 2**30
"""Bytes that reading a damaged file of a few kilobytes may take."""
TEXT = "".join(f'Some text {number} here, "quoted" and more.\n' for number in range(40)).encode()
RECORDS = "".join(json.dumps({"id": number, "text": f"text {number}"}) + "\n" for number in range(30)).encode()


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A few bits flipped, a part cut off, put in or written over, or another content altogether."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "replace"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "flip" and content:
        damaged = bytearray(content)
        for bit in draw(st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=8)):
            damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)
    if kind == "cut":
        return content[:place]
    noise = draw(st.binary(min_size=1, max_size=20))
    if kind == "insert":
        return content[:place] + noise + content[place:]
    return noise if kind == "replace" else content[:place] + noise + content[place + len(noise) :]


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> bytes:
    """One value anywhere in it made odd, left out, or put under another name."""
    value = json.loads(json.dumps(value))
    places = [place for place in _places(value) if place]
    if not places or draw(st.integers(0, 19)) == 0:
        return json.dumps(draw(st.sampled_from(ODD))).encode()
    *parents, last = draw(st.sampled_from(places))
    parent = value
    for name in parents:
        parent = parent[name]
    kind = draw(st.sampled_from(["odd", "odd", "odd", "leave out", "rename"]))
    if kind == "leave out":
        del parent[last]
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["../x", "a", "weight_map"]))] = parent.pop(last)
    else:
        parent[last] = draw(st.sampled_from(ODD))
    return json.dumps(value).encode()


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _places(inner, (*place, name))


@pytest.fixture(scope="module", params=[50, pytest.param(2000, marks=pytest.mark.slow)])
def examples(request: pytest.FixtureRequest) -> int:
    """How many kinds of damage a test tries."""
    return request.param


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Asking for more memory than such small files can need fails."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def damage(folder: Path, examples: int, look: Callable[[], Any], expected: Any = None) -> None:
    """Damage a file of the folder, look, and mend it, many times.

    expected: what every look that raises no error must give, when any damage must be noticed.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def once(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(files))
        content = before[path]
        structured = path.suffix == ".json" and data.draw(st.booleans())
        path.write_bytes(data.draw(damaged_json(json.loads(content)) if structured else damaged_bytes(content)))
        try:
            found = look()
        except TilthError as error:
            assert len(str(error)) > 10
        else:
            assert expected is None or found == expected
        finally:
            path.write_bytes(content)

    once()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("fuzz")
    with open(folder / "texts.jsonl", "w") as file:
        for number in range(24):
            text = f"Text {number}. Some words {number * 7 % 13} here, and more {number % 5}. " * (1 + number % 4)
            file.write(json.dumps({"text": text}) + "\n")
    return build_corpus(
        [str(folder / "texts.jsonl")], folder / "corpus", CorpusSettings(validation=0.2), progress=False
    )


def test_a_damaged_corpus(corpus, examples):
    def look() -> Any:
        opened = open_corpus(corpus.path)
        return opened.fingerprint, [
            (d.id, d.text) for split in ("train", "validation") for d in opened.documents(split)
        ]

    damage(corpus.path, examples, look, look())


def test_a_damaged_shard_folder(corpus, byte_tokenizer, tmp_path, examples):
    tokenizer = byte_tokenizer(["Text 1. Some words here, and more."])
    write_shards(corpus, tokenizer, tmp_path / "shards", progress=False)

    def look(verify: bool = True) -> Any:
        shards = open_shards(tmp_path / "shards", corpus.fingerprint, tokenizer.fingerprint, verify=verify)
        found = []
        for name in ("train", "validation"):
            split = shards.split(name)
            packing = Packing(split, 32, Framing(document_prefix=(0,), document_suffix=(0,), overlap=1))
            rows = packing.rows(np.arange(packing.num_rows))
            found.append((rows.dense(0)[0].tolist(), split.document_names([0]), split.sentence_starts(0, 10).tolist()))
        return found

    damage(tmp_path / "shards", examples, look, look())
    damage(tmp_path / "shards", examples, lambda: look(verify=False) and None)


@pytest.mark.parametrize(("family", "head"), [("bert", "masked"), ("gpt2", "causal"), ("gpt3", "causal")])
def test_a_damaged_model_folder(small_folder, family, head, examples):
    folder = small_folder(family, head)

    def look() -> Any:
        model, tokenizer = load_model(folder)
        assert tokenizer.encode("the cat")
        return model.encode(Inputs.of_rows(torch.zeros(1, 8, dtype=torch.int64))).shape[:2]

    damage(folder, examples, look)


def test_a_damaged_checkpoint(tmp_path, examples):
    for step in (1, 2):
        state = {"weights": {"a": torch.full((3, 2), float(step))}, "optimizer": {"a/m": torch.full((3,), float(step))}}
        save_checkpoint(tmp_path, step, Checkpoint(**state, state={"step": step}, identity={"recipe": {"seed": 0}}), 5)

    def look() -> bool:
        checkpoint, _ = load_latest(tmp_path)
        step = float(checkpoint.state["step"])
        return step in (1, 2) and bool(
            (checkpoint.weights["a"] == step).all() and (checkpoint.optimizer["a/m"] == step).all()
        )

    damage(tmp_path, examples, look, True)


def test_a_damaged_recipe(tmp_path, examples):
    path = tmp_path / "recipe.yaml"
    path.write_text(load_recipe("bert-mini").to_yaml())

    def look() -> bool:
        recipe = load_recipe(str(path))
        assert recipe.train.lr > 0 and recipe.data.length > 0
        (tmp_path / "again.yaml").write_text(recipe.to_yaml())
        same = load_recipe(str(tmp_path / "again.yaml")) == recipe
        (tmp_path / "again.yaml").unlink()
        return same

    damage(tmp_path, examples, look, True)


SETTINGS = st.sampled_from(
    ["train.lr", "train.budget", "seed", "model.layers", "data.length", "tokenizer.path", "train.prompts", "a.b.c", ""]
)
VALUES = st.sampled_from([str(value) for value in ODD]) | st.text(max_size=20) | st.sampled_from(
    ["[", "{", "&a *a", "!!python/object:os.system x", "- - -", "1e9999", "0x" + "f" * 50, "2020-13-45", "1:2:3"]
)  # fmt: skip


@settings(max_examples=200)
@given(SETTINGS, VALUES)
def test_odd_overrides(name, value):
    try:
        recipe = load_recipe("bert-mini", [f"{name}={value}"])
    except TilthError as error:
        assert len(str(error)) > 10
    else:
        assert isinstance(recipe, Recipe) and recipe.train.lr > 0 and recipe.data.length > 0


def archive(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as opened:
        for name, content in (("a.txt", TEXT), ("b/c.jsonl", RECORDS), ("../../x", TEXT)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return file.getvalue()


def table(kind: str) -> bytes:
    rows = pa.table({"id": [str(n) for n in range(50)], "text": [f"text {n}" for n in range(50)]})
    file = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(rows, file, compression="zstd")
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(file, rows.schema) as writer:
            writer.write_table(rows)
    return file.getvalue()


def book() -> bytes:
    file = io.BytesIO()
    package = (
        "<package><manifest><item id='a' href='a' media-type='text/html'/>"
        "<item id='b' href='b' media-type='text/html'/>"
        "</manifest><spine><itemref idref='a'/><itemref idref='b'/></spine></package>"
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        archive.writestr("META-INF/container.xml", "<container><rootfile full-path='p.opf'/></container>")
        archive.writestr("p.opf", package)
        archive.writestr("a", b"<html><body><p>" + TEXT[:500])
        archive.writestr("b", b"<html><body><p>" + TEXT[500:])
    return file.getvalue()


def pages() -> bytes:
    file = io.BytesIO()
    with PdfPages(file, metadata={"Title": "Some pages"}) as opened:
        for _ in range(3):
            figure = plt.figure(figsize=(3, 4))
            figure.text(0.1, 0.5, TEXT[:400].decode(), size=6)
            opened.savefig(figure)
            plt.close(figure)
    return file.getvalue()


FILES = {
    "a.txt": TEXT, "a.txt.gz": gzip.compress(TEXT), "a.txt.bz2": bz2.compress(TEXT), "a.txt.xz": lzma.compress(TEXT),
    "a.txt.zst": zstandard.compress(TEXT), "a.tar": archive("w"), "a.tgz": archive("w:gz"), "a.jsonl": RECORDS,
    "a.json": json.dumps([json.loads(line) for line in RECORDS.splitlines()]).encode(),
    "a.csv": b"id,text\n" + b"\n".join(b'%d,"some, text %d"' % (n, n) for n in range(20)),
    "a.html": b"<!doctype html><html><body><p>Hello, this is text.</p>" + b"<div>" * 50 + b"x</body></html>",
    "a.parquet": table("parquet"), "file.arrow": table("file"), "stream.arrow": table("stream"),
    "a.epub": book(), "a.pdf": pages(),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_source(tmp_path, name, examples):
    raw = tmp_path / "inside" / "raw"
    raw.mkdir(parents=True)
    (raw / name).write_bytes(FILES[name])

    def look() -> None:
        for source in find_sources([str(raw)], tmp_path / "out"):
            for item in read_files(source.files, source.installed, Reading()):
                text, reason = getattr(item, "text", None), getattr(item, "reason", None)
                assert reason or text.encode().decode() == text

    damage(raw, examples, look)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [f"inside/raw/{name}"]
