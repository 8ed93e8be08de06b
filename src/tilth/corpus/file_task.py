"""A file task: some files of a source in, one part of documents and an account of every record out.

A task depends on nothing but its files and the settings, and its part is there whole or not at all, so that any process
on any machine may run it, twice if need be. Its id is a hash of what the part depends on: one made of other files or
with other settings is never taken for it.
"""

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from tilth.corpus.card import Tally
from tilth.corpus.clean import keep_undropped
from tilth.corpus.dedupe import restore_wholes
from tilth.corpus.filters import BatchFunction
from tilth.corpus.filters.contamination import FOUND as TEST_ITEMS
from tilth.corpus.filters.contamination import found_items
from tilth.corpus.formats.text import is_part
from tilth.corpus.libraries import forget_used, used_libraries
from tilth.corpus.mark import Deadly, advance, guarded
from tilth.corpus.records import BATCH_SCHEMA, Dropped, Item, Record, Rejected, to_batches
from tilth.corpus.rejections import missing_after
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sources import File, Source, read_files
from tilth.corpus.stages import KEY_COLUMNS, stages_of, states_of_files
from tilth.corpus.units import sorted_units
from tilth.files import fingerprint, read_json, whole_folder, write_json
from tilth.urls import is_url
from tilth.version import __version__

SAMPLES, SAMPLE_CHARACTERS = 3, 300
"""Documents of a card that show what is dropped for a reason, and how much of each."""

MOST_FILES = 512
MOST_BYTES = 16_000_000
"""Files of a source are one task up to so many, or so many bytes as they lie on disk: seconds of work, so that no
worker is long alone at the end."""

TEXTS, KEYS, UNITS, REJECTED, ACCOUNT = "texts.arrow", "keys.arrow", "units.arrow", "rejected.jsonl", "account.json"
"""The files of a part. Keys are what documents are compared by, and units what their lines and paragraphs are; they lie
apart, and are read by mapping the file. The batches of the three are of the same documents."""


@dataclass(frozen=True)
class FileTask:
    """What a worker is told. source: the number of the source. installed: see `Source`.

    deadly: records that ended the workers that read them, by digest, with the reason to give. spoiled: files that did
    so where no record could be told, by their place in the task, with how many things they gave out before, and the
    reason. careful: work on one record at a time, so that the one that ends the worker can be told. keys_only: the part
    is only to be compared with, and has no texts. first: see `read_files`. id: see `plan_tasks`.
    """

    source: int
    name: str
    installed: bool
    files: list[File]
    settings: CorpusSettings
    deadly: dict[str, str] = field(default_factory=dict)
    spoiled: dict[int, tuple[int, str]] = field(default_factory=dict)
    careful: bool = False
    id: str = ""
    keys_only: bool = False
    first: int | None = None

    @property
    def size(self) -> int:
        """Bytes of all files, as they lie on disk."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """One line, which `from_json` reads."""
        files = [[str(file.path), file.name, file.size, file.modified, file.version] for file in self.files]
        return json.dumps({**vars(self), "files": files, "settings": self.settings.model_dump()})

    @classmethod
    def from_json(cls, line: str) -> "FileTask":
        """The task that `to_json` wrote."""
        value = json.loads(line)
        value["files"] = [File(path if is_url(path) else Path(path), *rest) for path, *rest in value["files"]]
        value["settings"] = CorpusSettings.model_validate(value["settings"])
        value["spoiled"] = {int(index): tuple(place) for index, place in value["spoiled"].items()}
        return cls(**value)


Runner = Callable[[Sequence[FileTask], Path, Callable[[int], None]], Iterator[FileTask]]
"""runner(tasks, folder, tick) runs every task into `folder`/its id, and yields each as it is done.

tick(bytes) is called from time to time with what the tasks that are running have read so far.
"""


def _named(task: FileTask) -> FileTask:
    """The task with its id: a hash of all that the part depends on."""
    files = [(os.fsencode(file.path).hex(), file.size, file.modified, file.version) for file in task.files]
    stages = [stage.to_json() for stage in stages_of(task.settings)]
    named = states_of_files(task.settings.filters.values())
    reading = vars(task.settings.reading)
    depends = [__version__, task.source, task.name, files, reading, stages, named, task.keys_only, task.first]
    return replace(task, id=fingerprint(depends))


def mark_of(part: Path) -> Path:
    """Where the worker that makes `part` leaves its mark."""
    return part.with_name(f"{part.name}.mark")


@dataclass
class Account:
    """What became of a task's records; the sizes in the tally are left to `assemble`.

    unsupported: files of formats that are not read. examples: a rejected record for each reason. missing: sentences of
    `missing_after`. overflowed: so many records were broken that the rest was not read. samples: the first documents
    dropped for each reason, as [id, start of the text]. cut: parts made of each large text. test_items: numbers of the
    items of test sets that were found. libraries: versions of those that read the files.
    """

    tally: Tally
    samples: dict[str, list[list[str]]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    test_items: list[int] = field(default_factory=list)
    unsupported: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    overflowed: bool = False
    libraries: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, part: Path) -> "Account":
        """The account in the folder of a finished part."""
        value = read_json(part / ACCOUNT)
        tally = Tally(**value.pop("tally"))
        tally.dropped, tally.rejected = Counter(tally.dropped), Counter(tally.rejected)
        return cls(tally, unsupported=Counter(value.pop("unsupported")), **value)

    def note_dropped(self, batch: pa.RecordBatch, left: Mapping[str, list[int]]) -> None:
        """Count the rows of `batch` that a stage drops for each reason, and keep some for the card."""
        for reason, rows in left.items():
            self.tally.dropped[reason] += len(rows)
            kept = self.samples.setdefault(reason, [])
            for row in rows[: SAMPLES - len(kept)]:
                kept.append([batch["id"][row].as_py(), batch["text"][row].as_py()[:SAMPLE_CHARACTERS]])

    def mask_samples(self, masks: Sequence[BatchFunction]) -> None:
        """Mask personal data in what a card shows of documents that were dropped before their own was masked."""
        shown = [document for documents in self.samples.values() for document in documents]
        for mask in masks if shown else ():
            rows = [{"id": name, "text": text, "source": "", "metadata": "{}"} for name, text in shown]
            for document, text in zip(shown, mask(pa.RecordBatch.from_pylist(rows, BATCH_SCHEMA))["text"], strict=True):
                document[1] = text.as_py()

    def note_parts(self, items: Iterable[Item]) -> Iterator[Item]:
        """Count the parts of large texts that pass."""
        for item in items:
            if isinstance(item, Record) and is_part(item):
                self.cut[item.source] = self.cut.get(item.source, 0) + 1
            yield item


def plan_tasks(
    sources: Sequence[Source], settings: CorpusSettings, keys_only: bool = False, first: int | None = None
) -> list[FileTask]:
    """The tasks of a build, in the order of its documents, whatever the number of workers."""
    return [
        _named(FileTask(number, source.name, source.installed, files, settings, keys_only=keys_only, first=first))
        for number, source in enumerate(sources)
        for files in _bundles(source.files)
    ]


def _bundles(files: Sequence[File]) -> Iterator[list[File]]:
    bundle: list[File] = []
    size = 0
    for file in files:
        if len(bundle) == MOST_FILES or bundle and size + file.size > MOST_BYTES:
            yield bundle
            bundle, size = [], 0
        bundle.append(file)
        size += file.size
    if bundle:
        yield bundle


def _too_broken(tally: Tally, max_rejected: float) -> bool:
    """Whether so many records are broken, over 1,000 and half of them, that reading on is pointless."""
    return sum(tally.rejected.values()) > max(1000, max(0.5, max_rejected) * tally.records)


def run_task(task: FileTask, part: Path, functions: list[BatchFunction]) -> None:
    """Read the task's files through the stages' `functions` into the folder `part`, which appears when all is there.

    Where the task is run twice at one time, the part of the first that is done stays.
    """
    account = Account(Tally(task.name, len(task.files)))
    forget_used()
    own = part.with_name(f"{part.name}-{uuid.uuid4().hex}")
    with whole_folder(own) as folder, PartWriter(folder, task.keys_only) as writer:
        reading, manners = task.settings.reading, task.settings.manners
        items = read_files(task.files, task.installed, reading, task.spoiled, manners, task.first)
        for item in to_batches(account.note_parts(items), 1 if task.careful else None):
            if isinstance(item, Dropped):
                account.tally.records += item.count
                account.tally.dropped[item.reason] += item.count
                account.unsupported.update([item.detail] if item.detail else [])
            elif isinstance(item, Rejected):
                _set_aside(item, account, writer.rejected)
                if _too_broken(account.tally, task.settings.max_rejected):
                    account.overflowed = True
                    break
            else:
                advance(0)
                try:
                    batch = _through(functions, item, account, task.careful)
                except Deadly as deadly:
                    row = item.to_pylist()[0]
                    _set_aside(Rejected(row["source"], row["id"], deadly.reason, str(deadly)), account, writer.rejected)
                    continue
                account.tally.records += item.num_rows
                account.tally.kept += batch.num_rows
                if batch.num_rows:
                    writer.add(restore_wholes(batch) if task.keys_only else batch)
        masks = [stage.function() for stage in stages_of(task.settings) if stage.name == "personal"]
        account.mask_samples(masks)
        account.libraries = used_libraries()
        write_json(folder / ACCOUNT, {**vars(account), "tally": vars(account.tally)})
    try:
        own.rename(part)
    except OSError:
        if not (part / ACCOUNT).exists():
            raise
        shutil.rmtree(own, ignore_errors=True)


def _set_aside(item: Rejected, account: Account, file: TextIO) -> None:
    account.tally.records += 1
    account.tally.rejected[item.reason] += 1
    if sentence := missing_after(item):
        account.missing.append(sentence)
    account.examples.setdefault(item.reason, f"{item.source}, {item.record}: {item.detail}")
    line = {"source": item.source, "record": item.record, "reason": item.reason, "detail": item.detail}
    file.write(json.dumps(line, ensure_ascii=True) + "\n")


def _through(functions: list[BatchFunction], batch: pa.RecordBatch, account: Account, careful: bool) -> pa.RecordBatch:
    """careful: the batch is one record. Raises: Deadly when that record has ended workers before."""
    if careful:
        with guarded(batch["text"][0].as_py().encode()):
            return _through(functions, batch, account, careful=False)
    for function in functions:
        judged = function(batch)
        if TEST_ITEMS in judged.schema.names:
            account.test_items = sorted(found_items(judged).union(account.test_items))
            judged = judged.drop_columns([TEST_ITEMS])
        batch, left = keep_undropped(judged)
        account.note_dropped(judged, left)
        if not batch.num_rows:
            break
    return batch


class PartWriter:
    """The files of a part. Each is opened when there is something to write, but for the rejected records."""

    def __init__(self, folder: Path, keys_only: bool = False) -> None:
        self._folder = folder
        self._keys_only = keys_only
        self._writers: dict[str, pa.ipc.RecordBatchFileWriter] = {}
        self.rejected = open(folder / REJECTED, "w", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *raised: object) -> None:
        self.rejected.close()
        for writer in self._writers.values():
            writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Append documents that have passed all stages."""
        if not self._keys_only:
            self._write(TEXTS, batch.select(BATCH_SCHEMA.names), "lz4")
        self._write(KEYS, batch.select([*(column.name for column in KEY_COLUMNS), "sketch"]))
        if "units" in batch.schema.names:
            self._write(UNITS, sorted_units(batch["units"]))

    def _write(self, name: str, batch: pa.RecordBatch, compression: str | None = None) -> None:
        if name not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
            self._writers[name] = pa.ipc.new_file(self._folder / name, batch.schema, options=options)
        self._writers[name].write_batch(batch)


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file of a part; none where no document was kept."""
    if not path.exists():
        return
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
