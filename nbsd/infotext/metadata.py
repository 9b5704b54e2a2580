"""The text that a picture carries: the web UI's in PNG, JPEG, WebP and GIF files, NovelAI's, and what is hidden in the alpha channel.

Needs Pillow, but only when a picture is read.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsd.errors import NbsdError
from nbsd.infotext.rules import find_sampler, find_schedule
from nbsd.infotext.text import NEGATIVE, quote

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_KEY = "parameters"                     # of the PNG chunk, modules/images.py
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286     # numbers of the EXIF standard
CODE = 8                                    # bytes before a user comment that say how it is written
STEALTH_PLAIN, STEALTH_ZIPPED = b"stealth_pnginfo", b"stealth_pngcomp"     # how hidden text begins
# What Pillow's readers raise for broken files
BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, MemoryError, struct.error, zlib.error)
LARGEST = 16 * 2**20                        # bytes of text; no recipe is longer

# NovelAI's JSON has no room for these; the service ran with them (its paper "NovelAI improvements on Stable Diffusion", and the
# settings that A1111 assumes when it reads such a picture).
NOVELAI_ALWAYS = {"Clip skip": 2, "ENSD": 31337, "Dialect": "novelai"}
NOVELAI_KEPT = ("strength", "noise", "sm", "sm_dyn", "cfg_rescale", "dynamic_thresholding", "uncond_scale", "request_type")


def from_image(source: bytes | str | os.PathLike[str]) -> str | None:
    """The web UI's text of a picture (its bytes or its path); None where it carries none.

    NovelAI's settings come as such a text too, with `Dialect: novelai` for the prompts, which stay as they are written.
    Raises NbsdError for what is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    name = "this" if isinstance(source, bytes) else Path(source).name
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return _text_of(image)
    except UnidentifiedImageError as error:
        raise NbsdError(f"{name} is no picture that can be read: give a PNG, JPEG, WebP or GIF file with a recipe") from error
    except Image.DecompressionBombError as error:
        raise NbsdError(f"{name} has too many pixels to be a picture with a recipe: paste its text instead") from error
    except BROKEN as error:
        raise NbsdError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error}): give the path of a picture") from error


def _text_of(image: Image) -> str | None:
    for text in _texts(image):
        if text:
            found = _novelai_text(text, image.size) if text.lstrip().startswith("{") else text
            if found:
                return found
    return None


def _texts(image: Image) -> Any:
    """Every place where a text may stand, the usual ones first. NovelAI's come as one JSON object."""
    chunks = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    yield chunks.get(TEXT_KEY)
    if "Comment" in chunks:
        yield json.dumps(chunks)
    yield _user_comment(image)
    comment = image.info.get("comment")     # GIF, JPEG
    yield comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
    yield _hidden(image)


def _user_comment(image: Image) -> str | None:
    try:
        comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    except BROKEN:
        return None
    if isinstance(comment, str):
        return comment
    if not isinstance(comment, bytes) or len(comment) <= CODE:
        return None
    code, text = comment[:CODE], comment[CODE:]
    if code != b"UNICODE\0":
        return text.decode("utf-8", "replace").strip("\0")
    # the standard leaves the byte order open: the web UI writes the high byte first, others last; it is zero for most letters
    order = "utf-16-be" if text[0::2].count(0) >= text[1::2].count(0) else "utf-16-le"
    return text.decode(order, "replace").strip("\0\ufeff")


def _hidden(image: Image) -> str | None:
    """The text in the lowest bits of the alpha channel, column by column: mark, length in bits, text."""
    if image.mode != "RGBA" or image.width * image.height < (len(STEALTH_PLAIN) + 4) * 8:
        return None
    from PIL import Image as pil

    alpha = image.getchannel("A").transpose(pil.Transpose.TRANSPOSE).tobytes()
    mark, at = _lowest_bits(alpha, 0, len(STEALTH_PLAIN)), len(STEALTH_PLAIN) * 8
    if mark not in (STEALTH_PLAIN, STEALTH_ZIPPED):
        return None
    length = int.from_bytes(_lowest_bits(alpha, at, 4), "big") // 8
    data = _lowest_bits(alpha, at + 32, min(length, LARGEST, (len(alpha) - at - 32) // 8))
    if mark == STEALTH_ZIPPED:
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, LARGEST)
        except zlib.error:
            return None
    return data.decode("utf-8", "replace")


def _lowest_bits(values: bytes, at: int, count: int) -> bytes:
    """`count` bytes made of the lowest bits of values, the highest bit first."""
    bits = bytes(48 + (value & 1) for value in values[at:at + count * 8])
    return int(bits or b"0", 2).to_bytes(count, "big")


def _novelai_text(text: str, size: tuple[int, int]) -> str | None:
    """NovelAI's settings as the web UI's text; None where the JSON is something else."""
    outer = _json(text)
    comment = _json(outer.get("Comment")) or outer
    if "steps" not in comment or "seed" not in comment:
        return None
    prompt = comment.get("prompt") or outer.get("Description") or _caption(comment.get("v4_prompt"))
    negative = comment.get("uc") or _caption(comment.get("v4_negative_prompt"))
    schedule = comment.get("noise_schedule")
    pairs = {
        "Steps": comment["steps"],
        "Sampler": find_sampler(str(comment.get("sampler"))) or comment.get("sampler"),
        "Schedule type": schedule and ("Uniform" if schedule == "native" else find_schedule(str(schedule)) or schedule),
        "CFG scale": comment.get("scale"),
        "Seed": comment["seed"],
        "Size": f"{comment.get('width', size[0])}x{comment.get('height', size[1])}",
        "Denoising strength": comment.get("strength") if "img2img" in str(comment.get("request_type")).lower() else None,
        **NOVELAI_ALWAYS,
        "NovelAI source": outer.get("Source"),
        "NovelAI settings": json.dumps({key: comment[key] for key in NOVELAI_KEPT if key in comment}),
    }
    lines = [str(prompt), *([f"{NEGATIVE} {negative}"] if negative else [])]
    return "\n".join([*lines, ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items() if value not in (None, "", "{}"))])


def _json(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _caption(prompt: Any) -> str:
    """The main text of a prompt of NovelAI's fourth version."""
    caption = _json(prompt).get("caption")
    return str(_json(caption).get("base_caption", ""))
