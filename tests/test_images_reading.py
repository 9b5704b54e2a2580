"""images/reading.py: pictures from outside."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nbsd.errors import NbsdError
from nbsd.images import MOST_PIXELS, read_picture
from nbsd.picture import Picture
from nbsd.recipe import Recipe

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
FAINT = RGB.convert("RGBA")
FAINT.putalpha(7)
TURNED = Image.Exif()
TURNED[0x112] = 6       # Orientation: a quarter turn


def file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


GIVEN = {
    "PNG": (file(RGB), "RGB", (40, 30)),
    "a PIL picture": (RGB, "RGB", (40, 30)),
    "a browser's memory view": (memoryview(file(RGB)), "RGB", (40, 30)),
    "a Picture": (Picture(RGB, Recipe()), "RGB", (40, 30)),
    "CMYK JPEG": (file(RGB.convert("CMYK"), "JPEG"), "RGB", (40, 30)),
    "EXIF says turned": (file(RGB, "JPEG", exif=TURNED), "RGB", (30, 40)),
    "animated WebP": (file(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)], lossless=True), "RGB", (40, 30)),
    "palette": (file(RGB.convert("P"), "GIF"), "RGB", (40, 30)),
    "grey": (file(RGB.convert("L")), "RGB", (40, 30)),
    "opaque alpha": (file(RGB.convert("RGBA")), "RGB", (40, 30)),
    "transparent": (file(FAINT), "RGBA", (40, 30)),
    "transparent palette": (file(FAINT.quantize(8)), "RGBA", (40, 30)),
    "one transparent colour": (file(RGB, transparency=RGB.getpixel((0, 0))), "RGBA", (40, 30)),
}


@pytest.mark.parametrize("source, mode, size", GIVEN.values(), ids=GIVEN)
def test_whatever_is_given_becomes_rgb_or_rgba(source, mode, size):
    picture = read_picture(source)
    assert (picture.mode, picture.size) == (mode, size)


def test_colours_come_through():
    assert read_picture(file(RGB)).tobytes() == RGB.tobytes()
    first = read_picture(GIVEN["animated WebP"][0])
    assert first.tobytes() == RGB.tobytes()         # and not the second frame
    assert read_picture(file(FAINT)).getpixel((3, 4)) == (*RGB.getpixel((3, 4)), 7)
    turned = read_picture(file(RGB, "PNG", exif=TURNED))
    assert turned.tobytes() == RGB.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert "exif" not in turned.info        # or it would be turned once more


def test_sixteen_bits_are_scaled_not_cut():
    values = np.array([[0, 257, 40000, 65535]], dtype=np.uint16)
    assert [pixel[0] for pixel in read_picture(file(Image.fromarray(values))).getdata()] == [0, 1, 156, 255]
    assert [pixel[0] for pixel in read_picture(Image.fromarray(values.astype(np.int32))).getdata()] == [0, 1, 156, 255]
    assert read_picture(Image.new("F", (1, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)


def test_the_source_stays_as_it_was_and_the_recipe_in_it_too(tmp_path):
    given_one = RGB.copy()
    given_one.info["parameters"] = "a\nSteps: 1"
    made = read_picture(given_one)
    made.putpixel((0, 0), (1, 2, 3))
    assert given_one.tobytes() == RGB.tobytes()
    assert made.info["parameters"] == "a\nSteps: 1"
    path = tmp_path / "one.png"
    path.write_bytes(file(RGB))
    assert read_picture(path).tobytes() == read_picture(str(path)).tobytes() == RGB.tobytes()


REFUSED = {
    "truncated PNG": (file(RGB)[:900], "this file is damaged or was cut short"),
    "truncated JPEG": (file(RGB, "JPEG")[:900], "cut short"),
    "truncated WebP": (file(RGB, "WEBP")[:100], "cut short"),
    "empty": (b"", r"empty \(0 bytes\)"),
    "no picture": (b"hello", "no picture that can be read"),
    "20,000 x 20,000": (file(Image.new("1", (20000, 20000))), "far too many pixels"),
    "10,000 x 10,000": (file(Image.new("1", (10000, 10000))), "10000x10000, more than the 67 million"),
    "a large PIL picture": (Image.new("1", (10000, 10000)), "10000x10000, more than"),
    "a PIL picture without pixels": (Image.new("RGB", (0, 4)), "0x4, without a pixel"),
    "numbers beyond a byte": (Image.new("F", (1, 1), 1e6), "outside 0 to 255"),
    "no path": ("/no/such/picture.png", "/no/such/picture.png is not there"),
    "another thing": (3, "a picture was expected, got int"),
}


@pytest.mark.parametrize("source, words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(source, words):
    with pytest.raises(NbsdError, match=words) as refused:
        read_picture(source)
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(NbsdError, match="cannot be read"):
        read_picture(tmp_path)
    (tmp_path / "none.png").touch()
    with pytest.raises(NbsdError, match=r"none.png is empty \(0 bytes\)"):
        read_picture(tmp_path / "none.png")


def test_the_largest_that_can_be_made_can_be_read():
    side = int(MOST_PIXELS**0.5)
    assert side == 8192
    assert read_picture(Image.new("L", (side, 1))).size == (side, 1)


WHOLE = [file(RGB), file(RGB, "JPEG"), file(FAINT, "WEBP"), file(RGB.convert("P"), "GIF"), file(RGB, "TIFF"), file(RGB, "BMP")]


@given(st.sampled_from(WHOLE), st.integers(0, 4000), st.binary(max_size=8))
def test_a_broken_file_never_gives_anything_but_a_picture_or_one_sentence(data, place, junk):
    place %= len(data)
    for broken in (data[:place], data[:place] + junk + data[place + len(junk):]):
        try:
            assert read_picture(broken).mode in ("RGB", "RGBA")
        except NbsdError as error:
            assert "\n" not in str(error)


def test_pictures_are_read_without_torch():
    code = "import sys, nbsd.images; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
