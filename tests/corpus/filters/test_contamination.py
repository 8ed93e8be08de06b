"""Texts of test sets are found in the corpus by runs of words, and how many is said."""

import gzip
import json
import unicodedata

import pytest

from tilth.corpus.clean import clean_text
from tilth.corpus.filters.contamination import contamination, found_items, read_evaluation_sets
from tilth.errors import UsageError

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SHORT = "a short question with just nine words in it"


def words(text, start, stop):
    return " ".join(text.split()[start:stop])


@pytest.fixture
def tests_file(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [{"question": ITEM, "answer": "yes"}, {"question": SHORT}, {"question": "too short to be found here"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_thirteen_words_in_a_row_are_a_match_whatever_case_and_signs(run, tests_file):
    texts = [
        f"Before. {words(ITEM, 0, 13)} after",
        f"{words(ITEM, 1, 14)}".upper().replace(" ", ", "),
        f"{words(ITEM, 0, 12)} other",
        f"{words(ITEM, 0, 6)} inserted {words(ITEM, 6, 14)}",
    ]
    assert run(contamination([tests_file]), *texts).dropped == ["contaminated", "contaminated", None, None]
    assert run(contamination([tests_file], ngram=12), *texts).dropped == ["contaminated"] * 3 + [None]


def test_a_text_is_found_in_whatever_form_of_unicode_it_is(run, tmp_path):
    sentence = "Les élèves français étudiaient déjà l'été à l'école près du théâtre où Noël avait joué"
    for form in ("NFC", "NFD"):
        (tmp_path / f"{form}.txt").write_text(unicodedata.normalize(form, sentence))
        text = clean_text(unicodedata.normalize("NFD", f"Before. {sentence}. After."))
        assert run(contamination([str(tmp_path / f"{form}.txt")]), text).dropped == ["contaminated"]


def test_shorter_texts_match_whole_and_the_shortest_not_at_all(run, tests_file):
    texts = [f"x {SHORT}!", words(SHORT, 0, 8), "It is too short to be found here."]
    assert run(contamination([tests_file]), *texts).dropped == ["contaminated", None, None]


def test_a_run_does_not_cross_documents(run, tests_file):
    assert run(contamination([tests_file]), words(ITEM, 0, 7), words(ITEM, 7, 14)).dropped == [None, None]


def test_the_share_at_both_sides(run, tests_file):
    filler = [f"w{number}" for number in range(41)]
    half = f"{words(ITEM, 0, 13)} {' '.join(filler[:13])}"
    less = f"{words(ITEM, 0, 13)} {' '.join(filler[:14])}"
    assert run(contamination([tests_file], min_share=0.5), half, less, "").dropped == ["contaminated", None, None]
    whole = run(contamination([tests_file], min_share=1), ITEM, f"{ITEM} more")
    assert whole.dropped == ["contaminated", None]


def test_what_was_found_is_reported(run, tests_file):
    result = run(contamination([tests_file], min_share=1), f"{ITEM} {SHORT}", f"other {SHORT}", "nothing")
    assert result.batch["test_items"].to_pylist() == [[0, 1], [1], []]
    found = found_items(result.batch)
    assert read_evaluation_sets([tests_file]).report(found) == {"items": 3, "found": 2, "too_short": 1}


def test_text_far_inside_a_large_document_is_found_where_pieces_meet(run, tests_file):
    for start in (994_950, 999_990, 1_000_000, 2_500_000):
        filler = "word " * (start // 5)
        result = run(contamination([tests_file]), f"{filler}{ITEM} {filler}")
        assert (result.dropped, found_items(result.batch)) == (["contaminated"], {0}), start


def test_formats(run, tmp_path):
    (tmp_path / "a.tsv").write_text(f'{ITEM}\t1\n"{SHORT}\t0\n')
    (tmp_path / "b.csv").write_text(f'id,text\n1,"{ITEM},\n{SHORT}"\n')
    (tmp_path / "c.txt").write_text(f"{ITEM}\n\n{SHORT}\n")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(json.dumps({"x": {"choices": [SHORT, ITEM]}}).encode()))
    reports = {}
    for path in sorted(tmp_path.iterdir()):
        result = run(contamination([str(path)]), f"a {ITEM}", f"b {SHORT}")
        reports[path.name] = read_evaluation_sets([str(path)]).report(found_items(result.batch)), result.dropped
    both = ["contaminated", "contaminated"]
    assert reports == {
        "a.tsv": ({"items": 2, "found": 2, "too_short": 0}, both),
        "b.csv": (
            {"items": 2, "found": 1, "too_short": 1},
            ["contaminated", None],
        ),  # one text of 23 words
        "c.txt": ({"items": 2, "found": 2, "too_short": 0}, both),
        "d.jsonl.gz": ({"items": 1, "found": 1, "too_short": 0}, both),
    }


def test_only_the_fields_that_are_named(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": ITEM, "prompt": SHORT}) + "\n")
    (tmp_path / "b.csv").write_text(f"text,prompt\n{ITEM},{SHORT}\n")
    for name in ("a.jsonl", "b.csv"):
        stage = contamination([str(tmp_path / name)], fields=["text"])
        assert run(stage, ITEM, SHORT).dropped == ["contaminated", None]


def test_files_that_cannot_be_used(tmp_path):
    def problem(name, content, **named):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError) as raised:
            read_evaluation_sets([str(tmp_path / name)], **named)
        return str(raised.value).replace(str(tmp_path), "")

    assert "line 2: not JSON" in problem("a.jsonl", b'{"a": "b"}\n{"a"\n')
    assert "not an object with text" in problem("a.jsonl", b'{"a": "b"}\n', fields=["text"])
    assert "has no column text; it has a, b" in problem("a.csv", b"a,b\n1,2\n", fields=["text"])
    assert "cannot be read: 'utf-8'" in problem("a.txt", b"\xff\n")
    assert "not a .jsonl, .csv, .tsv or .txt file" in problem("a.pdf", b"x")
    assert "no text of 8 words or more" in problem("a.txt", b"few words\n")
    assert "cannot be read" in problem("a.txt.gz", gzip.compress(b"few words\n" * 1000)[:-20])
    with pytest.raises(UsageError, match="No such file"):
        read_evaluation_sets([str(tmp_path / "absent.txt")])
    with pytest.raises(UsageError, match="ngram is 7"):
        contamination([str(tmp_path / "a.txt")], ngram=7)
    with pytest.raises(UsageError, match=r"paths is a list of the files of test sets"):
        contamination("/a/test.jsonl")
    with pytest.raises(UsageError, match=r"paths is a list of the files of test sets"):
        contamination([])
    with pytest.raises(UsageError, match="min_share is 2"):
        contamination([str(tmp_path / "a.txt")], min_share=2)


def test_odd_texts(run, tests_file, odd_text):
    assert run(contamination([tests_file]), odd_text).dropped == [None]


def test_a_planted_item_is_all_that_is_found(run, shared_data, novels):
    path = str(shared_data / "eval" / "lambada" / "lambada_openai.jsonl")
    with open(path, encoding="utf-8") as file:
        item = [json.loads(line)["context"] for line in file][77]
    planted = novels[1][:300_000] + item + novels[1][300_000:]
    result = run(contamination([path]), novels[0], planted, novels[2])
    assert result.dropped == [None, "contaminated", None]
    assert read_evaluation_sets([path]).report(found_items(result.batch)) == {"items": 5153, "found": 1, "too_short": 0}
