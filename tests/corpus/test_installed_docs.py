"""Docstrings are read without importing anything, in an order that does not depend on the workers."""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tilth.corpus import docstrings
from tilth.corpus.installed_docs import find_modules, installed_modules, read_docs
from tilth.corpus.records import Dropped, Record, Rejected

LONG = "This sentence is here to make the docstring as long as it must be to count as a document of its own. "


def read(root, workers):
    return list(read_docs(find_modules(root), lambda index: None, workers))


@pytest.fixture
def packages(tmp_path):
    files = {
        "farm/__init__.py": f'"""Fields and their crops.\n\n{LONG}\n"""\nraise RuntimeError("imported")\n',
        "farm/soil.py": f'''
            class Soil:
                """Soil.

                    {LONG}
                """

                def till(self):
                    """short"""

                @property
                def depth(self):
                    """The depth. {LONG}"""

                @depth.setter
                def depth(self, value):
                    """Set the depth. {LONG}"""

                async def rain(self):
                    def inner():
                        """Inner. {LONG}"""

            if True:
                def late():
                    """Late. {LONG}"""
            ''',
        "farm/broken.py": "def oops(:\n",
        "farm/tests/test_soil.py": f'"""A test. {LONG}"""\n',
        "farm/not-a-module.py": f'"""Not importable. {LONG}"""\n',
        "farm-1.0.dist-info/setup.py": f'"""Not importable. {LONG}"""\n',
        "alone.py": f'"""A module alone. {LONG}"""\n',
        "pydoc_data/topics.py": f"topics = {{'while': 'The loop. {LONG}', 'if': 'The test. {LONG}', 'del': 'No.'}}\n",
    }
    for name, content in files.items():
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    return tmp_path / "packages"


def test_what_is_found(packages):
    items = read(packages, 2)
    records = {item.id: item for item in items if isinstance(item, Record)}
    assert list(records) == [
        "alone:__doc__",
        "farm:__doc__",
        "farm.soil:Soil",
        "farm.soil:Soil.depth",
        "farm.soil:Soil.depth#2",
        "farm.soil:Soil.rain.<locals>.inner",
        "farm.soil:late",
        "pydoc_data.topics:if",
        "pydoc_data.topics:while",
    ]
    assert records["farm.soil:Soil"].text == f"Soil.\n\n{LONG.strip()}"
    assert records["farm.soil:Soil"].metadata == {"library": "farm", "module": "farm.soil", "name": "Soil"}
    assert sum(item.count for item in items if isinstance(item, Dropped) and item.reason == "too_short") == 2
    (rejected,) = [item for item in items if isinstance(item, Rejected)]
    assert (rejected.record, rejected.reason) == ("farm.broken", "unreadable_module")


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_order_does_not_depend_on_the_workers(packages, workers):
    assert read(packages, workers) == read(packages, 2)


def test_a_worker_that_dies_costs_one_file(packages, monkeypatch, tmp_path):
    deadly = tmp_path / "worker.py"
    source = Path(docstrings.__file__).read_text()
    deadly.write_text(
        source.replace(
            "answer = read_docstrings", "path.endswith('soil.py') and exit(9)\n                answer = read_docstrings"
        )
    )
    monkeypatch.setattr(docstrings, "__file__", str(deadly))
    items = read(packages, 2)
    assert {item.record for item in items if isinstance(item, Rejected)} == {"farm.broken", "farm.soil"}
    assert [item.id for item in items if isinstance(item, Record)] == [
        "alone:__doc__",
        "farm:__doc__",
        "pydoc_data.topics:if",
        "pydoc_data.topics:while",
    ]


def test_a_real_package_is_read_and_not_imported(tmp_path):
    root = Path(importlib.util.find_spec("pydantic").origin).parent  # type: ignore[union-attr, arg-type]
    script = (
        "import json, sys; from pathlib import Path; from tilth.corpus.installed_docs import find_modules, read_docs\n"
        "from tilth.corpus.records import Record\n"
        "items = list(read_docs(find_modules(Path(sys.argv[1])), lambda index: None))\n"
        "texts = {item.id: item.text for item in items if isinstance(item, Record)}\n"
        "print(json.dumps([texts['main:BaseModel'], len(texts), 'pydantic' in sys.modules, 'main' in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True)
    text, count, imported, imported_main = json.loads(run.stdout)
    assert "base class for creating Pydantic models" in text
    assert count > 200
    assert not imported and not imported_main


def test_the_interpreters_own_folders():
    modules = {module for module, _ in installed_modules()}
    assert {"json", "json.decoder", "pydoc_data.topics", "pytest", "pyarrow.parquet"} <= modules
    assert not any(part in ("test", "tests", "site-packages") for module in modules for part in module.split(".")[:-1])


def test_it_is_a_source(packages, build, documents, monkeypatch):
    monkeypatch.setattr("tilth.corpus.installed_docs.python_roots", lambda: [packages])
    corpus = build("installed-docs", validation=0.2)
    assert corpus.card["dropped"] == {"too_short": 2}
    assert corpus.card["rejected"] == {"unreadable_module": 1}
    assert documents(corpus)["farm.soil:late"].metadata["library"] == "farm"
    assert corpus.card["in"] == 12
