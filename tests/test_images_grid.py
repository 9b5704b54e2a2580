"""images/grid.py: tiles and how they are put together, by the web UI's numbers."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
from PIL import Image

from nbsd.images.grid import joined, places, starts


@pytest.mark.parametrize(("length", "tile", "overlap", "want"), [
    (512, 192, 8, [0, 160, 320]),
    (500, 192, 8, [0, 154, 308]),
    (1000, 192, 8, [0, 161, 323, 484, 646, 808]),       # 161.6 apart, each cut off, not rounded
    (192, 192, 8, [0]), (193, 192, 8, [0, 1]), (100, 192, 8, [-92]),
])
def test_where_tiles_begin(length, tile, overlap, want):
    assert starts(length, tile, overlap) == want
    assert all(b - a <= tile - overlap for a, b in pairwise(want)) and want[-1] + tile == length


def test_the_rows_are_walked_from_left_to_right():
    assert places((40, 30), (16, 30), 4) == [[(0, 0), (12, 0), (24, 0)]]
    assert places((16, 40), (16, 16), 4) == [[(0, 0)], [(0, 12)], [(0, 24)]]


def test_a_tile_fades_in_over_its_neighbour_and_a_row_over_the_one_above():
    rows = places((24, 24), (16, 16), 4)
    assert rows == [[(0, 0), (8, 0)], [(0, 8), (8, 8)]]
    colors = iter(((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)))
    made = np.asarray(joined(rows, (Image.new("RGB", (16, 16), color) for color in colors), (24, 24), 4))
    # 0, 1, 2 and 3 quarters of 255, cut off, over 8 columns before which there is the left one only
    assert made[0, :, 0].tolist() == [0] * 8 + [0, 63, 127, 191] + [255] * 12
    assert made[:, 0, 1].tolist() == made[0, :, 0].tolist()
    assert made[23, 23].tolist() == [0, 0, 255] and made[4, 23].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("size", "tile", "overlap"), [((50, 30), (16, 16), 4), ((41, 33), (24, 16), 0), ((40, 20), (64, 32), 8)])
def test_tiles_of_one_picture_give_it_back(size, tile, overlap):
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    rows = places(size, tile, overlap)
    tiles = (source.crop((x, y, x + tile[0], y + tile[1])) for x, y in chain(*rows))
    assert joined(rows, tiles, size, overlap).tobytes() == source.tobytes()
