"""`tilth corpus build`: raw data -> clean, de-duplicated documents, split into train and validation.

    find_sources -> plan_tasks -> run the tasks -> assemble

Tasks (`file_task.py`) turn files into parts, in this process, in others, or on a cluster; what compares documents with
one another (`assemble.py`) follows when all parts are there.
"""

import contextlib
import functools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tilth.corpus.assemble import Part, assemble
from tilth.corpus.card import Tally, card_markdown, counts, reasons
from tilth.corpus.file_task import (
    ACCOUNT,
    REJECTED,
    SAMPLES,
    Account,
    FileTask,
    Runner,
    mark_of,
    plan_tasks,
    run_task,
)
from tilth.corpus.filters.contamination import read_evaluation_sets
from tilth.corpus.formats.text import PART
from tilth.corpus.libraries import versions_of
from tilth.corpus.likeness import learn_likeness
from tilth.corpus.mark import Mark, Unguarded
from tilth.corpus.mixture import check_mixture
from tilth.corpus.on_ray import run_on_ray
from tilth.corpus.output import FAILED, PLACES, check_out, check_replaces, explain, places_hash
from tilth.corpus.pool import run_in_processes
from tilth.corpus.reader import CARD, Corpus, is_corpus, open_corpus, seal
from tilth.corpus.rejections import allowed_rejections, told_of_rejections, too_many
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sources import Source, find_sources
from tilth.corpus.stages import functions_of
from tilth.errors import TilthError, UsageError
from tilth.files import locked, output_folder, whole_folder, write_json
from tilth.processors import usable_processors
from tilth.progress import announce, progress_bar

ALONE = 32_000_000
"""Bytes of all sources up to which this process does the work, as it is done before workers would have started.

Pages, PDF and the like go to workers all the same."""


@dataclass
class _Build:
    """What the finished tasks tell. tallies: one of each source. cut: parts of each large text, by its source's number
    and its name. See `Account` for the rest."""

    tallies: list[Tally]
    unsupported: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    samples: dict[str, list[list[str]]] = field(default_factory=dict)
    cut: Counter[tuple[int, str]] = field(default_factory=Counter)
    test_items: set[int] = field(default_factory=set)
    libraries: dict[str, str | None] = field(default_factory=dict)

    def add(self, source: int, account: Account) -> None:
        self.tallies[source].add(account.tally)
        self.unsupported.update(account.unsupported)
        self.missing += account.missing
        self.examples = account.examples | self.examples
        self.cut.update({(source, name): parts for name, parts in account.cut.items()})
        self.test_items.update(account.test_items)
        self.libraries |= account.libraries
        for reason, documents in account.samples.items():
            kept = self.samples.setdefault(reason, [])
            kept += documents[: SAMPLES - len(kept)]


def build_corpus(
    sources: Sequence[str],
    out: Path,
    settings: CorpusSettings | None = None,
    *,
    workers: int | None = None,
    on: str = "processes",
    overwrite: bool = True,
    progress: bool = True,
) -> Corpus:
    """Read `sources` into a corpus folder.

    sources: files, folders, globs, URLs (https, s3 and what else fsspec reads), lists of a crawl's files
    (`warc.paths.gz`, `warc.paths.gz#0-99`), datasets of the Hugging Face hub (see `tilth.corpus.remote.hub`), or the
    word `installed-docs`.
    workers: processes that read; unless told, one for each processor, and none for sources below 32 MB of what
    cannot hang its parser.
    on: `processes` of this machine, or a Ray cluster: `ray` starts one here, `ray://HOST:PORT` and `auto` find one. The
    corpus depends on neither.
    overwrite: False replaces a corpus in `out` only by a newer build from sources of the same names with the same
    settings.

    `out` appears only when it is complete; an earlier corpus there stays until then. Parts that workers finished are
    kept beside it when the build is interrupted, and the same build goes on from them. What was set aside is said on
    standard error. A build that fails for what it read leaves `failed.json` and `rejected/` in `out` (in `out/failed`
    when it holds a corpus).
    Raises: UsageError for wrong arguments and for a corpus that is not to be replaced, TilthError when there are no
    documents, too many broken ones, or no space.
    """
    settings = settings or CorpusSettings()
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}: at least one has to read")
    given, out = out, Path(os.path.abspath(out))
    check_out(out)
    found = find_sources(sources, out, settings.base_url, settings.manners)
    check_mixture(settings, [source.name for source in found])
    if not overwrite:
        check_replaces(given, [source.name for source in found], sources, settings)
    run = _runner(on, workers, sum(source.size for source in found))
    build = _Build([Tally(source.name, len(source.files)) for source in found])
    try:
        output_folder(out.parent)
        fetched = any(file.version is not None for source in found for file in source.files)
        with _parts_folder(out, kept=fetched or run is not _run_here) as parts:
            learned, facts = learn_likeness(settings, found, parts, run)
            functions_of(learned)  # so that wrong parameters, or an extra that is missing, stop nothing half-way
            known, told = _read_known(settings, parts, out, run, progress)
            tasks = plan_tasks(found, learned)
            _run(build, tasks, parts, out, run, progress)
            _check_counts(build, tasks, parts, out, settings.max_rejected)
            with whole_folder(out) as folder:
                _gather_rejected(tasks, parts, folder)
                finished = [Part(parts / task.id, task.source) for task in tasks]
                facts |= told | _facts(build, learned)
                card = assemble(finished, build.tallies, settings, folder, _notes(build, found), facts, known, progress)
                (folder / "card.md").write_text(card_markdown(card), encoding="utf-8")
                (folder / PLACES).write_text(places_hash(sources) + "\n", encoding="utf-8")
                write_json(folder / CARD, seal(card))
    except OSError as error:
        raise TilthError(explain(error, out)) from error
    for line in _told_of_cuts(build):
        announce(line)
    for line in told_of_rejections(card["rejected"], card["in"], build.missing, given / "rejected"):
        announce(line)
    return open_corpus(out)


_KEPT = ".kept"
"""In the folder of parts: they stay when the build fails."""


@contextlib.contextmanager
def _parts_folder(out: Path, kept: bool) -> Iterator[Path]:
    """The folder beside `out` where tasks are finished. kept: it stays for the next build when this one fails.

    Raises: UsageError when another build is using it.
    """
    folder = out.with_name(f".{out.name}.parts")
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", f"another build is writing {out}; wait for it"):
        try:
            yield folder
        except BaseException:
            if (kept or (folder / _KEPT).exists()) and any(folder.glob(f"[!.]*/{ACCOUNT}")):
                announce(f"Finished parts are kept in {folder}: the same build goes on from them.")
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _run(build: _Build, tasks: list[FileTask], parts: Path, out: Path, run: Runner, progress: bool) -> None:
    """Finish every task, and add up what they tell."""
    accounts = {task.id: Account.read(parts / task.id) for task in tasks if (parts / task.id / ACCOUNT).exists()}
    accounts = {name: each for name, each in accounts.items() if not _is_to_be_made_again(each)}
    for task in tasks:
        if task.id not in accounts:
            shutil.rmtree(parts / task.id, ignore_errors=True)
    left = [task for task in tasks if task.id not in accounts]
    left.sort(key=lambda task: -task.size.bit_length())  # no large one is begun last, when others have nothing to do
    read = sum(task.size for task in tasks if task.id in accounts)
    total = Tally("", 0)
    for account in accounts.values():
        total.add(account.tally)
    with progress_bar("Reading", sum(task.size for task in tasks), "bytes", progress) as update:

        def tick(running: int) -> None:
            known = {"kept": total.kept, "dropped": total.dropped, "rejected": total.rejected}
            update(read + running, **(known if total.records else {}))

        for task in run(left, parts, tick):
            account = accounts[task.id] = Account.read(parts / task.id)
            read += task.size
            total.add(account.tally)
            tick(0)
            if account.overflowed:
                break
    for task in tasks:
        if task.id in accounts:
            build.add(task.source, accounts[task.id])
    overflowed = next((task.name for task in tasks if task.id in accounts and accounts[task.id].overflowed), None)
    if overflowed:
        _fail(build, tasks, parts, out, f"most records of {overflowed} are broken, so the build stopped early")


def _is_to_be_made_again(account: Account) -> bool:
    """What a device or a server did not give it may give now, how much may be broken may have been changed, and so may
    the libraries that read it.
    """
    other = account.libraries != versions_of(account.libraries)
    return other or account.overflowed or account.tally.rejected["unreadable"] > 0


def _read_known(
    settings: CorpusSettings, parts: Path, out: Path, run: Runner, progress: bool
) -> tuple[list[Part], dict[str, Any]]:
    """Parts of the documents that are known already, and what the card says of their corpora.

    Raises: TilthError when one is no corpus, or is damaged.
    """
    if not settings.known:
        return [], {}
    corpora = [open_corpus(path) for path in settings.known]
    sources = find_sources(settings.known, out)
    tasks = plan_tasks(sources, CorpusSettings(near_duplicates=settings.near_duplicates), keys_only=True)
    build = _Build([Tally(source.name, len(source.files)) for source in sources])
    _run(build, tasks, parts, out, run, progress)
    if build.examples:
        raise TilthError(f"a known corpus is damaged: {next(iter(build.examples.values()))}; build it again")
    facts = [{"fingerprint": corpus.fingerprint, "documents": corpus.card["kept"]} for corpus in corpora]
    return [Part(parts / task.id, task.source) for task in tasks], {"known": facts}


def _runner(on: str, workers: int | None, size: int) -> Runner:
    """What runs tasks whose files are `size` bytes. Raises: UsageError."""
    if on != "processes":
        if on not in ("ray", "auto") and not on.startswith("ray://"):
            raise UsageError(f"a build runs on processes, ray, auto or ray://HOST:PORT, not on {on!r}")
        if workers is not None:
            raise UsageError("how many workers there are is for the Ray cluster to say; leave --workers out")
        return functools.partial(run_on_ray, address=on)
    if workers is None and size <= ALONE:
        return _run_here
    return functools.partial(run_in_processes, count=workers or usable_processors())


def _run_here(tasks: Sequence[FileTask], parts: Path, tick: Callable[[int], None]) -> Iterator[FileTask]:
    """Run the tasks in this process, up to the first that holds what may hang or crash its parser: workers go on."""
    for number, task in enumerate(tasks):
        try:
            with Mark(mark_of(parts / task.id), task.deadly, told=tick):
                run_task(task, parts / task.id, functions_of(task.settings))
        except Unguarded:
            (parts / _KEPT).touch()  # a page or a book may take minutes
            yield from run_in_processes(tasks[number:], parts, tick, usable_processors())
            return
        yield task


def _check_counts(build: _Build, tasks: list[FileTask], parts: Path, out: Path, max_rejected: float) -> None:
    found = counts(build.tallies)
    rejected = sum(found["rejected"].values())
    if not found["kept"]:
        names = ", ".join(tally.source for tally in build.tallies)
        files = sum(tally.files for tally in build.tallies)
        _fail(build, tasks, parts, out, f"no documents in {names} ({files:,} files, {found['in']:,} records)")
    if rejected > allowed_rejections(found["in"], max_rejected):
        _fail(build, tasks, parts, out, too_many(rejected, found["in"], max_rejected))


def _fail(build: _Build, tasks: list[FileTask], parts: Path, out: Path, problem: str) -> NoReturn:
    """Keep the counts and what was set aside, and stop."""
    found = counts(build.tallies)
    place = output_folder(out / "failed" if is_corpus(out) else out)
    shutil.rmtree(place / "rejected", ignore_errors=True)
    _gather_rejected(tasks, parts, place)
    write_json(place / FAILED, {"problem": problem, **found, "sources": [tally.to_json() for tally in build.tallies]})
    lines = [problem]
    lines += [
        f"  - rejected, {reason} ({count:,}): {build.examples[reason]}" for reason, count in found["rejected"].items()
    ]
    if found["dropped"]:
        lines.append(f"  - dropped: {reasons(found['dropped'])}")
    if build.unsupported:
        lines.append(f"  - formats that are not read: {reasons(build.unsupported)}")
    lines.append(f"Mend the sources or name others; the counts and the broken records are in {place}")
    raise TilthError("\n".join(lines))


def _gather_rejected(tasks: list[FileTask], parts: Path, folder: Path) -> None:
    """Write what the finished tasks set aside to `folder`/rejected, in their order."""
    gathered = folder / "rejected" / "part-00000.jsonl"
    gathered.parent.mkdir()
    with open(gathered, "wb") as file:
        for task in tasks:
            with contextlib.suppress(FileNotFoundError), open(parts / task.id / REJECTED, "rb") as rejected:
                shutil.copyfileobj(rejected, file)
    if not gathered.stat().st_size:
        gathered.unlink()


def _notes(build: _Build, sources: list[Source]) -> list[str]:
    notes = [f"{source.name}: {note}" for source in sources for note in source.notes]
    if build.unsupported:
        notes.append(f"files of formats that are not read: {reasons(build.unsupported)}")
    return notes + _told_of_cuts(build)


def _told_of_cuts(build: _Build) -> list[str]:
    """A sentence about texts that became many documents, if there are any."""
    if not build.cut:
        return []
    files = "1 large text was" if len(build.cut) == 1 else f"{len(build.cut):,} large texts were"
    return [
        f"{files} cut into {sum(build.cut.values()):,} documents of up to {PART // 1024} KB; parts of one text may be "
        "on both sides of the split"
    ]


def _facts(build: _Build, settings: CorpusSettings) -> dict[str, Any]:
    """What the filters tell of the corpus as a whole."""
    facts: dict[str, Any] = {"dropped_samples": dict(sorted(build.samples.items()))}
    facts["libraries"] = dict(sorted(build.libraries.items()))
    if (parameters := settings.filters.get("contamination")) is not None:
        named = {name: parameters[name] for name in ("paths", "ngram", "fields") if name in parameters}
        facts["contamination"] = read_evaluation_sets(**named).report(build.test_items)
    return facts
