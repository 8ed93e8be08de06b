"""What the README and the docs tell people to type is run, with smaller settings."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import typer

from tilth import cli

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [
    block
    for page in PAGES.values()
    for block in re.findall(r"(<!-- test -->\n)?```(bash|python)\n(.*?)```", page, re.DOTALL)
]
TESTED = [(language, block) for mark, language, block in BLOCKS if mark]

TINY = "train.batch_tokens=512 data.length=64 model.layers=1 model.width=64 model.heads=2 tokenizer.vocab_size=500"
SMALLER = {
    "train.budget='20 minutes'": f"train.budget='3 steps' {TINY}",
    '"train.budget=20 minutes"': ", ".join(f'"{setting}"' for setting in ["train.budget=3 steps", *TINY.split()]),
    "tilth compare classify": "tilth compare classify --labels 8 --seeds 2 min_steps=1 max_steps=2",
    "tilth finetune runs/bert/model": "tilth finetune runs/bert/model min_steps=1 max_steps=2",
    '"train.tsv", "topics")': '"train.tsv", "topics", overrides=["min_steps=1", "max_steps=2"])',
}


def smaller(block: str) -> str:
    for command, small in SMALLER.items():
        block = block.replace(command, small)
    return block


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.startswith("tilth ")]


@pytest.mark.parametrize("command", [command for _, _, block in BLOCKS for command in commands(block)], ids=" ".join)
def test_commands_name_verbs_and_options_that_are_there(command):
    verb, arguments = typer.main.get_command(cli.app), command[1:]
    while hasattr(verb, "commands"):
        verb, arguments = verb.commands[arguments[0]], arguments[1:]
    assert verb.make_context("tilth", arguments)


def test_every_replacement_is_used():
    text = "".join(block for _, block in TESTED)
    assert [command for command in SMALLER if command not in text] == []


def test_links_lead_to_files():
    for path, page in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page):
            assert (path.parent / target).exists(), target


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the README's reader has: a folder of text and labelled examples, made of Python's own help topics."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my-texts").mkdir()
    for name, text in sorted(topics.items()):
        (folder / "my-texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    examples = [
        f"{' '.join(paragraph.split())}\t{label}"
        for label in ("debugger", "formatstrings")
        for paragraph in dict.fromkeys(topics[label].split("\n\n"))
        if len(paragraph) > 40
    ]
    for name, rows in {"train.tsv": examples[::2], "test.tsv": examples[1::2]}.items():
        (folder / name).write_text("\n".join(["text\tlabel", *rows, ""]), encoding="utf-8")
    return folder


def test_the_readme_and_the_docs_work_from_top_to_bottom(folder):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, block in TESTED:
        arguments = ["bash", "-euc"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*arguments, smaller(block)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{smaller(block)}\n{done.stdout}\n{done.stderr}"
    for result in (
        "corpus/card.html",
        "nearest/card.json",
        "runs/bert/report.html",
        "runs/gpt2/summary.json",
        "comparison/report.html",
        "classifier/config.json",
    ):
        assert (folder / result).is_file(), result
