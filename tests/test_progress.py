import contextlib
import io
import json
import re

import pytest

from tilth.progress import progress_bar, progress_events, progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal()


def test_a_terminal_shows_percent_and_figures(terminal):
    with contextlib.redirect_stderr(terminal), progress_bar("Reading", 200, "rows") as update:
        update(100, loss="3.21", gap="0.1")
    assert "Reading" in terminal.getvalue()
    assert "50.0 %" in terminal.getvalue()
    assert "loss 3.21  gap 0.1" in terminal.getvalue()


def test_an_unknown_total_shows_the_amount(terminal):
    with contextlib.redirect_stderr(terminal), progress_bar("Reading", None, "rows") as update:
        update(12_345)
    assert "12,345 rows" in terminal.getvalue()


def test_a_hidden_bar_prints_nothing(terminal):
    with contextlib.redirect_stderr(terminal), progress_bar("Reading", 200, "rows", shown=False) as update:
        update(100)
    assert terminal.getvalue() == ""


def test_what_is_no_terminal_gets_no_bar():
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), progress_bar("Reading", 200, "rows") as update:
        update(100, loss="3.21")
    assert stream.getvalue() == ""


def test_counts_by_reason_are_shown_with_the_most_frequent(terminal):
    with contextlib.redirect_stderr(terminal), progress_bar("Reading", 200, "bytes") as update:
        update(100, kept=1234, dropped={"empty": 3, "duplicate": 1000}, rejected={})
    assert "kept 1,234  dropped 1,003 (1,000 duplicate)" in terminal.getvalue()
    assert "rejected" not in terminal.getvalue()


def test_events_are_lines_of_json_for_what_is_no_terminal(monkeypatch):
    monkeypatch.setattr("tilth.progress._EVENT_SECONDS", 0.0)
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), progress_events(), progress_bar("Reading", 200, "bytes") as update:
        update(50)
        update(200, kept=12, dropped={"empty": 3})
    first, last = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["stage"], first["done"], first["total"]) == ("progress", "Reading", 50, 200)
    assert (last["done"], last["kept"], last["dropped"]) == (200, 12, {"empty": 3})
    with contextlib.redirect_stderr(stream), progress_bar("Reading", 200, "bytes") as update:
        update(200)
    assert len(stream.getvalue().splitlines()) == 2


def line(width: int, left: float | None = 2349.0, **changes) -> str:
    values = {"share": 0.25, "rate": "", "figures": {"loss": "3.214", "held-out": "3.402", "rate": "12,345 tokens/s"}}
    return progress_line("Pre-training", "25.0 %", elapsed=781.0, left=left, width=width, **(values | changes)).plain


def test_what_is_least_needed_is_left_out_of_a_narrow_terminal():
    most = "25.0 %  0:39:09 left  loss 3.214  held-out 3.402"
    assert line(200) == f"Pre-training  {'━' * 24}  {most}  12,345 tokens/s  0:13:01 elapsed"
    assert line(80) == f"Pre-training  {most}  12,345 tokens/s"
    assert line(76) == f"Pre-training  {'━' * 12}  {most}"
    assert line(60) == f"Pre-training  {'━' * 12}  25.0 %  0:39:09 left  loss 3.214"
    assert line(24) == "Pre-training  25.0 %"


@pytest.mark.parametrize("left", [None, 5.0, 400_000.0])
def test_a_line_never_exceeds_the_terminal(left):
    documents = {"share": None, "rate": "1,234,567 documents/s", "figures": {"tokens": "123,456,789"}}
    for width in range(20, 201):
        assert len(line(width, left)) <= width
        assert len(line(width, None, **documents)) <= width


def test_without_an_estimate_no_time_is_called_left():
    text = line(80, None, figures={})
    assert "left" not in text
    assert text == f"Pre-training  {'━' * 24}  25.0 %  0:13:01 elapsed"


def test_a_bar_of_80_columns_is_one_line_with_its_times(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stderr(terminal), progress_bar("Tokenizing", 2_000_000, "documents") as update:
        update(1_000_000, tokens="1,234,567,890")
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue())
    assert plain.count("\n") == 1 and plain.endswith("\n")
    last = plain.strip().rpartition("\r")[2]
    assert last == f"Tokenizing  {'━' * 21}  50.0 %  tokens 1,234,567,890  0:00:00 elapsed"
