"""Batches, what a filter makes of them, and texts to filter."""

import io
import json
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import zstandard

from tilth.corpus.filters import BatchFunction


class Filtered(NamedTuple):
    """Columns of a filtered batch; `dropped` is all None where the filter has no such column."""

    texts: list[str]
    dropped: list[str | None]
    metadata: list[dict[str, Any]]
    batch: pa.RecordBatch


def make_batch(texts: list[str]) -> pa.RecordBatch:
    count = len(texts)
    columns = [[f"d{index}" for index in range(count)], texts, ["s"] * count, ['{"kept": "é"}'] * count]
    names = ["id", "text", "source", "metadata"]
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], names)


@pytest.fixture
def run() -> Callable[..., Filtered]:
    """run(stage, *texts) filters one batch of these texts, and checks that nothing else changed."""

    def filtered(stage: BatchFunction, *texts: str) -> Filtered:
        before = make_batch(list(texts))
        after = stage(before)
        assert after.num_rows == before.num_rows
        assert after["id"].equals(before["id"]) and after["source"].equals(before["source"])
        metadata = [json.loads(facts) for facts in after["metadata"].to_pylist()]
        assert all(facts.pop("kept") == "é" for facts in metadata)
        dropped = after["drop"].to_pylist() if "drop" in after.schema.names else [None] * len(texts)
        return Filtered(after["text"].to_pylist(), dropped, metadata, after)

    return filtered


@pytest.fixture
def seconds() -> Callable[..., float]:
    """seconds(function, *arguments): the processor time of one call."""

    def measured(function: Callable, *arguments: Any) -> float:
        started = time.process_time()
        function(*arguments)
        return time.process_time() - started

    return measured


ODD = {
    "empty": "",
    "blanks": " \n\t\n \u00a0\n",
    "one letter": "a",
    "signs": "?!.,;:-_#*({[<>]})'\"/\\|@&%$€§~^" * 50,
    "no spaces": "abcdefghij" * 5_000,
    "one long line": "the words of and to be that have with it " * 20_000,
    "newlines": "\n" * 20_000,
    "arabic": "كان يا ما كان في قديم الزمان رجل يعيش في قرية صغيرة. " * 40,
    "hebrew and latin": "שלום world, זה טקסט mixed 123. " * 40,
    "hindi": "यह हिन्दी में एक वाक्य है। " * 40,
    "thai": "ภาษาไทยไม่มีช่องว่างระหว่างคำ" * 40,
    "chinese": "这是一个没有空格的句子。" * 100,
    "emoji": "👩‍👩‍👧 🏳️‍🌈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 " * 50,
    "controls": "\x01\x02\x7f\x85\u200b\u2028\ufeff text \x1b[0m" * 30,
}


@pytest.fixture(params=ODD)
def odd_text(request) -> str:
    """Inputs at the edges, for every filter."""
    return ODD[request.param]


FARM = ["soil", "field", "plough", "harvest", "barley", "wheat", "rain", "seed"]
SEA = ["ship", "sail", "harbour", "anchor", "tide", "captain", "storm", "deck"]
SHARED_WORDS = [f"w{number}" for number in range(60)]


def _words_of(topic: list[str], seed: int, size: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(topic if draw.random() < 0.2 else SHARED_WORDS) for _ in range(size))


@pytest.fixture(scope="session")
def farm_text() -> Callable[..., str]:
    """farm_text(seed, size=80): so many words, a fifth of them of farming."""
    return lambda seed, size=80: _words_of(FARM, seed, size)


@pytest.fixture(scope="session")
def sea_text() -> Callable[..., str]:
    """sea_text(seed, size=80): so many words, a fifth of them of the sea."""
    return lambda seed, size=80: _words_of(SEA, seed, size)


@pytest.fixture(scope="session")
def farm(farm_text) -> list[str]:
    """100 texts with words of farming."""
    return [farm_text(number) for number in range(100)]


@pytest.fixture(scope="session")
def novels(shared_data: Path) -> list[str]:
    """73 English novels, clean prose."""
    packed = (shared_data / "text" / "english_novels" / "corpus.tar.zst").read_bytes()
    content = zstandard.ZstdDecompressor().stream_reader(packed).read()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith(".txt")]
        return [file.read().decode("utf-8-sig").replace("\r\n", "\n") for file in files if file]


@pytest.fixture(scope="session")
def abstracts(shared_data: Path) -> list[str]:
    """18,594 abstracts of papers, one in forty in French."""
    packed = (shared_data / "text" / "acl_abstracts" / "abstracts_2016plus.jsonl.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().stream_reader(packed).read().decode().splitlines()
    return [json.loads(line)["abstract"] for line in lines]


@pytest.fixture(scope="session")
def sentences_of_papers(shared_data: Path) -> list[str]:
    """1,688 sentences of papers on language that cite others."""
    lines = (shared_data / "classify" / "citation_intent" / "train.txt").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="session")
def articles(shared_data: Path) -> list[str]:
    """The text of 181 web articles, cut out by hand; one in ten is not in English."""
    found = json.loads((shared_data / "web" / "ground_truth" / "scrapinghub-ground-truth.json").read_text("utf-8"))
    return [found[name]["articleBody"] for name in sorted(found)]


@pytest.fixture(scope="session")
def web_pages(shared_data: Path) -> list[str]:
    """456 whole web pages as text, with their menus and imprints; six in ten are German."""
    fastwarc = pytest.importorskip("fastwarc.warc", reason="needs fastwarc")
    html = pytest.importorskip("resiliparse.extract.html2text", reason="needs the extra html")
    texts = []
    for path in sorted((shared_data / "web" / "pages").glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in fastwarc.ArchiveIterator(file, record_types=fastwarc.WarcRecordType.response):
                page = record.reader.read()[:2_000_000].decode("utf-8", "replace")
                texts.append(html.extract_plain_text(page, main_content=False, alt_texts=False))
    return texts
