"""The split gives both sides something, about the share that was asked for, and never the same content."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tilth.corpus.assemble import _note_of_sizes
from tilth.corpus.groups import join_documents, name_groups
from tilth.corpus.normalise import normalise, normalised
from tilth.corpus.records import DOCUMENT_SCHEMA
from tilth.corpus.sketch import band_values, sketcher
from tilth.corpus.split import Split, check_leaks, choose_split, cut_text
from tilth.errors import TilthError

WORDS = [f"w{number}" for number in range(5000)]


def names(count, seed=0):
    return np.array([random.Random(seed * 10**6 + number).getrandbits(64) for number in range(count)], np.uint64)


def groups_of(texts):
    sketches = sketches_of(texts)
    return join_documents(sketches.T, len(sketches))


def sketches_of(texts):
    sketch = sketcher(shingle=5, near=False)
    return band_values(sketch(normalise(pa.RecordBatch.from_pydict({"text": texts})))["sketch"])


def some_text(seed, words=200):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def test_threshold_ignores_order_and_other_groups():
    groups, sizes = names(4000), np.full(4000, 10)
    held = {group for group, out in zip(groups, choose_split(groups, sizes, 0.1).validation, strict=True) if out}
    assert 300 < len(held) < 500
    assert held == {group for group in groups if group < 0.1 * 2**64}
    fewer = np.concatenate([groups[:2999:-1], groups[:2000]])
    assert {
        group for group, out in zip(fewer, choose_split(fewer, sizes[:3000], 0.1).validation, strict=True) if out
    } == held & set(fewer)


@pytest.mark.parametrize("seed", range(20))
def test_few_large_documents_give_about_the_share_of_bytes(seed):
    sizes = np.random.default_rng(seed).integers(100_000, 2_000_000, size=73)
    split = choose_split(names(73, seed), sizes, 0.05)
    assert split.ends == {}
    assert 0.025 <= sizes[split.validation].sum() / sizes.sum() <= 0.0525


def test_a_huge_group_does_not_swallow_the_share():
    sizes = np.full(2000, 10)
    groups = names(2000)
    sizes[int(np.argmin(groups))] = 50_000
    split = choose_split(groups, sizes, 0.05)
    assert 0.025 <= sizes[split.validation].sum() / sizes.sum() <= 0.0525


@pytest.mark.parametrize("count", range(2, 12))
def test_few_short_documents_are_divided_whole(count):
    split = choose_split(names(count), np.full(count, 1000), 0.05)
    assert split.ends == {}
    assert split.validation.sum() == 1


@pytest.mark.parametrize("count", range(2, 20))
def test_few_long_documents_give_their_ends(count):
    split = choose_split(names(count), np.full(count, 100_000), 0.05)
    assert not split.validation.any()
    cut = min(count, 8)
    assert len(split.ends) == cut
    assert set(split.ends.values()) == {5000 * count // cut}
    assert split.rule == f"the ends of the {cut} largest documents"


def test_documents_give_their_ends_in_proportion():
    split = choose_split(names(4), np.array([40_000, 30_000, 20_000, 20_000]), 0.05)
    assert not split.validation.any()
    assert split.ends == {0: 2000, 1: 1500, 2: 1000, 3: 1000}


def test_fewer_documents_are_cut_where_the_ends_of_all_would_be_scraps():
    split = choose_split(names(12), np.full(12, 5000), 0.05)
    assert not split.validation.any()
    assert split.ends == dict.fromkeys(range(6), 500)


def test_two_small_groups_are_held_out_rather_than_one_large():
    sizes = np.array([875, 55, 70])
    split = choose_split(names(3), sizes, 0.1)
    assert sizes[split.validation].tolist() == [55, 70]
    assert split.rule == "the two smallest groups that fill the share"
    assert split.ends == {}


def test_two_of_many_equal_documents_are_held_out_whole():
    split = choose_split(names(24), np.full(24, 100_000), 0.05)
    assert (split.validation.sum(), split.ends) == (2, {})


def test_a_document_with_a_near_copy_is_not_cut():
    groups = names(3)
    split = choose_split(groups[[0, 1, 1, 2]], np.array([10_000, 30_000, 30_000, 10_000]), 0.05)
    assert sorted(split.ends) == [0, 3]
    assert not split.validation.any()


def test_a_small_document_beside_a_huge_one_does_not_make_the_whole_validation():
    split = choose_split(names(2), np.array([100, 1_000_000]), 0.05)
    assert list(split.ends) == [1]
    assert 40_000 < split.ends[1] <= 50_000
    assert split.validation.tolist() == [True, False]


def test_one_document_is_cut():
    split = choose_split(names(1), np.array([1000]), 0.1)
    assert (split.ends, split.validation.any()) == ({0: 100}, False)


def test_cut_text():
    text = "".join(f"line {number}\n" for number in range(100, 200))
    train, end = cut_text(text, 0.1)
    assert train + end == text
    assert end == "".join(f"line {number}\n" for number in range(190, 200))
    assert cut_text("one two three four", 0.3) == ("one two three ", "four")
    assert cut_text("abcdefghij", 0.2) == ("abcdefgh", "ij")
    with pytest.raises(TilthError, match="too short"):
        cut_text("a \n", 0.5)


def test_near_copies_are_one_group_and_others_are_not():
    base = some_text(1)
    edited = base.replace(base.split()[50], "changed").upper()
    texts = [some_text(2), base, some_text(3), edited, some_text(4)]
    assert groups_of(texts).tolist() == [0, 1, 2, 1, 4]
    assert groups_of(["ab", "AB ", "ba"]).tolist() == [0, 0, 2]


def test_groups_follow_chains():
    words = some_text(5, 300).split()
    texts = [" ".join(words[: 300 - 15 * step]) for step in range(10)]
    assert set(groups_of(texts).tolist()) == {0}


def test_sketches_do_not_depend_on_the_batch():
    texts = [some_text(seed, words) for seed, words in enumerate((3, 200, 5, 40, 4, 1000))]
    assert sketches_of(texts).tolist() == [sketches_of([text])[0].tolist() for text in texts]


def test_normalised_text_does_not_depend_on_where_it_is_read_in_spans(monkeypatch):
    text = "  Two  words\n\tand Straße\u00a0MORE " * 40
    expected = " ".join(text.casefold().split())
    assert normalised(text) == expected
    monkeypatch.setattr("tilth.corpus.normalise._SPAN", 7)
    assert normalised(text) == expected


def test_the_name_of_a_group_is_that_of_its_smallest_digest_in_any_order():
    digests = np.random.default_rng(0).integers(0, 256, (60, 16), np.uint8)
    labels = np.arange(60) % 7
    found = name_groups(labels, digests)
    for label in range(7):
        least = min(row.tobytes() for row in digests[labels == label])
        expected = int(hashlib.blake2b(b"group" + least, digest_size=8).hexdigest(), 16)
        assert set(found[labels == label].tolist()) == {expected}
    order = np.random.default_rng(1).permutation(60)
    assert (name_groups(np.unique(labels[order] + 3, return_inverse=True)[1], digests[order]) == found[order]).all()
    assert name_groups(labels[:0], digests[:0]).tolist() == []


def test_leak_check_finds_a_planted_leak(tmp_path):
    def write(side, rows):
        (tmp_path / side).mkdir()
        documents = [{"id": i, "text": t, "source": "s", "group": g, "metadata": "{}"} for i, t, g in rows]
        parquet.write_table(
            pa.Table.from_pylist(documents, schema=DOCUMENT_SCHEMA), tmp_path / side / "part-00000.parquet"
        )

    long = "Straße and  some\nmore words " * 10
    write(
        "train", [("a", "Same  text", "g1"), ("b", "other", "g2"), ("e", f" {long}\n", "g4"), ("f", long + "x", "g5")]
    )
    write("validation", [("c", "same text", "g3"), ("d", "new", "g2"), ("g", long.upper(), "g6")])
    assert check_leaks(tmp_path) == {"groups_on_both_sides": 1, "texts_on_both_sides": 2}


def test_documents_of_another_size_on_one_side_are_told():
    sizes = np.array([100] * 10 + [1000] * 10)
    validation = np.zeros(20, bool)
    validation[:5] = True
    (told,) = _note_of_sizes(Split(validation, "a rule"), sizes)
    assert told.startswith("documents in validation have 100 bytes on average, the others 700")
    validation[10:15] = True
    assert _note_of_sizes(Split(validation, "a rule"), sizes) == []
    assert _note_of_sizes(Split(np.zeros(20, bool), "a rule", {3: 20}), sizes) == []


def test_near_copies_without_spaces_between_words_are_one_group():
    """Each ideograph, kana or Thai letter is a word of its own to a sketch."""
    rng = np.random.default_rng(0)
    for first in (0x4E00, 0x3041, 0x0E01):
        texts = ["".join(map(chr, rng.integers(first, first + 40, 2000))) for _ in range(3)]
        copy = texts[0][:1900] + texts[1][:100]
        groups = groups_of([*texts, copy])
        assert groups[3] == groups[0] and len(set(groups.tolist())) == 3
