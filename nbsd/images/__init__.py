"""Pictures: read, resized, masked, put together. Pillow and numpy only; a tensor is touched in `bytes.py` alone, and torch not imported.

`read_picture(source) -> PIL.Image.Image` is the one door for pictures from outside: a path, the bytes of a file, a PIL picture or a
`Picture`; it gives "RGB", or "RGBA" where something is transparent, the right way up, or raises NbsdError in one sentence.
"""

from __future__ import annotations

from nbsd.images.bytes import to_bytes, to_pil
from nbsd.images.reading import MOST_PIXELS, read_picture

__all__ = ["MOST_PIXELS", "read_picture", "to_bytes", "to_pil"]
