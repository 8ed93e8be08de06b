"""`tilth corpus build`: raw data -> clean, de-duplicated documents, split into train and validation.

    find_sources -> read_source -> to_batches -> STAGES -> spool -> groups -> split -> Parquet -> leak check -> card

The documents are spooled because the groups, and so the split, are known only when the last one has been read. Memory
holds one batch of documents, and some hundred bytes per document for digests, sketches and groups.
"""

import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from tilth.corpus.card import Tally, card_markdown, counts, reasons
from tilth.corpus.clean import cleaner, keep_undropped
from tilth.corpus.dedupe import deduplicator
from tilth.corpus.groups import find_groups, name_groups, sketch_values, sketcher
from tilth.corpus.measure import SIZES, measure
from tilth.corpus.normalise import normalise
from tilth.corpus.output import FAILED, check_out, check_replaces, explain
from tilth.corpus.reader import CARD, FORMAT, FORMAT_VERSION, Corpus, is_corpus, open_corpus, seal
from tilth.corpus.records import BATCH_SCHEMA, DOCUMENT_SCHEMA, Dropped, Rejected, to_batches
from tilth.corpus.rejections import allowed_rejections, missing_after, told_of_rejections, too_many
from tilth.corpus.sources import Source, find_sources, read_source
from tilth.corpus.split import Split, check_leaks, choose_split, cut_text
from tilth.corpus.writer import SplitWriter
from tilth.errors import TilthError, UsageError
from tilth.files import fingerprint, output_folder, sha256_file, whole_folder, write_json
from tilth.progress import announce, progress_bar
from tilth.version import __version__

BatchFunction = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class Stage:
    """A step from batch to batch. version: changes when its results do. make(**parameters): its function in a build."""

    name: str
    version: int
    make: Callable[..., BatchFunction]
    parameters: dict[str, Any] = field(default_factory=dict)


STAGES = (
    Stage("clean", 1, cleaner, {"unicode_form": "NFC"}),
    Stage("normalise", 1, lambda: normalise),
    Stage("measure", 1, lambda: measure),
    Stage("deduplicate", 1, deduplicator),
    Stage("sketch", 1, sketcher, {"bands": 8, "rows": 4, "shingle": 5}),
)
"""In order. A stage that has no use for a record writes the reason into the column `drop`."""

SPOOL_SCHEMA = pa.schema([*BATCH_SCHEMA, *(pa.field(name, pa.int64()) for name in SIZES)])


@dataclass
class _Build:
    """What one build knows so far. folder: the new corpus, in the making. missing: sentences about files cut short."""

    folder: Path
    tallies: list[Tally] = field(default_factory=list)
    unsupported: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    sketches: list[np.ndarray] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)


def build_corpus(
    sources: Sequence[str],
    out: Path,
    *,
    validation: float = 0.05,
    max_rejected: float = 0.01,
    text_column: str = "text",
    overwrite: bool = True,
    progress: bool = True,
) -> Corpus:
    """Read `sources` into a corpus folder.

    sources: files, folders, globs, or the word `installed-docs`. validation: share of the bytes to hold out.
    max_rejected: share of broken records past which the build fails; unless it is 0, a tenth of the records, up to ten,
    is allowed as well.
    text_column: the field of tables and JSON records that holds the text.
    overwrite: False replaces a corpus in `out` only by a newer build from sources of the same names with the same
    settings.

    `out` appears only when it is complete; an earlier corpus there stays until then. What was set aside is said on
    standard error. A build that fails for what it read leaves `failed.json` and `rejected/` in `out` (in `out/failed`
    when it holds a corpus).
    Raises: UsageError for wrong arguments and for a corpus that is not to be replaced, TilthError when there are no
    documents, too many broken ones, or no space.
    """
    if not 0 < validation < 0.5:
        raise UsageError(f"validation is {validation}: choose a share above 0 and below 0.5")
    if not 0 <= max_rejected <= 1:
        raise UsageError(f"max_rejected is {max_rejected}: choose a share from 0 to 1")
    given, out = out, Path(os.path.abspath(out))
    check_out(out)
    found = find_sources(sources, out)
    settings = {"validation": validation, "max_rejected": max_rejected, "text_column": text_column}
    if not overwrite:
        check_replaces(given, [source.name for source in found], settings)
    try:
        output_folder(out.parent)
        with whole_folder(out) as folder:
            build = _Build(folder)
            _read(build, found, out, text_column, max_rejected, progress)
            _check_counts(build, out, max_rejected)
            card = _write(build, found, settings)
            (folder / "card.md").write_text(card_markdown(card), encoding="utf-8")
            write_json(folder / CARD, seal(card))
    except OSError as error:
        raise TilthError(explain(error, out)) from error
    for line in told_of_rejections(card["rejected"], card["in"], build.missing, given / "rejected"):
        announce(line)
    return open_corpus(out)


def _read(
    build: _Build, sources: list[Source], out: Path, text_column: str, max_rejected: float, progress: bool
) -> None:
    """Run every source through the stages into the spool, and set broken records aside."""
    (build.folder / "rejected").mkdir()
    stages = [stage.make(**stage.parameters) for stage in STAGES]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        open(build.folder / "rejected" / "part-00000.jsonl", "w", encoding="utf-8") as rejected,
        pa.ipc.new_stream(build.folder / "spool", SPOOL_SCHEMA, options=options) as spool,
        progress_bar("Reading", sum(source.size for source in sources), "bytes", progress) as update,
    ):
        read = 0

        def advance(size: int) -> None:
            nonlocal read
            read += size
            update(read, kept=f"{len(build.digests):,}")

        for source in sources:
            tally = Tally(source.name, len(source.files))
            build.tallies.append(tally)
            for item in to_batches(read_source(source, text_column, advance)):
                if isinstance(item, Dropped):
                    tally.records += item.count
                    tally.dropped[item.reason] += item.count
                    build.unsupported.update([item.detail] if item.detail else [])
                elif isinstance(item, Rejected):
                    tally.records += 1
                    tally.rejected[item.reason] += 1
                    if sentence := missing_after(item):
                        build.missing.append(sentence)
                    build.examples.setdefault(item.reason, f"{item.source}, {item.record}: {item.detail}")
                    line = {"source": item.source, "record": item.record, "reason": item.reason, "detail": item.detail}
                    rejected.write(json.dumps(line, ensure_ascii=True) + "\n")
                    if sum(tally.rejected.values()) > max(1000, max(0.5, max_rejected) * tally.records):
                        rejected.flush()
                        _fail(build, out, f"most records of {source.name} are broken, so the build stopped early")
                else:
                    tally.records += item.num_rows
                    batch = _through(stages, item, tally)
                    if batch.num_rows:
                        spool.write_batch(batch.select(SPOOL_SCHEMA.names))
                        _note_kept(build, batch, tally)
    if not any(tally.rejected for tally in build.tallies):
        (build.folder / "rejected" / "part-00000.jsonl").unlink()


def _through(stages: list[BatchFunction], batch: pa.RecordBatch, tally: Tally) -> pa.RecordBatch:
    for stage in stages:
        batch, dropped = keep_undropped(stage(batch))
        tally.dropped.update(dropped)
        if not batch.num_rows:
            break
    return batch


def _note_kept(build: _Build, batch: pa.RecordBatch, tally: Tally) -> None:
    build.sizes.append(batch["bytes"].to_numpy())
    build.digests += batch["digest"].to_pylist()
    build.sketches.append(sketch_values(batch))
    tally.kept += batch.num_rows
    size, characters, words = (int(batch[name].to_numpy().sum()) for name in SIZES)
    tally.bytes += size
    tally.characters += characters
    tally.words += words


def _check_counts(build: _Build, out: Path, max_rejected: float) -> None:
    found = counts(build.tallies)
    rejected = sum(found["rejected"].values())
    if not found["kept"]:
        names = ", ".join(tally.source for tally in build.tallies)
        files = sum(tally.files for tally in build.tallies)
        _fail(build, out, f"no documents in {names} ({files:,} files, {found['in']:,} records)")
    if rejected > allowed_rejections(found["in"], max_rejected):
        _fail(build, out, too_many(rejected, found["in"], max_rejected))


def _fail(build: _Build, out: Path, problem: str) -> NoReturn:
    """Keep the counts and what was set aside, and stop."""
    found = counts(build.tallies)
    place = output_folder(out / "failed" if is_corpus(out) else out)
    shutil.rmtree(place / "rejected", ignore_errors=True)
    shutil.copytree(build.folder / "rejected", place / "rejected")
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


def _write(build: _Build, sources: list[Source], settings: dict[str, Any]) -> dict[str, Any]:
    """Split the spooled documents, write them, check the result; returns the card."""
    groups = name_groups(find_groups(np.concatenate(build.sketches)), build.digests)
    split = choose_split(groups, np.concatenate(build.sizes), settings["validation"])
    writers = {name: SplitWriter(build.folder / name) for name in ("train", "validation")}
    for batch, held in _split_batches(build.folder / "spool", groups, split):
        writers["train"].add(batch.filter(pa.array(~held)))
        writers["validation"].add(batch.filter(pa.array(held)))
    for writer in writers.values():
        writer.close()
    (build.folder / "spool").unlink()
    leaks = check_leaks(build.folder)
    if any(leaks.values()):
        raise AssertionError(f"the split leaks: {leaks}")
    splits = {name: writer.summary() for name, writer in writers.items()}
    found = counts(build.tallies)
    written = sum(summary["documents"] for summary in splits.values()) - len(split.ends)
    left_out = sum(found["dropped"].values()) + sum(found["rejected"].values())
    if written != found["kept"] or found["in"] != written + left_out:
        raise AssertionError(f"counts do not add up: {found}, {written} documents written")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **found,
        "fingerprint": fingerprint([summary["fingerprint"] for summary in splits.values()]),
        "splits": splits,
        "split_rule": split.rule,
        "leak_check": {"passed": True, **leaks},
        "sources": [tally.to_json() for tally in build.tallies],
        "stages": [{"name": stage.name, "version": stage.version, "parameters": stage.parameters} for stage in STAGES],
        "settings": settings,
        "notes": _notes(build, sources, split),
        "files": [
            {"path": f"{name}/{path.name}", "size": path.stat().st_size, "sha256": sha256_file(path)}
            for name, writer in writers.items()
            for path in writer.paths
        ],
        "versions": {"tilth": __version__, "pyarrow": pa.__version__, "python": platform.python_version()},
    }


def _split_batches(spool: Path, groups: list[str], split: Split) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Batches of documents, and which are held out. A document that is cut comes as two, in groups of their own."""
    start = 0
    with pa.ipc.open_stream(pa.memory_map(os.fspath(spool))) as reader:
        for batch in reader:
            end = start + batch.num_rows
            held = split.validation[start:end]
            documents = batch.append_column("group", pa.array(groups[start:end], pa.string()))
            ends = {index - start: size for index, size in split.ends.items() if start <= index < end}
            if ends:
                documents, held = _cut(documents, held, ends)
            yield documents, held
            start = end


def _cut(documents: pa.RecordBatch, held: np.ndarray, ends: dict[int, int]) -> tuple[pa.RecordBatch, np.ndarray]:
    """ends: about how many bytes to cut off and hold out, by the document's place in the batch."""
    rows = []
    for index, row in enumerate(documents.to_pylist()):
        if index not in ends:
            rows.append(row)
            continue
        text, end = cut_text(row["text"], ends[index] / len(row["text"].encode()))
        rows += [row | {"text": text}, row | {"id": f"{row['id']}#end", "text": end, "group": f"{row['group']}-end"}]
    batch = pa.RecordBatch.from_pylist(rows, schema=DOCUMENT_SCHEMA)
    return measure(normalise(batch)), np.insert(held, [index + 1 for index in sorted(ends)], True)


def _notes(build: _Build, sources: list[Source], split: Split) -> list[str]:
    notes = [f"{source.name}: {note}" for source in sources for note in source.notes]
    if build.unsupported:
        notes.append(f"files of formats that are not read: {reasons(build.unsupported)}")
    if split.ends:
        cut = "one document was" if len(split.ends) == 1 else f"{len(split.ends)} documents were"
        notes.append(
            f"{cut} cut in two, the {'end is' if len(split.ends) == 1 else 'ends are'} in validation; the splits hold "
            f"{len(split.ends)} more than were kept, and validation is easier than on unseen documents"
        )
    return notes
