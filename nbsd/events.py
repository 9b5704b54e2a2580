"""What a job tells while it runs. Plain frozen values; whoever shows them matches over `Event`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbsd.picture import Picture


@dataclass(frozen=True)
class Started:
    """The worker has taken the job."""


@dataclass(frozen=True)
class Loading:
    """A model is being read; sent several times."""

    what: str           # the file's name
    done: int = 0       # bytes
    total: int = 0      # bytes; 0: not known


@dataclass(frozen=True)
class Downloading:
    """A file is being fetched; sent several times a second."""

    what: str                           # the file's name
    done: int = 0                       # bytes
    total: int = 0                      # bytes; 0: not known
    rate: float | None = None           # bytes a second; None: not known yet
    seconds_left: float | None = None


@dataclass(frozen=True)
class Progress:
    """A step is done. May be dropped or replaced by a newer one."""

    picture: int                        # number of the first picture in work, from 0
    pictures: int                       # pictures in this job
    step: int                           # denoiser calls done for this batch
    steps: int                          # denoiser calls of this batch
    seed: int
    rate: float | None = None           # denoiser calls a second; None: not known yet
    seconds_left: float | None = None   # for the whole job
    preview: bytes | None = None        # a JPEG, where one was due


@dataclass(frozen=True)
class Made:
    """A picture is finished and on disk."""

    picture: Picture


@dataclass(frozen=True)
class Note:
    """One sentence that the user should read."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The last event of every job; exactly one."""

    stopped: bool = False
    error: BaseException | None = None


Event = Started | Loading | Downloading | Progress | Made | Note | Ended
