"""pipeline/regions.py: which of what was found is painted anew, and its masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image, ImageChops

from nbsd.errors import RecipeError
from nbsd.pipeline.adetailer import Detail
from nbsd.pipeline.boxes import Found
from nbsd.pipeline.regions import check_detail, masks_of, spread

SIZE = (100, 80)
PLAIN = Detail(dilate=0)
FOUND = [Found((10, 10, 20, 20), 0.9), Found((40, 40, 70, 70), 0.5), Found((80, 5, 80, 9), 0.8), Found((60, 0, 80, 20), 0.4)]


def boxes(detail: Detail, only_in: Image.Image | None = None) -> list[tuple[int, int, int, int]]:
    return [mask.getbbox() for mask in masks_of(FOUND, detail, SIZE, only_in)]


@pytest.mark.parametrize(("change", "wanted"), [
    ({}, [(10, 10, 20, 20), (40, 40, 70, 70), (60, 0, 80, 20)]),                        # one is empty
    ({"min_ratio": 0.05}, [(40, 40, 70, 70), (60, 0, 80, 20)]), ({"max_ratio": 0.05}, [(10, 10, 20, 20), (60, 0, 80, 20)]),
    ({"top": 2}, [(40, 40, 70, 70), (60, 0, 80, 20)]), ({"top": 1, "top_by": "Confidence"}, [(10, 10, 20, 20)]),
    ({"x_offset": 5, "y_offset": 3}, [(15, 7, 25, 17), (45, 37, 75, 67), (65, 0, 85, 80)]),     # y is up; what goes out above comes in below
    ({"dilate": 4}, [(9, 9, 22, 22), (39, 39, 72, 72), (59, 0, 82, 22)]), ({"dilate": -4}, [(12, 12, 19, 19), (42, 42, 69, 69), (62, 0, 79, 19)]),
    ({"dilate": -12}, [(46, 46, 65, 65), (66, 0, 75, 15)]),                             # the small one is gone
    ({"merge": "Merge"}, [(10, 0, 80, 70)]),
])  # fmt: skip
def test_which_masks_are_made(change, wanted):
    assert boxes(replace(PLAIN, **change)) == wanted


def test_a_merged_mask_can_be_turned_around():
    [merged], [turned] = (masks_of(FOUND, replace(PLAIN, merge=how), SIZE) for how in ("Merge", "Merge and Invert"))
    assert ImageChops.add(merged, turned).getextrema() == (255, 255) and turned.getpixel((15, 15)) == 0
    assert masks_of([], replace(PLAIN, merge="Merge"), SIZE) == []


def test_only_what_touches_a_region_is_left():
    where = Image.new("L", SIZE)
    where.paste(255, (0, 0, 11, 11))
    assert boxes(PLAIN, where) == [(10, 10, 20, 20)]


def test_masks_grow_as_by_opencv():
    """cv2.dilate and cv2.erode with cv2.getStructuringElement(cv2.MORPH_RECT, (4, 4)); what is beyond the edge counts for nothing."""
    one = Image.new("L", (9, 9))
    one.putpixel((4, 4), 255)
    assert spread(one, 4).getbbox() == (3, 3, 7, 7) and spread(one, 5).getbbox() == (2, 2, 7, 7) and spread(one, 1) is one
    full = Image.new("L", (9, 9), 255)
    assert spread(full, -4).getextrema() == (255, 255)


@pytest.mark.parametrize(("change", "words"), [
    ({"confidence": 3.0}, "the confidence of the detail pass is 3.0: use a value from 0 to 1"), ({"strength": -1.0}, "denoising strength of the detail"),
    ({"max_ratio": 2.0}, "largest share"), ({"dilate": 9999}, "from -512 to 512"), ({"x_offset": -10**12}, "x offset .* 8192"), ({"merge": "Mix"}, "use one of None, Merge"),
    ({"top_by": "Luck"}, "Area, Confidence"),
])
def test_settings_that_make_no_sense(change, words):
    with pytest.raises(RecipeError, match=words):
        check_detail(replace(PLAIN, **change))
