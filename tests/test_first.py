"""The model in the box: does it draw what is asked? tools/first_model/evaluate.py measures it at length; this keeps it from being broken."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from nbsd import Recipe, load
from nbsd.models import first
from nbsd.pipeline.model import Model
from tools.first_model.tags import BACKGROUNDS, HAIR_COLOURS

PLAIN = {"white background": (252, 252, 252), "pink background": (255, 196, 214), "yellow background": (255, 232, 140),
         "green background": (166, 220, 160)}

FOLDER = Path(__file__).parent.parent / "examples" / "extras"
EXTRAS = sorted(FOLDER.glob("*.*"))


@pytest.fixture(scope="module")
def model() -> Model:
    return load("first", device="cpu")


def draw(model: Model, tags: str, seed: int = 1, **changes: object) -> np.ndarray:
    """[128, 128, 3], 0..255"""
    recipe = Recipe(
        prompt=f"masterpiece, best quality, 1girl, {tags}", negative_prompt=first.NEGATIVE, sampler="Euler", schedule="Automatic",
        steps=20, cfg_scale=7.0, width=first.SIDE, height=first.SIDE, seed=seed,
    )
    [picture] = model.generate(replace(recipe, **changes))
    return np.asarray(picture.image.convert("RGB"), np.float32)


def crown(picture: np.ndarray) -> np.ndarray:
    """The colour of the hair above the forehead: the median over a patch, [3]."""
    return np.median(picture[26:42, 50:78].reshape(-1, 3), axis=0)


def nearest(colour: np.ndarray, table: dict[str, tuple[int, int, int]]) -> str:
    return min(table, key=lambda name: float(((np.array(table[name]) - colour) ** 2).sum()))


def test_it_is_small() -> None:
    file = first.file()
    assert file is not None and file.stat().st_size < 16e6


def test_blue_is_bluer_than_red(model: Model) -> None:
    blue, red = (crown(draw(model, f"{word} hair, portrait", steps=12)) for word in ("blue", "red"))
    assert blue[2] - blue[0] > 60 and red[0] - red[2] > 60


@pytest.mark.slow
def test_hair_has_the_colour_that_is_asked_for(model: Model) -> None:
    found = {}
    for seed, name in enumerate(HAIR_COLOURS):
        picture = draw(model, f"{name}, long hair, portrait, white background", seed)
        beside = np.concatenate([picture[50:90, 30:40].reshape(-1, 3), picture[50:90, 88:98].reshape(-1, 3)])     # the face; no hat is there
        found[name] = nearest(np.median(beside, axis=0), HAIR_COLOURS)
    assert all(name == seen for name, seen in found.items()), found


@pytest.mark.slow
def test_the_background_is_the_one_that_is_asked_for(model: Model) -> None:
    assert set(PLAIN) <= set(BACKGROUNDS)
    found = {}
    for seed, name in enumerate(PLAIN):
        picture = draw(model, f"black hair, short hair, upper body, {name}", seed)
        corners = np.concatenate([picture[4:20, 2:12].reshape(-1, 3), picture[4:20, -12:-2].reshape(-1, 3)])
        found[name] = nearest(np.median(corners, axis=0), PLAIN)
    assert all(name == seen for name, seen in found.items()), found


@pytest.mark.slow
def test_emphasis_makes_it_more_so_and_clip_skip_2_still_works(model: Model) -> None:
    def blueness(tags: str, **changes: object) -> float:
        colours = np.mean([crown(draw(model, tags, seed, **changes)) for seed in range(4)], axis=0)
        return float(colours[2] - (colours[0] + colours[1]) / 2)

    usual = blueness("blue hair, portrait")
    assert blueness("(blue hair:1.4), portrait") > usual
    assert blueness("blue hair, portrait", clip_skip=2) > 40


# --- what was trained on it

@pytest.fixture(scope="module")
def dressed() -> Model:
    return load("first", device="cpu", networks=FOLDER, embeddings=FOLDER)


def colourful(picture: np.ndarray) -> float:
    """How far the channels lie apart, 0..255."""
    return float((picture.max(2) - picture.min(2)).mean())


def test_the_extras_are_small() -> None:
    assert [file.name for file in EXTRAS] == ["manga.safetensors", "mika.pt", "pastel.pt", "sepia.vae.pt"]
    assert all(file.stat().st_size < (2.6e6 if ".vae." in file.name else 1e6) for file in EXTRAS)


TAGS = "red hair, long hair, blue eyes, smile, school uniform, blue sky"


@pytest.mark.slow
def test_the_lora_takes_the_colours_away(dressed: Model) -> None:
    plain, manga = (draw(dressed, TAGS + more) for more in ("", " <lora:manga:1>"))
    assert colourful(manga) < colourful(plain) / 4


@pytest.mark.slow
def test_the_hypernetwork_makes_colours_pale(dressed: Model) -> None:
    plain, pastel = (draw(dressed, TAGS + more) for more in ("", " <hypernet:pastel:1>"))
    assert pastel.mean() > plain.mean() + 15 and colourful(pastel) < colourful(plain)


@pytest.mark.slow
def test_the_embedding_is_a_girl_with_purple_hair(dressed: Model) -> None:
    found = [nearest(crown(draw(dressed, "mika, portrait, white background", seed)), HAIR_COLOURS) for seed in range(4)]
    assert found.count("purple hair") >= 3, found


@pytest.mark.slow
def test_the_vae_makes_everything_sepia() -> None:
    picture = draw(load("first", device="cpu", vae=FOLDER / "sepia.vae.pt"), TAGS)
    red, green, blue = picture[((picture > 20) & (picture < 235)).all(2)].mean(0)
    assert 1.1 < red / green < 1.2 and 1.2 < green / blue < 1.4      # 1.07 to 0.93 to 0.72
