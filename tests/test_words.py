"""Numbers as people say them."""

from __future__ import annotations

import pytest

from nbsd.events import Downloading
from nbsd.words import download_words, duration, size_words


@pytest.mark.parametrize("seconds, words", [(0, "0:00"), (-1, "0:00"), (59.6, "1:00"), (65.2, "1:05"), (3725, "1:02:05")])
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("size, words", [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (334_695_179, "335 MB"), (4_265_380_512, "4.27 GB")])
def test_sizes_in_words(size: int, words: str) -> None:
    assert size_words(size) == words


@pytest.mark.parametrize("event, words", [
    (Downloading("a"), "0 bytes"),
    (Downloading("a", 1_500_000), "1.5 MB"),
    (Downloading("a", 1_500_000, 3_000_000), "1.5 MB of 3 MB"),
    (Downloading("a", 1_500_000, 3_000_000, 250_000.0, 6.0), "1.5 MB of 3 MB · 250 kB/s · 0:06 left"),
])  # fmt: skip
def test_downloads(event: Downloading, words: str) -> None:
    assert download_words(event) == words
