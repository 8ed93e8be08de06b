"""Near-duplicates: how well they are joined, and documents that another corpus has."""

import json
import random

import numpy as np
import pytest

from tilth.corpus import joining
from tilth.corpus.card import card_markdown
from tilth.corpus.joining import choose_sample, measure_joining
from tilth.errors import TilthError, UsageError

WORDS = [f"w{number}" for number in range(3000)]


def some_text(seed: int, words: int = 200) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def changed(words: list[str], rate: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [word if rng.random() > rate else "other" for word in words]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def test_pairs_are_those_of_exact_similarity():
    texts = [" ".join(changed(some_text(n // 3), 0.006 * (n % 3), n)) for n in range(60)] + ["Few", "few", "", "a b"]
    joined = np.array([n // 3 for n in range(60)] + [60, 61, 62, 63])
    joined[:3], joined[5] = (0, 1, 2), 7  # three pairs that are missed, and some that are joined wrongly
    sets = [shingles(text) for text in texts]
    pairs = [(a, b) for a in range(64) for b in range(a)]
    similar = {(a, b) for a, b in pairs if len(sets[a] & sets[b]) >= 0.75 * len(sets[a] | sets[b])}
    together = {(a, b) for a, b in pairs if joined[a] == joined[b]}
    assert 20 < len(similar) < 60 and (61, 60) in similar
    found = measure_joining(texts, joined, 5)
    assert (found.similar, found.joined, found.both) == (len(similar), len(together), len(similar & together))
    told = found.to_json()
    assert told["precision"] == pytest.approx(len(similar & together) / len(together), abs=1e-4) and told["recall"] < 1
    assert measure_joining([], np.zeros(0, np.int64), 5).to_json()["precision"] is None


def test_a_sample_is_bounded_and_keeps_clusters_together(monkeypatch):
    rng = np.random.default_rng(0)
    clusters = np.arange(10_000)
    clusters[1::2] = clusters[::2]
    clusters[:4000] = 0
    clusters[9000:] = np.arange(9000, 10_000)
    digests = rng.integers(0, 256, (10_000, 16), np.uint8)
    sizes = np.full(10_000, 1000)
    sample = choose_sample(clusters, sizes, digests)
    members = np.bincount(clusters)[clusters[sample]]
    assert len(sample) == 2000 and (np.diff(sample) > 0).all()
    assert (members == 1).sum() == 500 and (members == 4000).sum() in (0, 300)
    pairs = clusters[sample][members == 2]
    assert len(set(pairs.tolist())) in (len(pairs) // 2, len(pairs) // 2 + 1)  # one pair may be cut by the bound
    assert choose_sample(clusters, sizes, digests).tolist() == sample.tolist()
    monkeypatch.setattr(joining, "MOST_BYTES", 100_500)
    assert len(choose_sample(clusters, sizes, digests)) == 100
    assert choose_sample(np.zeros(0, np.int64), np.zeros(0, np.int64), digests[:0]).tolist() == []


@pytest.fixture
def raw(tmp_path):
    """300 documents, of which the first 60 have one more copy each, with ever more of its words changed."""
    texts = {f"{n}": " ".join(some_text(n)) for n in range(300)}
    texts |= {f"{n}-copy": " ".join(changed(some_text(n), 0.0007 * n, n)) for n in range(1, 60)}
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    return tmp_path / "raw.jsonl", texts


def test_the_card_says_how_well_near_duplicates_were_joined(raw, build, documents):
    path, texts = raw
    assert "near_duplicates" not in build(path).card
    corpus = build(path, near_duplicates="drop")
    kept = documents(corpus).keys()
    dropped = corpus.card["dropped"]["near_duplicate"]
    twins = {name: (shingles(texts[name]), shingles(texts[name[:-5]])) for name in texts if name.endswith("-copy")}
    near = {name for name, (one, other) in twins.items() if len(one & other) >= 0.75 * len(one | other)}
    found = corpus.card["near_duplicates"]
    exact = corpus.card["dropped"].get("duplicate", 0)
    right = len({name for name in near if name not in kept}) - exact
    assert found["pairs"] == {"similar": len(near) - exact, "joined": dropped, "both": right}
    assert found["recall"] == round(right / (len(near) - exact), 4) > 0.8
    assert found["precision"] == round(right / dropped, 4) > 0.8
    assert f"recall {found['recall']:.1%}" in card_markdown(corpus.card)
    assert corpus.card == build(path, near_duplicates="drop", workers=2).card


def test_documents_of_another_corpus_are_not_wanted_again(raw, build, documents, tmp_path):
    path, texts = raw
    kept = build(path).card["kept"]
    (tmp_path / "out").rename(tmp_path / "old")
    new = {f"new-{n}": " ".join(some_text(1000 + n)) for n in range(50)}
    again = {"again": texts["100"].upper() + "  ", "nearly": " ".join([*some_text(200), "more"]), **new}
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps({"id": n, "text": text}) for n, text in again.items()))
    corpus = build(tmp_path / "more.jsonl", known=[str(tmp_path / "old")])
    assert corpus.card["dropped"] == {"known": 1} and documents(corpus).keys() == {"nearly", *new}
    for workers in (None, 2):
        options = {"known": [str(tmp_path / "old")], "near_duplicates": "drop", "workers": workers}
        corpus = build(tmp_path / "more.jsonl", **options)
        assert corpus.card["dropped"] == {"known": 2} and documents(corpus).keys() == new.keys()
        assert (corpus.card["in"], corpus.card["kept"]) == (52, 50)
    (known,) = corpus.card["known"]
    assert known["documents"] == kept and len(known["fingerprint"]) == 16
    assert sorted(item.name for item in tmp_path.iterdir()) == ["more.jsonl", "old", "out", "raw.jsonl"]


def test_known_corpora_that_do_not_help_are_told(raw, build, tmp_path):
    path, _ = raw
    with pytest.raises(TilthError, match="is not a corpus"):
        build(path, known=[str(tmp_path)])
    build(path)
    with pytest.raises(UsageError, match="in the output folder"):
        build(path, known=[str(tmp_path / "out")])
    (tmp_path / "out").rename(tmp_path / "old")
    with pytest.raises(TilthError, match="no document is left"):
        build(path, known=[str(tmp_path / "old")])
    part = next((tmp_path / "old" / "train").iterdir())
    content = bytearray(part.read_bytes())
    content[100:5000] = bytes(4900)
    part.write_bytes(content)
    with pytest.raises(TilthError, match=r"known corpus is damaged|does not match"):
        build(path, known=[str(tmp_path / "old")])


def test_documents_that_were_cut_are_known(build, tmp_path):
    texts = [" ".join(f"word{number * seed % 997}" for number in range(2000)) for seed in range(1, 6)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": each}) for each in texts))
    card = build(tmp_path / "a.jsonl").card
    assert card["splits"]["validation"]["documents"] == 5  # the ends of all
    (tmp_path / "out").rename(tmp_path / "old")
    (tmp_path / "b.jsonl").write_text(
        "\n".join(json.dumps({"text": each}) for each in [*texts, "new " * 50, "other " * 50])
    )
    assert build(tmp_path / "b.jsonl", known=[str(tmp_path / "old")]).card["dropped"] == {"known": 5}
