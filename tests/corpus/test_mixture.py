"""Shares of sources in the training split: by weight or temperature, with a cap on repetition."""

import json
import random
from collections import Counter
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from tilth.corpus.card import card_markdown
from tilth.corpus.card_text import render_card
from tilth.corpus.mixture import choose_mixture
from tilth.corpus.settings import CorpusSettings, load_corpus_settings
from tilth.errors import TilthError, UsageError


def write(path, count: int, seed: int, words: int = 50) -> None:
    rng = random.Random(seed)
    texts = [" ".join(f"{seed}w{rng.randrange(10**5)}" for _ in range(words)) for _ in range(count)]
    lines = [json.dumps({"id": f"{path.stem}/{n}", "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines))


@pytest.fixture
def sources(tmp_path):
    """`big` has 1,600 documents, `small` 400, all of about the same size."""
    write(tmp_path / "big", 1600, 1)
    write(tmp_path / "small", 400, 2)
    return tmp_path / "big", tmp_path / "small"


def trained(corpus) -> Counter[str]:
    return Counter(document.source for document in corpus.documents("train"))


def test_weights_are_reached_by_repeating_and_leaving_out(sources, build):
    plain = build(*sources)
    before, held = trained(plain), {document.id for document in plain.documents("validation")}
    small_ids = {document.id for document in plain.documents("train") if document.source == "small"}
    corpus = build(*sources, mixture={"big": 0.5, "small": 0.5})
    card, after = corpus.card, trained(corpus)
    big, small = card["mixture"]["sources"]
    assert (big["asked"], small["asked"]) == (0.5, 0.5)
    total = before["big"] + before["small"]
    assert big["epochs"] == pytest.approx(total / 2 / before["big"], rel=0.05)
    assert small["epochs"] == pytest.approx(total / 2 / before["small"], rel=0.05)
    assert big["epochs"] == pytest.approx(after["big"] / before["big"], rel=0.005)
    assert small["epochs"] == pytest.approx(after["small"] / before["small"], rel=0.005)
    assert big["reached"] == pytest.approx(0.5, abs=0.02) and big["reached"] + small["reached"] == pytest.approx(1)
    assert after["small"] / after.total() == pytest.approx(small["reached"], abs=0.005)
    assert after.total() == pytest.approx(total, rel=0.03)
    assert {document.id for document in corpus.documents("validation")} == held
    dropped = before["big"] - after["big"]
    assert card["dropped"] == {"mixture": dropped} and card["sources"][0]["dropped"] == {"mixture": dropped}
    assert (card["in"], card["kept"]) == (2000, 2000 - dropped)
    ids = [document.id for document in corpus.documents("train")]
    names = Counter(name.partition("#")[0] for name in ids)
    assert len(set(ids)) == len(ids) and set(names.values()) == {1, 2, 3}
    assert sum(count - 1 for count in names.values()) == card["mixture"]["repeated_documents"]
    assert not any("#" in name for name in ids[: len(names)]) and ids[len(names)].endswith("#epoch2")
    texts = {document.id: document.text for document in corpus.documents("train")}
    assert all(text == texts[name.partition("#")[0]] for name, text in texts.items())
    assert {name for name in names if name.startswith("small")} == small_ids


def test_a_mixture_is_the_same_every_time_and_on_the_cards(sources, build):
    weights = {"big": 1, "small": 3}
    first = build(*sources, mixture=weights, max_epochs=2)
    second = build(*sources, mixture=weights, max_epochs=2, workers=2)
    assert first.card == second.card
    big, small = first.card["mixture"]["sources"]
    assert (small["asked"], small["epochs"], big["asked"]) == (0.75, 2.0, 0.25)
    # 0.75 would need 3.75 epochs; at two of them, `big` makes up the amount of text.
    assert small["reached"] == pytest.approx(0.4, abs=0.02) and small["reached"] + big["reached"] == pytest.approx(1)
    assert big["epochs"] == pytest.approx(0.75, abs=0.04)
    assert trained(first).total() == pytest.approx(1900, rel=0.03)
    assert [note.partition(" would")[0] for note in first.card["notes"]] == ["mixture: small"]
    assert "| small | 75.0% |" in card_markdown(first.card)
    console = Console(file=StringIO(), width=100)
    console.print(render_card(first.card, first.path))
    assert "75.0% asked for, 2.00 epochs" in console.file.getvalue()


def test_a_source_without_training_text_is_not_said_to_be_at_its_cap():
    digests = np.random.default_rng(0).integers(0, 256, (10, 16), np.uint8)
    settings = CorpusSettings(mixture={"a": 1, "b": 1})
    mixture = choose_mixture(["a", "b"], np.ones(10, int), np.full(10, 10), digests, settings)
    assert mixture.copies.tolist() == [1] * 10 and mixture.note([]) == []


def test_a_temperature_near_zero_takes_the_largest_source():
    member = np.repeat([0, 1], [900, 100])
    digests = np.random.default_rng(0).integers(0, 256, (1000, 16), np.uint8)
    for temperature in (0.01, 1e-6):
        settings = CorpusSettings(temperature=temperature)
        found = choose_mixture(["a", "b"], member, np.full(1000, 10**9), digests, settings)
        assert found.asked == pytest.approx([1, 0])
        assert found.copies[member == 0].sum() == pytest.approx(1000, abs=30) and not found.copies[member == 1].any()


def test_a_temperature_flattens_the_sizes():
    member = np.repeat([0, 1], [900, 100])
    digests = np.random.default_rng(0).integers(0, 256, (1000, 16), np.uint8)
    sizes = np.full(1000, 10)

    def mixture(temperature: float, **more):
        return choose_mixture(["a", "b"], member, sizes, digests, CorpusSettings(temperature=temperature, **more))

    assert mixture(1).asked.tolist() == [0.9, 0.1] and mixture(1).copies.tolist() == [1] * 1000
    assert mixture(2).asked == pytest.approx([0.75, 0.25])
    assert mixture(2).epochs == pytest.approx([750 / 900, 2.5])
    assert mixture(2).copies[member == 1].tolist().count(2) + mixture(2).copies[member == 1].tolist().count(3) == 100
    assert mixture(1e9).asked == pytest.approx([0.5, 0.5])
    assert mixture(1e9, max_epochs=4).epochs == pytest.approx([600 / 900, 4.0])
    more, less = (choose_mixture(["a", "b"], member, sizes, digests, CorpusSettings(mixture=weights)).copies
                  for weights in ({"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.4}))  # fmt: skip
    assert (more[member == 0] <= less[member == 0]).all() and (more[member == 1] >= less[member == 1]).all()


def test_what_a_capped_source_lacks_goes_to_the_others():
    sizes = np.array([6000, 3000, 900, 100])
    member = np.repeat(np.arange(4), sizes // 10)
    digests = np.random.default_rng(0).integers(0, 256, (1000, 16), np.uint8)

    def mixture(weights: list[float], most: float):
        settings = CorpusSettings(mixture=dict(zip("abcd", weights, strict=True)), max_epochs=most)
        return choose_mixture(list("abcd"), member, np.full(1000, 10), digests, settings)

    # Of 10,000: d is capped at 200, then c, whose share of the rest is 3,500 of 9,800, at 1,800; a and b have 8,000.
    found = mixture([1, 1, 1, 1], 2)
    assert (found.epochs * sizes).tolist() == pytest.approx([4000, 4000, 1800, 200])
    assert found.capped == ["c", "d"] and found.short == 0
    assert [int(found.copies[member == source].sum()) * 10 for source in (2, 3)] == [1800, 200]
    # b is below its cap at first, and above it once it gets a part of what c and d lack.
    found = mixture([1, 5, 2, 2], 2)
    assert (found.epochs * sizes).tolist() == pytest.approx([2000, 6000, 1800, 200])
    assert found.capped == ["b", "c", "d"] and "share what is missing" in found.note([])[0]
    found = mixture([1, 1, 1, 1], 0.5)
    assert (found.epochs * sizes).tolist() == pytest.approx([3000, 1500, 450, 50])
    assert found.short == pytest.approx(0.5) and "50.0% of the training text is missing" in found.note([])[0]
    assert mixture([6, 3, 0.9, 0.1], 1).capped == []


def test_sources_of_one_name_are_one(build, tmp_path):
    for folder, seed in (("x", 1), ("y", 2)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "same", 300, seed)
    write(tmp_path / "other", 300, 3)
    corpus = build(
        tmp_path / "x" / "same", tmp_path / "y" / "same", tmp_path / "other", mixture={"same": 0.5, "other": 0.5}
    )
    assert [source["source"] for source in corpus.card["mixture"]["sources"]] == ["same", "other"]
    assert corpus.card["mixture"]["sources"][0]["reached"] == pytest.approx(0.5, abs=0.03)
    assert [source["kept"] + source["dropped"].get("mixture", 0) for source in corpus.card["sources"]] == [300] * 3


def test_words_may_be_what_is_weighed(build, tmp_path):
    write(tmp_path / "a", 500, 1)
    (tmp_path / "b").write_text("\n".join(json.dumps({"text": f"{n} " + "é " * (100 + n)}) for n in range(500)))
    words = build(tmp_path / "a", tmp_path / "b", mixture={"a": 0.5, "b": 0.5}, mixture_by="words")
    assert words.card["mixture"]["by"] == "words"
    texts = [(document.source, len(document.text.split())) for document in words.documents("train")]
    share = sum(count for source, count in texts if source == "a") / sum(count for _, count in texts)
    assert share == pytest.approx(words.card["mixture"]["sources"][0]["reached"], abs=1e-5)


def test_documents_that_are_cut_stay(build, tmp_path):
    write(tmp_path / "a", 1, 1, words=5000)
    write(tmp_path / "b", 1, 2, words=5000)
    corpus = build(tmp_path / "a", tmp_path / "b", mixture={"a": 0.9, "b": 0.1})
    assert corpus.card["kept"] == 2
    ids = [document.id for document in corpus.documents("train")]
    assert {name.partition("#")[0] for name in ids} == {"a/0", "b/0"}
    assert sorted(document.id for document in corpus.documents("validation")) == ["a/0#end", "b/0#end"]
    sizes = {document.source: len(document.text) for document in corpus.documents("train")}
    a, b = corpus.card["mixture"]["sources"]
    copies = sum(document.source == "a" for document in corpus.documents("train"))
    assert (a["epochs"], b["epochs"]) == pytest.approx((0.95 * copies, 0.95), abs=0.01)
    assert b["reached"] == pytest.approx(sizes["b"] / (sizes["b"] + copies * sizes["a"]), abs=0.01)
    assert any(
        note.startswith(f"mixture: it came to {a['reached']:.1%} of a, {b['reached']:.1%} of b")
        for note in corpus.card["notes"]
    )


def test_wrong_weights_are_told(sources, build):
    with pytest.raises(UsageError, match="there is no source 'bog'; the source 'big' has no weight; .* are big, small"):
        build(*sources, mixture={"bog": 1, "small": 1})
    for override, words in (
        ("mixture={a: 0}", "weights are above 0"),
        ("max_epochs=3", "max_epochs has no effect beside mixture"),
    ):
        with pytest.raises(UsageError, match=words):
            load_corpus_settings(None, [override])
    with pytest.raises(UsageError, match="temperature has no effect beside mixture"):
        load_corpus_settings(None, ["mixture={a: 1}", "temperature=2"])
    assert load_corpus_settings(None, ["mixture={a.jsonl: 0.7}"]).mixture == {"a.jsonl": 0.7}


def test_a_mixture_that_leaves_nothing_is_an_error(build, tmp_path):
    write(tmp_path / "a", 30, 1)
    write(tmp_path / "b", 30, 2)
    with pytest.raises(TilthError, match="leaves no document to train on"):
        build(tmp_path / "a", tmp_path / "b", mixture={"a": 1, "b": 1}, max_epochs=1e-9)
