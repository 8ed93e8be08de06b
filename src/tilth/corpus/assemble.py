"""From the parts of all tasks to a corpus: what needs more than one document at a time.

De-duplication across tasks, content groups, the split, Parquet, the leak check, and the card. In memory are one batch
of documents, and of each document its sizes, its digest, its group, and one band of its sketch at a time.
"""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tilth.corpus.card import Tally, counts
from tilth.corpus.dedupe import among, first_of_each, note_whole
from tilth.corpus.file_task import KEYS, TEXTS, read_batches
from tilth.corpus.groups import join_documents, name_groups
from tilth.corpus.joining import choose_sample, measure_joining
from tilth.corpus.measure import SIZES, measure
from tilth.corpus.mixture import Mixture, choose_mixture, is_mixed
from tilth.corpus.normalise import normalise
from tilth.corpus.reader import FORMAT, FORMAT_VERSION
from tilth.corpus.records import DOCUMENT_SCHEMA, fixed_rows
from tilth.corpus.repeated import take_out_repeated
from tilth.corpus.settings import TRANSPORT, CorpusSettings
from tilth.corpus.sketch import GROUPS, MAX_BYTES, NEAR, band_values
from tilth.corpus.split import Split, check_leaks, choose_split, cut_text
from tilth.corpus.stages import SHINGLE, stages_of
from tilth.corpus.writer import SplitWriter
from tilth.errors import TilthError
from tilth.files import fingerprint, sha256_file
from tilth.progress import progress_bar
from tilth.version import __version__

UNEVEN = 1.5
"""How many times as long documents of one split may be as those of the other without a word."""


@dataclass(frozen=True)
class Part:
    """A finished part: its folder, and the number of the source it is from."""

    folder: Path
    source: int


def assemble(
    parts: Sequence[Part],
    tallies: list[Tally],
    settings: CorpusSettings,
    folder: Path,
    notes: list[str],
    facts: dict[str, Any],
    known: Sequence[Part] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Write the splits into `folder`; returns the card.

    parts: in the order of the documents. tallies: the counts of each source before documents of different parts are
    compared; they are brought to their final state. notes, facts: for the card. known: parts of documents that are not
    wanted again. progress: show how much is written.
    Raises: TilthError when no document is left, or none to train on.
    """
    near = settings.near_duplicates == "drop"
    keys = _Keys(parts)
    kept = first_of_each(keys.column("digest"))
    _drop(tallies, "duplicate", keys.sources[~kept])
    if known:
        new = ~_known(keys, kept, _Keys(known), near)
        _drop(tallies, "known", keys.sources[kept][~new])
        kept[kept] = new
        if not kept.any():
            raise TilthError("no document is left: the corpora of `known` hold all of them")
    if near:
        joined = join_documents(keys.bands(GROUPS.bands, NEAR.bands, kept), int(kept.sum()))
        facts = {**facts, "near_duplicates": _check_joining(parts, keys, kept, joined)}
        # A sketch is of the start of a document: what is larger has not been compared whole.
        first = (joined == np.arange(len(joined))) | (keys.column("bytes")[kept] > MAX_BYTES)
        _drop(tallies, "near_duplicate", keys.sources[kept][~first])
        kept[kept] = first
    if settings.repeated.kinds:
        parts, keys, kept, facts = _without_repeated(parts, keys, kept, known, tallies, settings, facts)
    sizes = {name: keys.column(name)[kept] for name in SIZES}
    digests = keys.column("digest")[kept]
    groups = name_groups(join_documents(keys.bands(0, GROUPS.bands, kept), len(digests)), digests)
    split = choose_split(groups, sizes["bytes"], settings.validation)
    sources = keys.sources[kept]
    copies = np.ones(len(sources), np.int64)
    mixture = None
    if is_mixed(settings):
        train = ~split.validation
        mixed = (sources[train], sizes[settings.mixture_by][train], digests[train])
        mixture = choose_mixture([tally.source for tally in tallies], *mixed, settings)
        copies[train] = mixture.copies
        cut = list(split.ends)
        copies[cut] = np.maximum(copies[cut], 1)  # their ends are in validation, so they cannot be left out
        if not copies[train].any():
            raise TilthError("the mixture leaves no document to train on: raise max_epochs, or add text")
        _drop(tallies, "mixture", sources[copies == 0])
    for name, values in sizes.items():
        sums = np.bincount(sources, values * (copies > 0), len(tallies))
        for tally, total in zip(tallies, sums, strict=True):
            setattr(tally, name, int(total))
    writers = {name: SplitWriter(folder / name) for name in ("train", "validation")}
    trained = np.zeros(len(tallies))
    done = 0
    with progress_bar("Writing", int(copies.sum()) + len(split.ends), "documents", progress) as update:
        for source, batch, held in _split_batches(parts, kept, groups, split, copies):
            train = batch.filter(pa.array(~held))
            trained[source] += train[settings.mixture_by].to_numpy().sum()
            writers["train"].add(train)
            writers["validation"].add(batch.filter(pa.array(held)))
            done += batch.num_rows
            update(done)
    for writer in writers.values():
        writer.close()
    leaks = check_leaks(folder)
    if leaks["texts_on_both_sides"] and split.ends:
        raise TilthError(
            "an end that would be held out says the same as what is trained on: the text repeats itself; add more text"
        )
    if any(leaks.values()):
        raise AssertionError(f"the split leaks: {leaks}")
    splits = {name: writer.summary() for name, writer in writers.items()}
    found = counts(tallies)
    repeated = int(np.maximum(copies - 1, 0).sum())
    written = sum(summary["documents"] for summary in splits.values()) - len(split.ends) - repeated
    if mixture:
        available = np.bincount(sources, sizes[settings.mixture_by] * ~split.validation, len(tallies))
        shares = _shares(mixture, tallies, trained, available)
        facts = {"mixture": {"by": settings.mixture_by, "repeated_documents": repeated, "sources": shares}, **facts}
        notes = notes + mixture.note(shares)
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
        "sources": [tally.to_json() for tally in tallies],
        "stages": [stage.to_json() for stage in stages_of(settings)],
        "settings": settings.model_dump(exclude=TRANSPORT),
        **facts,
        "notes": notes + _note_of_cuts(split) + _note_of_sizes(split, sizes["bytes"]),
        "files": [
            {"path": f"{name}/{path.name}", "size": path.stat().st_size, "sha256": sha256_file(path)}
            for name, writer in writers.items()
            for path in writer.paths
        ],
        "versions": {"tilth": __version__, "pyarrow": pa.__version__, "python": platform.python_version()},
    }


class _Keys:
    """What the documents of all parts are compared by, in order; read from the mapped files when it is asked for.

    sources: the number of each document's source, int64 (documents,).
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._batches = [batch for part in parts for batch in read_batches(part.folder / KEYS)]
        rows = [sum(batch.num_rows for batch in read_batches(part.folder / KEYS)) for part in parts]
        self.sources = np.repeat([part.source for part in parts], rows)

    def column(self, name: str) -> np.ndarray:
        """A size, int64 (documents,), or the digests, uint8 (documents, 16)."""
        columns = [batch[name] for batch in self._batches]
        return np.concatenate([fixed_rows(c) if name == "digest" else c.to_numpy() for c in columns])

    def bands(self, first: int, count: int, kept: np.ndarray) -> Iterator[np.ndarray]:
        """The bands `first` and following of the documents that are `kept`, one after another."""
        for band in range(first, first + count):
            yield np.concatenate([band_values(batch["sketch"])[:, band] for batch in self._batches])[kept]


def _without_repeated(
    parts: Sequence[Part],
    keys: _Keys,
    kept: np.ndarray,
    known: Sequence[Part],
    tallies: list[Tally],
    settings: CorpusSettings,
    facts: dict[str, Any],
) -> tuple[list[Part], _Keys, np.ndarray, dict[str, Any]]:
    """Parts of the kept documents without what many have, their keys, which of them are kept, and facts for the card.

    A document may be the same as another, or as one of `known`, for what it has lost.
    """
    folder = parts[0].folder.with_name("edited")
    edited, left, told, samples = take_out_repeated([part.folder for part in parts], kept, settings, folder)
    _drop(tallies, "only_repeated", keys.sources[kept][~left])
    if not left.any():
        raise TilthError("no document is left: raise repeated.lines or repeated.paragraphs, or lower repeated.left")
    parts = [Part(folder, part.source) for folder, part in zip(edited, parts, strict=True)]
    keys = _Keys(parts)
    first = first_of_each(keys.column("digest"))
    _drop(tallies, "duplicate", keys.sources[~first])
    if known:
        new = ~_known(keys, first, _Keys(known), near=False)
        _drop(tallies, "known", keys.sources[first][~new])
        first[first] = new
    shown = {**facts.get("dropped_samples", {}), **({"only_repeated": samples} if samples else {})}
    return parts, keys, first, {**facts, "dropped_samples": dict(sorted(shown.items())), "repeated": told}


def _known(keys: _Keys, kept: np.ndarray, known: _Keys, near: bool) -> np.ndarray:
    """Which of the kept documents are, or with `near` share a band with, one of `known`: bool (kept documents,)."""
    found = among(keys.column("digest")[kept], known.column("digest"))
    if near:
        every = np.ones(len(known.sources), bool)
        bands = (GROUPS.bands, NEAR.bands)
        for ours, theirs in zip(keys.bands(*bands, kept), known.bands(*bands, every), strict=True):
            found |= np.isin(ours, theirs)
    return found


def _check_joining(parts: Sequence[Part], keys: _Keys, kept: np.ndarray, joined: np.ndarray) -> dict[str, Any]:
    """What the card says of how well near-duplicates were joined. joined: components of the kept documents."""
    likely = join_documents(keys.bands(0, GROUPS.bands, kept), len(joined))
    clusters = join_documents(iter((joined, likely)), len(joined))
    sample = choose_sample(clusters, keys.column("bytes")[kept], keys.column("digest")[kept])
    texts = _texts(parts, np.flatnonzero(kept)[sample])
    return measure_joining(texts, joined[sample], SHINGLE).to_json()


def _texts(parts: Sequence[Part], rows: np.ndarray) -> Iterator[str]:
    """The texts of some documents. rows: their places among all documents of the parts, sorted."""
    start = 0
    for part in parts:
        counts = [batch.num_rows for batch in read_batches(part.folder / KEYS)]
        ends = start + np.cumsum([0, *counts])
        inside = rows[np.searchsorted(rows, ends[0]) : np.searchsorted(rows, ends[-1])]
        if len(inside):
            for batch, first, end in zip(read_batches(part.folder / TEXTS), ends[:-1], ends[1:], strict=True):
                for row in inside[np.searchsorted(inside, first) : np.searchsorted(inside, end)].tolist():
                    yield batch["text"][row - int(first)].as_py()
        start = int(ends[-1])


def _drop(tallies: list[Tally], reason: str, sources: np.ndarray) -> None:
    """Count documents as dropped; sources: the number of the source of each."""
    for tally, count in zip(tallies, np.bincount(sources, minlength=len(tallies)).tolist(), strict=True):
        tally.kept -= count
        tally.dropped.update({reason: count} if count else {})


def _shares(
    mixture: Mixture, tallies: Sequence[Tally], trained: np.ndarray, available: np.ndarray
) -> list[dict[str, Any]]:
    """What the card says of each source's share. trained, available: what the training split holds of each source, with
    repetitions, and what there was of it, in the unit of the weights."""
    names = [tally.source for tally in tallies]
    seen, whole = (
        [float(amounts[[name == other for other in names]].sum()) for name in mixture.names]
        for amounts in (trained, available)
    )
    return [
        {
            "source": name,
            "asked": round(float(asked), 6),
            "reached": round(amount / sum(seen), 6),
            "epochs": round(amount / there, 4) if there else 0.0,
        }
        for name, asked, amount, there in zip(mixture.names, mixture.asked, seen, whole, strict=True)
    ]


def _split_batches(
    parts: Sequence[Part], kept: np.ndarray, groups: np.ndarray, split: Split, copies: np.ndarray
) -> Iterator[tuple[int, pa.RecordBatch, np.ndarray]]:
    """The source, documents, and which of them are held out. A document that is cut comes as two, in groups of its own.

    kept: of all documents of the parts. groups, split, copies: of the kept ones. Copies follow when all documents have
    come, as epoch after epoch, under ids that end in `#epoch2` and so on; only what is not held out has any.
    """
    for epoch in range(copies.max(initial=1)):
        row = start = 0
        for part in parts:
            for texts, keys in zip(read_batches(part.folder / TEXTS), read_batches(part.folder / KEYS), strict=True):
                chosen = kept[row : row + texts.num_rows].copy()
                row += texts.num_rows
                end = start + int(chosen.sum())
                places = start + np.flatnonzero(copies[start:end] > epoch)
                chosen[chosen] = copies[start:end] > epoch
                start = end
                if len(places):
                    yield part.source, *_documents(texts, keys, pa.array(chosen), places, groups, split, epoch)


def _documents(
    texts: pa.RecordBatch,
    keys: pa.RecordBatch,
    chosen: pa.Array,
    places: np.ndarray,
    groups: np.ndarray,
    split: Split,
    epoch: int,
) -> tuple[pa.RecordBatch, np.ndarray]:
    """The chosen documents of a batch, and which are held out. places: of each among all that are kept."""
    documents = texts.filter(chosen)
    for name in SIZES:
        documents = documents.append_column(name, keys[name].filter(chosen))
    documents = documents.append_column(
        "group", pa.array([f"{group:016x}" for group in groups[places].tolist()], pa.string())
    )
    held = split.validation[places]
    ends = {index: split.ends[place] for index, place in enumerate(places.tolist()) if place in split.ends}
    if ends:
        documents, held = _cut(documents, held, ends)
    if not epoch:
        return documents, held
    documents, held = documents.filter(pa.array(~held)), held[~held]
    ids = [f"{name}#epoch{epoch + 1}" for name in documents["id"].to_pylist()]
    return documents.set_column(documents.schema.get_field_index("id"), "id", pa.array(ids, pa.string())), held


def _cut(documents: pa.RecordBatch, held: np.ndarray, ends: dict[int, int]) -> tuple[pa.RecordBatch, np.ndarray]:
    """ends: about how many bytes to cut off and hold out, by the document's place in the batch."""
    rows = []
    for index, row in enumerate(documents.to_pylist()):
        if index not in ends:
            rows.append(row)
            continue
        text, end = cut_text(row["text"], ends[index] / len(row["text"].encode()))
        row = note_whole(row)
        rows += [row | {"text": text}, row | {"id": f"{row['id']}#end", "text": end, "group": f"{row['group']}-end"}]
    batch = pa.RecordBatch.from_pylist(rows, schema=DOCUMENT_SCHEMA)
    return measure(normalise(batch)), np.insert(held, [index + 1 for index in sorted(ends)], True)


def _note_of_sizes(split: Split, sizes: np.ndarray) -> list[str]:
    """Large documents do not fit the share of a small corpus."""
    held, others = sizes[split.validation], sizes[~split.validation]
    if split.ends or not len(held) or not len(others) or UNEVEN * held.mean() >= others.mean() >= held.mean() / UNEVEN:
        return []
    return [
        f"documents in validation have {held.mean():,.0f} bytes on average, the others {others.mean():,.0f}: held-out "
        "losses are those of texts of another length"
    ]


def _note_of_cuts(split: Split) -> list[str]:
    if not split.ends:
        return []
    cut = "one document was" if len(split.ends) == 1 else f"{len(split.ends)} documents were"
    return [
        f"{cut} cut in two, the {'end is' if len(split.ends) == 1 else 'ends are'} in validation; the splits hold "
        f"{len(split.ends)} more than were kept, and validation is easier than on unseen documents"
    ]
