"""Numbers as people say them: sizes, times, how far a download is. Standard library only."""

from __future__ import annotations

from nbsd.events import Downloading


def size_words(size: float) -> str:
    """Bytes as people say them.

    >>> size_words(4_265_380_512)
    '4.27 GB'
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds.

    >>> duration(65.2), duration(3725)
    ('1:05', '1:02:05')
    """
    whole = round(max(seconds, 0))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def download_words(event: Downloading) -> str:
    """How far, how fast and how long a download is.

    >>> download_words(Downloading("a.safetensors", 1_066_000_000, 4_265_380_512, 52_300_000.0, 61.2))
    '1.07 GB of 4.27 GB · 52.3 MB/s · 1:01 left'
    """
    parts = [f"{size_words(event.done)} of {size_words(event.total)}" if event.total else size_words(event.done)]
    if event.rate is not None:
        parts.append(f"{size_words(event.rate)}/s")
    if event.seconds_left is not None:
        parts.append(f"{duration(event.seconds_left)} left")
    return " · ".join(parts)
