"""Lines that are not text go, lines of text stay, and the metadata say how much went."""

import pytest

from tilth.corpus.filters.boilerplate import is_boilerplate
from tilth.corpus.filters.lines import lines
from tilth.errors import UsageError

BOILERPLATE = """
Share on Facebook
Share this:
SHARE THIS ARTICLE
Tweet
Follow us on Twitter
Sign up for our newsletter
Log in to your account
Read more
Read more...
Skip to main content
Leave a Reply
Leave a comment
12 Comments
Comments (12)
Privacy Policy
Terms of Service
Advertisement
You may also like
Related articles
« Older posts
Print this page
Menu
[Menu]
JavaScript must be enabled to use this site.
Please enable JavaScript in your browser
We use cookies to give you the best experience.
By using this site you agree to the use of cookies.
Accept all cookies
Cookie settings
All rights reserved.
© 2019 Example Media Ltd.
Copyright 2021 The Daily News
Please disable your ad blocker
Powered by WordPress
""".strip().split("\n")

TEXT = """
"Follow me."
Like it or not, the share of the crop fell.
Share it.
Read the whole letter to him
Mother baked cookies for the children.
The cookies were on the table.
She wrote a book on JavaScript for beginners.
Search for the lost key went on
The copyright of the song was sold in 1921.
Tags were sewn on all coats
Menu prices rose by a third
Save the whales
View from the tower
12 of them came
Next morning
Powered by steam, the ship set out.
""".strip().split("\n")


@pytest.mark.parametrize("line", BOILERPLATE)
def test_boilerplate_goes(line):
    assert is_boilerplate(line)


@pytest.mark.parametrize("line", TEXT)
def test_text_stays(line):
    assert not is_boilerplate(line)


def test_what_was_removed_is_said(run):
    result = run(lines(), "A text.\n  Share on Facebook \nIt goes on.", "A text.\n\nNothing goes.")
    assert result.texts == ["A text.\nIt goes on.", "A text.\n\nNothing goes."]
    assert result.metadata == [{"removed_boilerplate": 21}, {}]
    assert result.dropped == [None, None]


def test_a_page_of_boilerplate_is_dropped_and_an_empty_text_is_not_ours(run):
    assert run(lines(), "Menu\n\nShare\nLogin", "", " \n").dropped == ["only_boilerplate", None, None]


def test_long_lines_are_text(run):
    banner = "We use cookies to make this better. "
    assert run(lines(), "x\n" + banner * 6, "x\n" + banner * 7).texts == ["x", "x\n" + banner * 7]


def test_repeated_lines_stay_where_they_are_first(run):
    head, short = "The Journal of Soil 7", '"Yes," she said.'
    text = "\n".join([short, head, "a", f"  {head}", short, "b", head, short])
    result = run(lines(), text)
    assert result.texts == ["\n".join([short, head, "a", short, "b", short])]
    assert result.metadata == [{"removed_repeated": 2 * len(head) + 2 + 2}]
    twice = f"{head}\na\n{head}"
    assert run(lines(), twice).texts == [twice]
    assert run(lines(repeats=2), twice).texts == [f"{head}\na"]
    assert run(lines(repeats=2, repeated_from=22), twice).texts == [twice]
    assert run(lines(repeats=None), text).texts == [text]
    assert run(lines(repeats=3, repeated_from=16), text).metadata == [{"removed_repeated": 46 + 34}]


def test_boilerplate_can_be_left(run):
    assert run(lines(boilerplate=False), "a\nShare\nb").texts == ["a\nShare\nb"]


def test_odd_texts(run, odd_text):
    result = run(lines(repeats=2), odd_text)
    assert len(odd_text) - len(result.texts[0]) == sum(result.metadata[0].values())


def test_wrong_settings():
    with pytest.raises(UsageError, match="repeats is 1"):
        lines(repeats=1)


def test_novels_lose_next_to_nothing(run, novels):
    result = run(lines(), *novels)
    assert result.dropped == [None] * 73
    removed = sum(sum(facts.values()) for facts in result.metadata)
    assert removed < 1e-4 * sum(map(len, novels))


def test_time_is_linear_in_hostile_texts(run, seconds):
    for line in (
        "share " * 13,
        "use a b " * 31,
        "using b cookie " * 16,
        "disable ad " * 22,
        "© " * 125,
        "copyright " * 25,
    ):
        assert seconds(run, lines(), f"{line}\n" * (1_000_000 // len(line))) < 3, line
    assert seconds(run, lines(), "cookie " * 700_000) < 1
