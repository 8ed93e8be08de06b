import contextlib
import io

import pytest

from tilth.progress import progress_bar


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
