"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run of CI: a change is judged by itself, and new examples are looked for at home.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

os.environ.setdefault("HF_HUB_OFFLINE", "1")        # no test may reach the hub
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

TESTS = Path(__file__).parent
FIDELITY = TESTS / "data" / "fidelity"              # what the web UI computes, see tests/data/fidelity


@pytest.fixture(scope="session")
def fidelity() -> Path:
    """The folder with the web UI's answers."""
    return FIDELITY


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A small random SD 1 checkpoint in the web UI's own key layout."""
    return FIDELITY / "models" / "tiny-sd1.safetensors"
