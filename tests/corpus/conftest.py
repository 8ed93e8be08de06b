"""Small corpora, built from what a test writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tilth.corpus.build import build_corpus
from tilth.corpus.reader import Corpus, Document
from tilth.corpus.settings import CorpusSettings
from tilth.settings import load_settings


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Corpus]:
    """build(*sources, **settings) builds into tmp_path/out."""

    def run(*sources: str | Path, workers: int | None = None, overwrite: bool = True, **settings) -> Corpus:
        return build_corpus(
            [str(source) for source in sources],
            tmp_path / "out",
            load_settings(CorpusSettings, values=settings),
            workers=workers,
            overwrite=overwrite,
            progress=False,
        )

    return run


@pytest.fixture
def documents() -> Callable[[Corpus], dict[str, Document]]:
    """documents(corpus) gives all documents of both splits by id."""

    def by_id(corpus: Corpus) -> dict[str, Document]:
        found = [document for split in ("train", "validation") for document in corpus.documents(split)]
        assert len({document.id for document in found}) == len(found)
        return {document.id: document for document in found}

    return by_id


@pytest.fixture
def set_aside() -> Callable[[Path], list[dict]]:
    """set_aside(folder) gives the records in folder/rejected."""

    def read(folder: Path) -> list[dict]:
        return [
            json.loads(line)
            for path in sorted((folder / "rejected").glob("*.jsonl"))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]

    return read
