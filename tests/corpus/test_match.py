"""A corpus of two domains, matched to texts of one of them."""

import json
import random
from pathlib import Path

import pytest

import tilth
from tilth.corpus.match import match_corpus
from tilth.corpus.reader import open_corpus
from tilth.errors import UsageError

FARM = ["soil", "field", "plough", "harvest", "barley", "wheat", "rain", "seed"]
SEA = ["ship", "sail", "harbour", "anchor", "tide", "captain", "storm", "deck"]
COMMON = [f"w{number}" for number in range(60)]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def text(words, seed, size=60):
    choose = random.Random(seed)
    return " ".join(choose.choice(words if choose.random() < 0.25 else COMMON) for _ in range(size))


def write(path, texts, **more):
    rows = [{"id": f"{path.stem}-{number}", "text": text, **more} for number, text in enumerate(texts)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def corpus(tmp_path, build):
    farm = write(tmp_path / "farm.jsonl", [text(FARM, n) for n in range(150)], url="https://www.farm.example/a")
    sea = write(tmp_path / "sea.jsonl", [text(SEA, 1000 + n) for n in range(150)], url="https://sea.example/b")
    return build(sea, farm)


@pytest.fixture
def task(tmp_path):
    lines = ["text\tlabel", *(f"{text(FARM, 5000 + n, 20)}\tgood" for n in range(120))]
    (tmp_path / "task.tsv").write_text("\n".join(lines))
    return str(tmp_path / "task.tsv")


def test_the_right_source_is_nearest(corpus, task):
    found = match_corpus(corpus, task)
    assert [row["name"] for row in found["sources"]] == ["farm.jsonl", "sea.jsonl"]
    assert [(row["name"], row["documents"]) for row in found["hosts"]] == [("farm.example", 150), ("sea.example", 150)]
    assert found["sources"][0]["in_nearest_fifth"] == pytest.approx(0.4, abs=0.02)
    assert found["sources"][1]["in_nearest_fifth"] <= 0.02
    assert [row["source"] for row in found["nearest"] + found["farthest"]] == ["farm.jsonl"] * 5 + ["sea.jsonl"] * 5
    assert found["vocabulary"] == {"tokens": 1, "types": 1, "size": 76}
    assert 0.02 < found["divergence"]["low"] < found["divergence"]["value"] < found["divergence"]["high"] < 0.3
    assert found["task_halves"] < found["divergence"]["low"]
    assert 0.6 < found["two_sample"]["auc"]["low"] < found["two_sample"]["auc"]["value"] < 0.95
    assert found["verdict"].startswith("The corpus is ") and found["verdict"].count(". ") == 0
    assert "nearest is farm.jsonl, farthest sea.jsonl." in found["verdict"]
    assert match_corpus(corpus, task) == found


def test_the_nearest_half_is_the_right_half(corpus, task, tmp_path, documents):
    found = tilth.corpus_match(corpus.path, task, nearest=0.5, out=tmp_path / "half", progress=False)
    half = open_corpus(tmp_path / "half")
    names = [name.partition("-")[0] for name in documents(half)]
    assert found["selected"] == {"out": str(tmp_path / "half"), "in": 300, "kept": 150, "share": 0.5}
    assert names.count("farm") >= 135 and half.card["dropped"] == {"not_nearest": 150}
    assert half.card["settings"]["filters"] == {"nearest": {"paths": [task], "keep": 0.5}}
    assert (tmp_path / "half" / "card.html").is_file()
    assert {document.metadata["url"] for document in documents(half).values()} >= {"https://www.farm.example/a"}


def test_a_corpus_matched_to_text_of_its_own_kind(corpus, tmp_path):
    alike = [text(FARM, 7000 + n) for n in range(100)] + [text(SEA, 8000 + n) for n in range(100)]
    found = match_corpus(corpus, str(write(tmp_path / "alike.jsonl", alike)))
    auc = found["two_sample"]["auc"]
    assert auc["low"] < 0.5 < auc["high"] and auc["value"] < 0.6
    assert found["divergence"]["value"] < 0.01
    assert found["verdict"].startswith("The corpus is hardly to be told from the task's text")


def test_the_task_s_own_texts_in_the_corpus_are_no_better_than_chance(tmp_path, build):
    texts = [text(FARM, 7000 + n) for n in range(150)]
    own = write(tmp_path / "own.jsonl", texts)
    auc = match_corpus(build(own), str(own))["two_sample"]["auc"]
    assert auc["low"] <= 0.5 <= auc["high"] and auc["value"] == pytest.approx(0.5, abs=0.1)


def test_length_does_not_give_texts_away(corpus, tmp_path):
    short = [text(FARM if n % 2 else SEA, 9000 + n, 6) for n in range(300)]
    auc = match_corpus(corpus, str(write(tmp_path / "short.jsonl", short)))["two_sample"]["auc"]
    assert auc["low"] < 0.55 and auc["value"] < 0.62


def test_disjoint_text(corpus, tmp_path):
    foreign = [" ".join(f"x{(n * 7 + place) % 90}" for place in range(40)) for n in range(60)]
    found = match_corpus(corpus, str(write(tmp_path / "foreign.jsonl", foreign)))
    assert found["vocabulary"] == {"tokens": 0, "types": 0, "size": 76}
    assert found["divergence"]["value"] == 1 and found["two_sample"]["auc"]["value"] == 1
    assert found["verdict"].startswith("The corpus is far from the task's text")


def test_one_long_text_is_cut_and_a_column_is_named(corpus, tmp_path):
    book = {"chapter": " ".join(text(SEA, 100 + n, 1000) for n in range(40))}
    (tmp_path / "book.jsonl").write_text(json.dumps(book))
    with pytest.raises(UsageError, match=r"--to: book\.jsonl, line 1.*there is no column 'text'.*'chapter'"):
        match_corpus(corpus, str(tmp_path / "book.jsonl"))
    found = match_corpus(corpus, str(tmp_path / "book.jsonl"), text_column="chapter")
    assert found["sources"][0]["name"] == "sea.jsonl" and found["sampled"]["texts"] == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nearest": 0.2}, "give both, or neither"),
        ({"out": Path("x")}, "give both, or neither"),
        ({"nearest": 1.5, "out": Path("x")}, r"--nearest is 1\.5: give a share between 0 and 1"),
    ],
)
def test_wrong_use(corpus, task, given, words):
    with pytest.raises(UsageError, match=words):
        match_corpus(corpus, task, **given)


def test_few_broken_records_of_a_task_are_left_out(corpus, task, tmp_path, capsys):
    whole = Path(task).read_text() + "\n"
    rows = whole.count("\n") - 1  # but for the header
    broken = tmp_path / "broken.tsv"
    broken.write_text(whole + "one\ttoo\tmany\n" * 2)
    found = match_corpus(corpus, str(broken))
    assert found["sampled"]["texts"] == rows
    assert f"--to: broken.tsv, line {rows + 2}: 3 fields" in (told := capsys.readouterr().err)
    assert f"2 of {rows + 2} records were left out" in told
    broken.write_text(whole + "one\ttoo\tmany\n" * 40)
    with pytest.raises(UsageError, match=rf"--to: broken\.tsv, line .*; 40 of {rows + 40} records are broken"):
        match_corpus(corpus, str(broken))


def test_nothing_to_match(corpus, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UsageError, match="there is no text in"):
        match_corpus(corpus, str(tmp_path / "empty.txt"))
    with pytest.raises(UsageError, match="no such file"):
        match_corpus(corpus, str(tmp_path / "absent"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data in ../shared/data")
def test_abstracts_are_nearest_to_sentences_of_papers(build, tmp_path):
    """Text by text the abstracts are far more, and a classifier would put what is least like them nearest."""
    text_folder = SHARED / "text"
    corpus = build(text_folder / "english_novels", text_folder / "acl_abstracts", text_column="abstract")
    found = match_corpus(corpus, str(SHARED / "classify" / "citation_intent" / "train.txt"))
    assert [row["name"] for row in found["sources"]] == ["acl_abstracts", "english_novels"]
    assert found["sources"][1]["in_nearest_fifth"] == 0
    assert found["vocabulary"]["tokens"] == pytest.approx(0.855, abs=0.01)
    assert found["divergence"]["value"] == pytest.approx(0.255, abs=0.01)
    assert found["two_sample"]["auc"]["value"] > 0.95
