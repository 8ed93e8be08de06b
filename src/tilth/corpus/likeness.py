"""What a build learns before it reads its sources: how the documents look that are to be kept (`filters.like`,
`filters.nearest`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilth.corpus.clean import clean_text
from tilth.corpus.file_task import TEXTS, Runner, plan_tasks, read_batches
from tilth.corpus.filters.classifier import Scorer, fit_classifier
from tilth.corpus.filters.nearest import Neighbours, fit_neighbours
from tilth.corpus.reader import is_corpus
from tilth.corpus.reading import Reading
from tilth.corpus.records import Record, Rejected
from tilth.corpus.rejections import allowed_rejections, missing_after
from tilth.corpus.sample import read_some
from tilth.corpus.settings import CorpusSettings, Repeated
from tilth.corpus.sources import Source, find_sources, read_files
from tilth.errors import UsageError
from tilth.key import Key
from tilth.progress import announce

SAMPLED = 5000
"""Documents of the sources that the examples are told from; of corpora, which are quick to read, all that are read."""

SAMPLED_OF_A_FILE = 100


_LEARNED: dict[str, Callable[[Iterable[str], Iterable[str]], Scorer | Neighbours]] = {
    "like": fit_classifier,
    "nearest": fit_neighbours,
}
"""Filters that are learned: what learns each from examples and from a sample of the sources."""


def learn_likeness(
    settings: CorpusSettings, sources: Sequence[Source], folder: Path, run: Runner
) -> tuple[CorpusSettings, dict[str, Any]]:
    """The settings with a scorer, saved in `folder`, in place of `paths` and `text_column` of the filters that are
    learned; and what the card says of it.

    paths: files or folders with examples. text_column: the field that holds their text, where it has no usual name.
    run: reads the sample of the sources.
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
        scorer = fit(examples, sample_texts(sources, settings, folder, run))
        saved = folder / f"{name}-{scorer.fingerprint}.npz"
        scorer.save(saved)
        parameters = {key: value for key, value in given.items() if key not in ("paths", "text_column")}
        learned = {**settings.filters, name: {**parameters, "scorer": str(saved)}}
        settings = settings.model_copy(update={"filters": learned})
        if isinstance(scorer, Scorer):
            facts["likeness"] = {"auc": round(scorer.auc, 4), "tested": list(scorer.tested)}
    return settings, facts


def read_examples(paths: Sequence[str], text_column: str | None, asked: str) -> Iterator[str]:
    """The texts of files or folders; broken records are left out, and standard error says so.

    asked: the option or setting that named them.
    Raises: UsageError for a file that cannot be read, and for more broken records than a build allows by default.
    """
    reading = Reading(text_column or Reading.text_column)
    broken: list[str] = []
    count = 0
    for source in find_sources(paths, None):
        for item in read_files(source.files, source.installed, reading):
            if isinstance(item, Rejected):
                broken.append(f"{asked}: {item.source}, {item.record}: {item.detail}")
                if missing_after(item):
                    raise UsageError(broken[-1])
            if isinstance(item, Record):
                count += 1
                yield clean_text(item.text)
    count += len(broken)
    if len(broken) > allowed_rejections(count, CorpusSettings().max_rejected):
        raise UsageError(f"{broken[0]}; {len(broken)} of {count} records are broken")
    if broken:
        announce(f"{broken[0]}; {len(broken)} of {count} records were left out")


def sample_texts(sources: Sequence[Source], settings: CorpusSettings, folder: Path, run: Runner) -> Iterator[str]:
    """Documents of corpora, from all over them; of other files, in a random order, the first documents of each.

    Files are read as the build itself reads them, by tasks of their own with parts in `folder`, so that a record that
    crashes its parser costs no more than itself.
    """
    files = [(number, file) for number, source in enumerate(sources) for file in source.files]
    folders = {file.path.parent.parent for _, file in files if isinstance(file.path, Path)}
    corpora = {folder for folder in folders if is_corpus(folder)}
    parts = [file.path for _, file in files if isinstance(file.path, Path) and file.path.parent.parent in corpora]
    yield from (row["text"] for row in read_some(parts))
    order = [files[each] for each in sorted(range(len(files)), key=lambda each: Key(0, each, "like files").digest())]
    order = [(number, file) for number, file in order if file.path not in parts]
    unfiltered = settings.model_copy(update={"filters": {}, "repeated": Repeated(), "near_duplicates": "keep"})
    taken, most = 0, SAMPLED // SAMPLED_OF_A_FILE
    while order and taken < SAMPLED:
        chosen = [
            replace(source, files=[file for of, file in order[:most] if of == number])
            for number, source in enumerate(sources)
        ]
        tasks = plan_tasks(chosen, unfiltered, first=SAMPLED_OF_A_FILE)
        for _ in run([task for task in tasks if not (folder / task.id).exists()], folder, lambda read: None):
            pass
        for task in tasks:
            for batch in read_batches(folder / task.id / TEXTS):
                taken += batch.num_rows
                yield from batch["text"].to_pylist()
        order, most = order[most:], 2 * most  # where files hold a document each, few are too few
