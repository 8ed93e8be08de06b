"""What a build learns before it reads its sources: how the documents look that are to be kept (`filters.like`,
`filters.nearest`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tilth.corpus.filters.classifier import Scorer, fit_classifier
from tilth.corpus.filters.nearest import Neighbours, fit_neighbours
from tilth.corpus.reader import is_corpus
from tilth.corpus.reading import Reading
from tilth.corpus.records import Record, Rejected
from tilth.corpus.sample import read_some
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sources import Source, find_sources, read_files
from tilth.errors import UsageError
from tilth.key import Key

SAMPLED = 5000
"""Documents of the sources that the examples are told from; of corpora, which are quick to read, all that are read."""

SAMPLED_OF_A_FILE = 100


_LEARNED: dict[str, Callable[[Iterable[str], Iterable[str]], Scorer | Neighbours]] = {
    "like": fit_classifier,
    "nearest": fit_neighbours,
}
"""Filters that are learned: what learns each from examples and from a sample of the sources."""


def learn_likeness(
    settings: CorpusSettings, sources: Sequence[Source], folder: Path
) -> tuple[CorpusSettings, dict[str, Any]]:
    """The settings with a scorer, saved in `folder`, in place of `paths` and `text_column` of the filters that are
    learned; and what the card says of it.

    paths: files or folders with examples. text_column: the field that holds their text, where it has no usual name.
    Raises: UsageError.
    """
    facts = {}
    for name, fit in _LEARNED.items():
        if (given := settings.filters.get(name)) is None:
            continue
        paths = given.get("paths")
        if not isinstance(paths, list) or not paths:
            raise UsageError(
                f"filters.{name}: paths is a list of files or folders with texts to resemble, such as [good.jsonl]"
            )
        examples = read_examples(paths, given.get("text_column"), f"filters.{name}")
        scorer = fit(examples, sample_texts(sources, settings))
        saved = folder / f"{name}-{scorer.fingerprint}.npz"
        scorer.save(saved)
        parameters = {key: value for key, value in given.items() if key not in ("paths", "text_column")}
        learned = {**settings.filters, name: {**parameters, "scorer": str(saved)}}
        settings = settings.model_copy(update={"filters": learned})
        if isinstance(scorer, Scorer):
            facts["likeness"] = {"auc": round(scorer.auc, 4), "tested": list(scorer.tested)}
    return settings, facts


def read_examples(paths: Sequence[str], text_column: str | None, asked: str) -> Iterator[str]:
    """The texts of files or folders, of which every record has to be readable.

    asked: the option or setting that named them. Raises: UsageError.
    """
    reading = Reading(text_column or Reading.text_column)
    for source in find_sources(paths, None):
        for item in read_files(source.files, source.installed, reading):
            if isinstance(item, Rejected):
                raise UsageError(f"{asked}: {item.source}, {item.record}: {item.detail}")
            if isinstance(item, Record):
                yield item.text


def sample_texts(sources: Sequence[Source], settings: CorpusSettings) -> Iterator[str]:
    """Documents of corpora, from all over them; of other files, in a random order, the first documents of each."""
    files = [(source, file) for source in sources for file in source.files]
    folders = {file.path.parent.parent for _, file in files if isinstance(file.path, Path)}
    corpora = {folder for folder in folders if is_corpus(folder)}
    parts = [file.path for _, file in files if isinstance(file.path, Path) and file.path.parent.parent in corpora]
    yield from (row["text"] for row in read_some(parts))
    taken = 0
    for number in sorted(range(len(files)), key=lambda number: Key(0, number, "like files").digest()):
        source, file = files[number]
        if file.path in parts:
            continue
        items = read_files([file], source.installed, settings.reading, manners=settings.manners)
        texts = (item.text for item in items if isinstance(item, Record))
        for text, _ in zip(texts, range(SAMPLED_OF_A_FILE), strict=False):
            yield text
            taken += 1
        if taken >= SAMPLED:
            return
