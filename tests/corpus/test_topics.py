"""Topics that are planted in a corpus are found, with their shares, words and documents."""

import random

import pytest

from tilth.corpus.sample import Sampled
from tilth.corpus.topics import MOST_TOPICS, find_topics
from tilth.corpus.unigrams import count_words

PLANTED = {
    "sea": "ship harbour sailor anchor tide captain deck rudder lighthouse mast",
    "kitchen": "flour butter oven dough sugar recipe whisk yeast pastry bowl",
    "court": "judge verdict appeal lawyer statute plaintiff ruling jury testimony bench",
}
GRAMMAR = ["the", "of", "and", "with", "for", "that", "this", "from", "have"]
OTHERS = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)]


def document(topic: str, number: int, length: int) -> Sampled:
    rng = random.Random(f"{topic} {number}")
    words = [rng.choice(rng.choice([GRAMMAR, GRAMMAR, OTHERS, PLANTED[topic].split()])) for _ in range(length)]
    text = " ".join(words)
    return Sampled(f"{topic}/{number}", text, len(text), "made", {})


@pytest.fixture
def documents():
    counts = {"sea": 30, "kitchen": 20, "court": 10}
    found = [document(topic, n, 60 if topic == "sea" else 120) for topic, count in counts.items() for n in range(count)]
    random.Random(0).shuffle(found)
    return found


def test_planted_topics_are_found(documents, monkeypatch):
    monkeypatch.setattr("tilth.corpus.topics.MOST_SHARE", 0.6)  # with three topics, a word of one is in many documents
    topics = find_topics(documents, count_words([each.text for each in documents]))
    assert [topic["documents"] for topic in topics] == [30 / 60, 20 / 60, 10 / 60]
    characters = sum(each.characters for each in documents)
    for topic, name in zip(topics, PLANTED, strict=True):
        assert set(topic["words"]) == set(PLANTED[name].split())
        inside = sum(each.characters for each in documents if each.id.startswith(name))
        assert topic["text"] == pytest.approx(inside / characters)
        assert len(topic["examples"]) == 2
        assert all(each["id"].startswith(f"{name}/") and each["text"] for each in topic["examples"])


def test_topics_are_the_same_every_time(documents):
    counted = count_words([each.text for each in documents])
    assert find_topics(documents, counted) == find_topics(documents, counted)


def test_topics_are_no_more_than_the_documents_bear(documents):
    few = documents[:30]
    assert find_topics(few, count_words([each.text for each in few])) == []
    assert find_topics([], count_words([])) == []
    empty = [Sampled(str(n), "", 0, "made", {}) for n in range(100)]
    assert find_topics(empty, count_words([""] * 100)) == []
    many = [document(topic, n, 60) for topic in PLANTED for n in range(200)]
    topics = find_topics(many, count_words([each.text for each in many]))
    assert len(topics) == MOST_TOPICS and sum(topic["documents"] for topic in topics) == pytest.approx(1)
