"""images/resize.py, masks.py and colors.py: what the web UI does with a given picture and its mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from nbsd.errors import RecipeError
from nbsd.images import colors, masks
from nbsd.images.resize import resize
from nbsd.names import CROP, FILL, LATENT_RESIZE, STRETCH

RANDOM = np.random.default_rng(3).integers(0, 256, (9, 7), dtype=np.uint8)
# What OpenCV 4.10 made of RANDOM: its Gaussian blur along the rows and then along the columns; the first pixels, and the sum of all.
BLURRED = [
    (1, [171, 181, 190, 170, 117, 91, 98, 150, 160, 173, 160, 113, 91, 100], 6670),
    (2, [146, 144, 140, 130, 118, 108, 105, 140, 139, 135, 126, 115, 105, 103], 6587),
    (4, [113, 112, 111, 110, 109, 109, 108, 112, 111, 110, 109, 108, 108, 107], 6541),
    (30, [103, 104, 105, 104, 105, 103, 105, 103, 103, 104, 103, 104, 102, 104], 6536),
]
# ... and of some colours as Lab.
LAB = {(0, 0, 0): (0, 128, 128), (255, 255, 255): (255, 128, 128), (255, 0, 0): (136, 208, 195), (12, 200, 99): (181, 65, 167),
       (128, 128, 128): (137, 128, 128), (1, 2, 3): (1, 128, 127)}
BACK = {(255, 0, 0): (255, 2, 1), (12, 200, 99): (20, 200, 98), (1, 2, 3): (0, 2, 4)}       # as OpenCV turns those back


def square(size: tuple[int, int] = (40, 30), box: tuple[int, int, int, int] = (10, 8, 19, 15)) -> Image.Image:
    """A mask with one white rectangle; the box's last row and column are white too."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def picture(width: int = 40, height: int = 30, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# --- resize


@pytest.mark.parametrize("mode", [STRETCH, CROP, FILL, LATENT_RESIZE])
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_every_mode_gives_the_size_asked_for(mode, old, new):
    assert resize(Image.new("RGB", old), (new[0] * 8, new[1] * 8), mode).size == (new[0] * 8, new[1] * 8)


def test_crop_keeps_the_middle_and_the_shape():
    wide = Image.new("RGB", (80, 20), "red")
    wide.paste("blue", (20, 0, 60, 20))
    cut = resize(wide, (40, 40), CROP)
    assert cut.getpixel((20, 20)) == (0, 0, 255) and (255, 0, 0) not in [cut.getpixel((x, 20)) for x in range(2, 38)]


def test_fill_draws_the_edges_out():
    two = Image.new("RGB", (40, 20), "red")
    two.paste("blue", (0, 10, 40, 20))
    tall = resize(two, (40, 40), FILL)
    assert [tall.getpixel((20, y)) for y in (0, 9, 30, 39)] == [(255, 0, 0)] * 2 + [(0, 0, 255)] * 2
    turned = resize(two.transpose(Image.Transpose.ROTATE_90), (40, 40), FILL)
    assert [turned.getpixel((x, 20)) for x in (0, 9, 30, 39)] == [(255, 0, 0)] * 2 + [(0, 0, 255)] * 2


def test_a_size_that_fits_changes_nothing():
    for mode in (STRETCH, CROP, FILL):
        assert resize(picture(), (40, 30), mode).tobytes() == picture().tobytes()


# --- masks


@pytest.mark.parametrize("radius, first, total", BLURRED, ids=[f"blur {row[0]}" for row in BLURRED])
def test_the_blur_is_opencvs(radius, first, total):
    made = np.asarray(masks.blurred(Image.fromarray(RANDOM), radius))
    assert made.ravel()[:14].tolist() == first and int(made.astype(int).sum()) == total


def test_the_weights_of_the_blur():
    for radius in range(1, 65):
        weights = masks.gaussian_weights(radius)
        assert sum(weights) == 256 and len(weights) == 2 * int(2.5 * radius + 0.5) + 1 and weights == weights[::-1]
    assert masks.blurred(square(), 0).tobytes() == square().tobytes()


def test_alpha_counts_where_there_is_some_else_brightness():
    painted = Image.new("RGBA", (4, 1), (9, 9, 9, 255))
    assert list(masks.read_mask(painted).getdata()) == [9] * 4
    for x, alpha in enumerate((0, 128, 129, 255)):
        painted.putpixel((x, 0), (255, 255, 255, alpha))
    assert list(masks.read_mask(painted).getdata()) == [0, 0, 255, 255]
    assert list(masks.read_mask(painted, rounded=False).getdata()) == [0, 128, 129, 255]
    assert list(masks.transparent_places(painted).getdata()) == [255, 127, 126, 0]
    with pytest.raises(RecipeError, match="no transparent places"):
        masks.transparent_places(picture())


def test_a_mask_of_another_size_fits_where_its_shape_does():
    assert masks.matched(square((80, 60)), (40, 30)).size == (40, 30)
    with pytest.raises(RecipeError, match="the mask is 30x30 and the picture 40x30"):
        masks.matched(square((30, 30)), (40, 30))


def test_an_empty_mask_is_refused():
    masks.require_painted(square())
    with pytest.raises(RecipeError, match="the mask is empty"):
        masks.require_painted(Image.new("L", (4, 4)))
    with pytest.raises(RecipeError, match="the mask covers everything"):
        masks.require_painted(Image.new("L", (4, 4)), inverted=True)


def test_the_box_around_the_mask():
    assert masks.padded_box(square(), 3) == (7, 5, 23, 19)
    assert masks.padded_box(square(), 100) == (0, 0, 40, 30)
    assert masks.shaped_box((7, 5, 23, 19), (64, 64), (40, 30)) == (7, 4, 23, 20)
    assert masks.shaped_box((7, 5, 23, 19), (128, 64), (40, 30)) == (1, 5, 29, 19)
    assert masks.shaped_box((30, 5, 40, 19), (64, 64), (40, 30)) == (26, 5, 40, 19)        # moved in from the edge
    assert masks.shaped_box((0, 0, 40, 10), (64, 64), (40, 30)) == (0, 0, 40, 30)          # no more is there


@given(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(1, 50)),
       st.tuples(st.integers(8, 99), st.integers(8, 99)))
def test_the_shaped_box_lies_in_the_picture_and_holds_the_mask(corner, size):
    left, top, width, height = corner
    box = left, top, left + width, top + height
    made = masks.shaped_box(box, size, (100, 100))
    assert 0 <= made[0] <= left and 0 <= made[1] <= top and box[2] <= made[2] <= 100 and box[3] <= made[3] <= 100


def test_the_overlay_keeps_what_is_not_masked():
    image, mask = picture(), square()
    over = masks.outside(image, mask)
    assert over.getpixel((15, 10))[3] == 0 and over.getpixel((0, 0)) == (*image.getpixel((0, 0)), 255)
    made = masks.laid_over(Image.new("RGB", image.size, "lime"), over)
    assert made.getpixel((15, 10)) == (0, 255, 0)
    assert all(made.getpixel((x, y)) == image.getpixel((x, y)) for x in range(40) for y in range(30) if mask.getpixel((x, y)) == 0)


def test_what_was_made_of_a_box_goes_back_into_it():
    image = picture()
    over = masks.outside(image, square())
    made = masks.laid_over(Image.new("RGB", (64, 64), "lime"), over, (8, 6, 22, 20))
    assert made.getpixel((15, 10)) == (0, 255, 0) and made.getpixel((9, 7)) == image.getpixel((9, 7))


def test_fill_draws_the_surroundings_into_the_mask():
    image = Image.new("RGB", (40, 30), (200, 100, 50))
    image.paste("black", (10, 8, 20, 16))
    made = masks.smeared(image, square())
    assert max(abs(a - b) for a, b in zip(made.getpixel((15, 12)), (200, 100, 50), strict=True)) <= 2


def test_a_colour_shows_through_what_is_transparent():
    faint = picture().convert("RGBA")
    faint.putalpha(0)
    assert masks.flattened(faint, "#ff8000").getpixel((3, 3)) == (255, 128, 0)
    assert masks.flattened(picture(), "#ff8000").tobytes() == picture().tobytes()


# --- colours


@pytest.mark.parametrize("rgb, lab", LAB.items(), ids=map(str, LAB))
def test_lab_is_opencvs_and_there_is_a_way_back(rgb, lab):
    made = colors.to_lab(np.array([[rgb]], dtype=np.uint8))
    assert tuple(made[0, 0].tolist()) == lab
    assert np.abs(colors.from_lab(made)[0, 0].astype(int) - BACK.get(rgb, rgb)).max() <= 1


def test_lab_and_back_is_near_for_every_colour():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).reshape(-1, 1, 3).astype(np.uint8)
    gap = np.abs(colors.from_lab(colors.to_lab(every)).astype(int) - every)
    assert gap.mean() < 1.5 and gap.max() < 30      # whole numbers of Lab are coarse where it is dark


def test_histograms_are_matched():
    values, wanted = np.array([[0, 0, 1, 2]], dtype=np.uint8), np.array([[10, 10, 20, 200]], dtype=np.uint8)
    assert colors.matched(values, wanted).tolist() == [[10, 10, 20, 200]]


def test_colour_correction_takes_the_colours_and_keeps_the_brightness():
    gray = np.asarray(picture().convert("L").convert("RGB"))
    red = Image.fromarray(np.clip(np.asarray(picture(seed=2)) * (1, 0.2, 0.2), 0, 255).astype(np.uint8))
    made = np.asarray(colors.with_colors_of(Image.fromarray(gray), red)).astype(float)
    assert (made[..., 0] - made[..., 1]).mean() > 40
    assert np.abs(made @ colors.LUMA - gray @ colors.LUMA).mean() < 2
