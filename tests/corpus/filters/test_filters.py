"""The table of filters."""

import inspect

from tilth.corpus.card import DROPPED
from tilth.corpus.filters import FILTERS


def test_the_table():
    assert list(FILTERS) == [
        "language",
        "lines",
        "c4",
        "quality",
        "words",
        "like",
        "nearest",
        "contamination",
        "personal",
    ]
    assert all(name == each.name and each.version >= 1 for name, each in FILTERS.items())


def test_reasons_are_told_apart():
    reasons = [reason for each in FILTERS.values() for reason in each.reasons]
    assert len(set(reasons)) == len(reasons) == 35
    assert not set(reasons) & set(DROPPED)


def test_filters_take_named_parameters_of_json():
    needed = {("words", "path"), ("contamination", "paths"), ("like", "scorer"), ("nearest", "scorer")}
    for each in FILTERS.values():
        for parameter in inspect.signature(each.make).parameters.values():
            if (each.name, parameter.name) not in needed:
                assert parameter.default is not inspect.Parameter.empty, (each.name, parameter.name)
