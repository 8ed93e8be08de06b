"""A short trial of a benchmark need not write over its page of results."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

if not BENCHMARKS.is_dir():
    pytest.skip("needs the benchmarks, which are not beside these tests", allow_module_level=True)


@pytest.mark.parametrize("name", ["damage", "kill_anywhere", "planted_faults", "save_stall"])
def test_the_page_of_results_can_be_named(name):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "--results RESULTS" in done.stdout


def test_a_short_trial_writes_elsewhere(tmp_path):
    page = BENCHMARKS / "results" / "damage.md"
    before = page.read_bytes()
    command = [sys.executable, str(BENCHMARKS / "damage.py"), "--trials", "3", "--results", str(tmp_path / "page.md")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "3 trials, seed 0: 3 noticed" in (tmp_path / "page.md").read_text()
    assert page.read_bytes() == before
