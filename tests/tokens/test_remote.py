"""Shards at URLs: memory:// and a folder as file://, of fsspec itself, and an object store that speaks S3."""

import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tilth.errors import TilthError
from tilth.recipe import TokenizerSettings
from tilth.tokens.packing import Framing, Packing
from tilth.tokens.shards import open_shards, write_shards
from tilth.tokens.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def source(stories, tmp_path_factory) -> Path:
    """A folder of shards whose training split is in many files."""
    tokenizer = train_tokenizer(TokenizerSettings(vocab_size=200), stories, 0, progress=False)
    return write_shards(
        stories, tokenizer, tmp_path_factory.mktemp("source") / "shards", progress=False, shard_tokens=97
    ).path


@pytest.fixture
def in_memory(source):
    """The same shards at a memory:// URL."""
    files = fsspec.filesystem("memory")
    files.put(str(source), "/bucket/shards", recursive=True)
    yield "memory://bucket/shards"
    files.rm("/bucket", recursive=True)


def test_shards_at_a_url_are_those_of_the_folder(source, in_memory, tmp_path):
    for number, url in enumerate((in_memory, f"file://{source}/")):
        for name in ("train", "validation"):
            here = open_shards(source).split(name)
            there = open_shards(url, cache=tmp_path / str(number)).split(name)
            everything = np.array([0]), np.array([here.num_tokens])
            assert there.tokens(*everything).tolist() == here.tokens(*everything).tolist()
            assert there.document_starts.tolist() == here.document_starts.tolist()
            assert there.document_names([0]) == here.document_names([0])
            assert there.sentence_starts(0, 50).tolist() == here.sentence_starts(0, 50).tolist()


def test_only_what_rows_need_is_downloaded_and_only_once(source, in_memory, tmp_path):
    shards = open_shards(in_memory, cache=tmp_path)
    folder = shards.path
    assert folder.parent == tmp_path and downloaded(folder) == ["manifest.json"]
    packing = Packing(shards.split("train"), 24, Framing())
    assert downloaded(folder) == ["manifest.json", "train.offsets"]
    rows = packing.rows(np.array([0, 3]))
    pieces = zip(rows.starts, rows.real_lengths, strict=True)
    needed = {place // 97 for start, length in pieces for place in (start, start + length - 1)}
    assert downloaded(folder) == sorted(
        ["manifest.json", "train.offsets", *(f"train-{number:05}.ids" for number in needed)]
    )
    assert len(needed) < len(list(source.glob("train-*.ids")))
    fsspec.filesystem("memory").rm("/bucket/shards/train.offsets")
    again = Packing(open_shards(in_memory, cache=tmp_path).split("train"), 24, Framing())
    assert again.rows(np.array([0, 3])).tokens.tolist() == rows.tokens.tolist()


def downloaded(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_another_manifest_is_another_folder(source, in_memory, tmp_path):
    first = open_shards(in_memory, cache=tmp_path).path
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/shards/manifest.json", (source / "manifest.json").read_bytes() + b"\n")
    assert open_shards(in_memory, cache=tmp_path).path != first


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_download_is_an_error_and_is_not_kept(damage, in_memory, tmp_path):
    files = fsspec.filesystem("memory")
    content = bytearray(files.cat_file("/bucket/shards/train-00001.ids"))
    content[7] ^= 1
    files.pipe_file("/bucket/shards/train-00001.ids", bytes(content if damage == "flip" else content[:-2]))
    split = open_shards(in_memory, cache=tmp_path).split("train")
    with pytest.raises(TilthError, match=r"train-00001\.ids does not match its size and SHA-256"):
        split.tokens(np.array([0]), np.array([split.num_tokens]))
    (folder,) = tmp_path.iterdir()
    assert "train-00001.ids" not in downloaded(folder) and not list(folder.glob(".*partial"))


def test_an_interrupted_download_is_done_again(in_memory, tmp_path):
    split = open_shards(in_memory, cache=tmp_path).split("train")
    (folder,) = tmp_path.iterdir()
    (folder / "train-00000.ids").write_bytes(b"half")
    assert len(split.tokens(np.array([0]), np.array([97]))) == 97


def test_what_is_not_there_is_named(in_memory, tmp_path):
    with pytest.raises(TilthError, match=r"cannot read memory://nowhere/manifest\.json: FileNotFoundError"):
        open_shards("memory://nowhere", cache=tmp_path)
    with pytest.raises(TilthError, match=r"cannot read nothing://here/manifest\.json: .*nothing"):
        open_shards("nothing://here", cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError, match=r"cannot keep .*Not a directory.*data\.cache"):
        open_shards(in_memory, cache=tmp_path / "file")


def test_a_manifest_cannot_name_files_elsewhere(in_memory, tmp_path):
    files = fsspec.filesystem("memory")
    manifest = files.cat_file("/bucket/shards/manifest.json").replace(b"train.names", b"../train.names")
    files.pipe_file("/bucket/shards/manifest.json", manifest)
    with pytest.raises(TilthError, match=r"names a file outside its folder: '\.\./train\.names'"):
        open_shards(in_memory, cache=tmp_path)


SUM = """
import sys
from pathlib import Path
import numpy as np
from tilth.tokens.shards import open_shards
split = open_shards(sys.argv[1], cache=Path(sys.argv[2])).split("train")
print(int(split.tokens(np.array([0]), np.array([split.num_tokens])).sum()))
"""


def test_processes_share_a_cache(source, tmp_path):
    """Three at once, each of which needs every file."""
    command = [sys.executable, "-c", SUM, f"file://{source}", str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = [int(process.communicate(timeout=120)[0]) for process in processes]
    split = open_shards(source).split("train")
    assert sums == [int(split.tokens(np.array([0]), np.array([split.num_tokens])).sum())] * 3
    assert not list(tmp_path.glob("*/.*partial"))


@pytest.fixture
def object_store(source, bucket_server):
    """The same shards in a bucket; gives their URL and the server."""
    server, files = bucket_server
    files.put(str(source), "bucket/shards", recursive=True)
    return "s3://bucket/shards", server


def test_shards_in_an_object_store(source, object_store, tmp_path):
    url, server = object_store
    here, there = (open_shards(place, cache=tmp_path / "cache").split("train") for place in (source, url))
    packings = [Packing(split, 24, Framing()) for split in (here, there)]
    some = np.array([0, 3])
    assert packings[1].rows(some).tokens.tolist() == packings[0].rows(some).tokens.tolist()
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("*.ids"))) < len(list(source.glob("train-*.ids")))
    every = np.arange(packings[0].num_rows)
    server.stop()
    with pytest.raises(TilthError, match=r"cannot read s3://bucket/shards/train-\d+\.ids"):
        packings[1].rows(every)
    # What was downloaded is still read.
    assert packings[1].rows(some).tokens.tolist() == packings[0].rows(some).tokens.tolist()
