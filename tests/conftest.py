"""What all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would reach for the network fails at once

# The same examples every time, and no verdict that depends on how busy the machine is.
hypothesis.settings.register_profile("tilth", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tilth")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; its SOURCES.md says what it is. The test is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not beside this checkout")
    return folder
