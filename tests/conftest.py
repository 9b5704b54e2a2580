"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# No test is judged by its time. CI tries the same examples in every run, so that a change is judged by itself; new examples are looked
# for at home, and many more of them with pytest --hypothesis-profile fuzz.
hypothesis.settings.register_profile("home", deadline=None)
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")

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
