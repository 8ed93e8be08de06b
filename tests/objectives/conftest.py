"""A small real corpus as shards, with a WordPiece and a byte-level tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from tilth.corpus.build import build_corpus
from tilth.corpus.reader import Corpus
from tilth.corpus.settings import CorpusSettings
from tilth.objectives import Objective, build_objective
from tilth.recipe import load_recipe
from tilth.tokens.packing import Packing
from tilth.tokens.shards import write_shards
from tilth.tokens.tokenizer import TextTokenizer, train_tokenizer

Made = tuple[Objective, Packing, TextTokenizer]


def make_corpus(folder: Path, texts: list[str]) -> Corpus:
    source = folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return build_corpus([str(source)], folder / "corpus", CorpusSettings(validation=0.1), progress=False)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """A function: (objective, packing, tokenizer) of a recipe on the help topics of Python, or on given texts."""
    help_texts = tuple(topics[name][:400] for name in sorted(topics)[:60])
    shards = {}

    def make(name: str, *overrides: str, texts: tuple[str, ...] = help_texts, split: str = "train") -> Made:
        recipe = load_recipe(name, ["tokenizer.vocab_size=400", "data.length=48", *overrides])
        made = (recipe.tokenizer.model_dump_json(), texts)
        if made not in shards:
            folder = tmp_path_factory.mktemp("shards")
            corpus = make_corpus(folder, list(texts))
            tokenizer = train_tokenizer(recipe.tokenizer, corpus, 0, progress=False)
            shards[made] = tokenizer, write_shards(corpus, tokenizer, folder / "shards", progress=False)
        tokenizer, written = shards[made]
        objective = build_objective(recipe, tokenizer)
        return objective, Packing(written.split(split), objective.row_length, objective.framing), tokenizer

    return make
