"""What a build learns before it reads its sources: how the documents look that are to be kept (`filters.like`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilth.corpus.filters.classifier import fit_classifier
from tilth.corpus.reading import Reading
from tilth.corpus.records import Record, Rejected
from tilth.corpus.remote.manners import Manners
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sources import Source, find_sources, read_files
from tilth.errors import UsageError
from tilth.key import Key

SAMPLED = 5000
"""Documents of the sources that the examples are told from."""

SAMPLED_OF_A_FILE = 100


def learn_likeness(
    settings: CorpusSettings, sources: Sequence[Source], folder: Path
) -> tuple[CorpusSettings, dict[str, Any]]:
    """The settings with a scorer, saved in `folder`, in place of `filters.like.paths`; and what the card says of it.

    Without the filter `like`, the settings as they are. Raises: UsageError.
    """
    like = settings.filters.get("like")
    if like is None:
        return settings, {}
    paths = like.get("paths")
    if not isinstance(paths, list) or not paths:
        raise UsageError(
            "filters.like: paths is a list of files or folders with texts to resemble, such as [good.jsonl]"
        )
    good = find_sources(paths, folder, settings.base_url, settings.manners)
    examples = (text for source in good for text in _examples(source, settings.manners))
    scorer = fit_classifier(examples, _sample(sources, settings))
    saved = folder / f"like-{scorer.fingerprint}.npz"
    scorer.save(saved)
    parameters = {name: value for name, value in like.items() if name != "paths"} | {"scorer": str(saved)}
    learned = settings.model_copy(update={"filters": {**settings.filters, "like": parameters}})
    return learned, {"likeness": {"auc": round(scorer.auc, 4), "tested": list(scorer.tested)}}


def _examples(source: Source, manners: Manners) -> Iterator[str]:
    """The texts of a source of examples, of which every one has to be readable."""
    for item in read_files(source.files, source.installed, Reading(), manners=manners):
        if isinstance(item, Rejected):
            raise UsageError(f"filters.like: {item.source}, {item.record}: {item.detail}")
        if isinstance(item, Record):
            yield item.text


def _texts(source: Source, settings: CorpusSettings) -> Iterator[str]:
    items = read_files(source.files, source.installed, settings.reading, manners=settings.manners)
    return (item.text for item in items if isinstance(item, Record))


def _sample(sources: Sequence[Source], settings: CorpusSettings) -> Iterator[str]:
    """The first documents of files in a random order."""
    files = [(source, file) for source in sources for file in source.files]
    order = sorted(range(len(files)), key=lambda number: Key(0, number, "like files").digest())
    taken = 0
    for number in order:
        source, file = files[number]
        one = Source(source.name, [file], installed=source.installed)
        for text, _ in zip(_texts(one, settings), range(SAMPLED_OF_A_FILE), strict=False):
            yield text
            taken += 1
        if taken >= SAMPLED:
            return
