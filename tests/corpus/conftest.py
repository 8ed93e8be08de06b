"""Small corpora, built from what a test writes, and a web server."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], object]], str]]:
    """serve(answer) starts a web server of which `answer(handler)` answers every request; gives its URL."""
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler], object]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *rest: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
