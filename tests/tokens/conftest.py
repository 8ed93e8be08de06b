"""A small real corpus: Parquet files and a card in a temporary folder."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from tilth.corpus.reader import FORMAT, FORMAT_VERSION, Corpus, open_corpus, seal
from tilth.files import fingerprint, sha256_file
from tilth.tokens import chunk_memory

MakeCorpus = Callable[..., Corpus]

STORY = """The miller kept three geese. "They never lay," he said. His wife laughed!

In winter the pond froze, and the geese walked to the kitchen door. Would they stay? e.g. until spring. They did."""


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory) -> MakeCorpus:
    """make_corpus(train, validation): a corpus of the given texts, in this order."""

    def make(train: list[str], validation: list[str] = ["Held out."]) -> Corpus:  # noqa: B006
        folder: Path = tmp_path_factory.mktemp("corpus")
        for split, texts in (("train", train), ("validation", validation)):
            (folder / split).mkdir()
            rows = {
                "id": [f"{split}-{number}" for number in range(len(texts))],
                "text": texts,
                "source": ["test"] * len(texts),
                "group": [f"{split}-{number}" for number in range(len(texts))],
                "metadata": ["{}"] * len(texts),
            }
            schema = pa.schema([(name, pa.string()) for name in rows])
            pq.write_table(pa.table(rows, schema=schema), folder / split / "part-00000.parquet")
        parts = sorted(folder.glob("*/*.parquet"))
        card = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kept": len(train) + len(validation),
            "fingerprint": fingerprint([train, validation]),
            "sources": [{"source": "test"}],
            "files": [
                {"path": str(part.relative_to(folder)), "size": part.stat().st_size, "sha256": sha256_file(part)}
                for part in parts
            ],
        }
        (folder / "card.json").write_text(json.dumps(seal(card)))
        return open_corpus(folder)

    return make


@pytest.fixture(scope="session")
def stories(make_corpus: MakeCorpus) -> Corpus:
    """Two hundred short documents of different words, some accented, and one in Japanese."""
    people = ("miller", "sailor", "teacher", "naïve clerk", "baker", "doctor")
    places = ("harbour", "café", "meadow", "library", "station", "kitchen", "old mill")
    deeds = ("waited for", "wrote to", "walked past", "dreamt of", "painted", "mended", "sold")
    lines = [
        f"The {person} {deed} the {place}. Number {number} was enough, she said; nobody else came."
        for number, (person, deed, place) in enumerate(itertools.product(people, deeds, places))
    ]
    return make_corpus([STORY, "日本の朝。静かな海。", *lines[:200]], lines[200:220])


@pytest.fixture(scope="session")
def assert_the_same() -> Callable[[Any, Tokenizer, list[str]], None]:
    """A function: a tokenizer's fast form gives each text the ids and ends that `tokenizers` gives it, although most of
    it is new."""

    def check(fast: Any, slow: Tokenizer, texts: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunk_memory, "_MOST_NEW", 1)
            patch.setattr(chunk_memory, "_FEW_CHARACTERS", 1)
            compare(fast, slow, texts)

    def compare(fast: Any, slow: Tokenizer, texts: list[str]) -> None:
        encodings = [slow.encode(text, add_special_tokens=False) for text in texts]
        assert [ids.tolist() for ids in fast.encode(texts)] == [encoding.ids for encoding in encodings]
        for (ids, ends), encoding in zip(fast.encode_with_ends(texts), encodings, strict=True):
            assert ids.dtype == ends.dtype == np.int64
            assert ids.tolist() == encoding.ids
            assert ends.tolist() == [end for _, end in encoding.offsets]

    return check
