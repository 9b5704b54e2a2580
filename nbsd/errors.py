"""What nbsd raises on purpose. The panel prints `str(error)` as it is.

NbsdError                  everything this package raises on purpose
├─ RecipeError             the recipe cannot be made as written; names every problem
├─ ModelError              a file is not what was asked for
│  ├─ UnknownModelError    a file of no family we know; says what was missing
│  ├─ UnsafeFileError      a pickle that asks for more than tensors
│  ├─ DownloadError        a file could not be fetched; what of it is here can be resumed
│  ├─ NoTextEncoderError   a model's file has none, and nobody said where it comes from
│  └─ WrongFamilyError     two files that do not belong together
├─ OutputError             a picture could not be written (disk full, no permission)
├─ OutOfMemory             the device is full; says what to lower
└─ Stopped                 the user pressed Stop (not a failure)
   └─ Skipped              the user skipped this picture; the job goes on with the next

A message says what, what was got and what to do, in one or two sentences.
"""

from __future__ import annotations


class NbsdError(Exception):
    """Everything this package raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it (IPython asks for this): the sentence, no traceback."""
        return [f"{type(self).__name__}: {self}"]


class RecipeError(NbsdError):
    """The recipe cannot be made as written."""


class ModelError(NbsdError):
    """A file is not what was asked for.

    These sentences hold words of the file itself (keys, names): what of them cannot be printed must not break the line.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


class UnknownModelError(ModelError):
    """A file of no known model family."""


class UnsafeFileError(ModelError):
    """A pickle that asks for more than tensors and plain values."""


class DownloadError(ModelError):
    """A file could not be fetched."""


class NoTextEncoderError(ModelError):
    """A model's file holds no text encoder."""


class WrongFamilyError(ModelError):
    """Two files that do not belong together."""


class OutputError(NbsdError):
    """A picture could not be written."""


class OutOfMemory(NbsdError):
    """The device is full."""


class Stopped(NbsdError):
    """The user pressed Stop or Interrupt."""


class Skipped(Stopped):
    """The user skipped the picture being made."""
