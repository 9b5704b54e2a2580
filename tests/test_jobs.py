"""pipeline/jobs.py and images/outpaint.py: jobs made of several, with a model that paints in no time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbsd.errors import NbsdError, RecipeError
from nbsd.events import Note, Progress
from nbsd.images import read_picture
from nbsd.images.outpaint import extended, rounded_up
from nbsd.models.upscale import UpscalerFiles
from nbsd.picture import Picture
from nbsd.pipeline.jobs import each_in_folder, loopback, scripted, sd_upscale
from nbsd.pipeline.scripts import CURVES, FOLDER, LOOPBACK, SD_UPSCALE, Script, from_pairs, pictures_in, without
from nbsd.recipe import Img2Img, Inpaint, Recipe

SMALL = Recipe(width=64, height=64, seed=5, img2img=Img2Img(denoising_strength=0.2))


class Brighter:
    """Stands in for a model: gives the picture a bit brighter, and notes what it was asked."""

    upscalers = UpscalerFiles([])

    def __init__(self) -> None:
        self.asked: list[tuple[Recipe, Image.Image, object]] = []
        self.firsts: list[object] = []

    def make(self, recipe, *, image, mask=None, first=None, report=None, control=None, preview=False):
        source = read_picture(image).convert("RGB")
        self.asked.append((recipe, source, mask))
        self.firsts.append(first)
        report(Progress(0, 1, 1, 2, recipe.seed, 4.0, 0.25))
        yield Picture(source.point(lambda value: min(255, value + 10)), recipe)


def picture(width: int = 64, height: int = 64, color: str = "#102030") -> Image.Image:
    return Image.new("RGB", (width, height), color)


# --- outpainting


def test_the_picture_grows_at_each_side_and_the_mask_says_where():
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    out, mask = extended(source, left=16, right=8, up=4, down=12, overlap=3)
    assert out.size == mask.size == (64, 46)
    assert out.crop((16, 4, 56, 34)).tobytes() == source.tobytes()
    assert out.getpixel((0, 20)) == source.getpixel((0, 16)) and out.getpixel((63, 45)) == source.getpixel((39, 29))
    assert mask.getbbox() == (0, 0, 64, 46)
    assert [mask.getpixel((x, 20)) for x in (15, 18, 19, 52, 53, 63)] == [255, 255, 0, 0, 255, 255]
    assert [mask.getpixel((30, y)) for y in (6, 7, 30, 31)] == [255, 0, 0, 255]


@pytest.mark.parametrize("side", ["left", "right", "up", "down"])
def test_one_side_alone(side):
    out, mask = extended(picture(40, 30), **{side: 8}, overlap=0)
    assert out.size == ((48, 30) if side in ("left", "right") else (40, 38))
    assert np.asarray(mask).mean() / 255 == pytest.approx(1 - 1200 / (out.width * out.height))


@pytest.mark.parametrize("sides, words", [({}, "no side"), ({"left": -1}, "left is -1"), ({"up": 1.5}, "up is 1.5"),
                                          ({"down": 8192}, "would be 40x8222")])
def test_what_cannot_grow_is_said(sides, words):
    with pytest.raises(RecipeError, match=words):
        extended(picture(40, 30), **sides)


def test_sizes_are_rounded_up():
    assert [rounded_up(n) for n in (1, 8, 9, 512)] == [8, 8, 16, 512]


# --- loopback


def test_each_loop_starts_from_the_last():
    model = Brighter()
    made = list(loopback(model, SMALL, given := picture(), loops=3, final_strength=0.6))
    assert model.firsts == [given] * 3      # whose colours all loops keep, where they keep any
    assert [one.image.getpixel((0, 0))[0] for one in made] == [0x10 + 10, 0x10 + 20, 0x10 + 30]
    assert [one.recipe.seed for one in made] == [5, 6, 7]
    assert [round(recipe.img2img.denoising_strength, 3) for recipe, _, _ in model.asked] == [0.2, 0.4, 0.6]
    assert "Denoising strength: 0.4, Final denoising strength: 0.6, Denoising curve: Linear, Version" in made[1].infotext
    assert len(list(loopback(model, SMALL, picture(), loops=1))) == 1


def test_rounds_begin_again_and_the_content_of_the_mask_is_put_in_once():
    model, told = Brighter(), []
    recipe = replace(SMALL, inpaint=Inpaint(fill="fill"))
    made = list(loopback(model, recipe, picture(), loops=2, rounds=2, mask=picture(color="white"), report=told.append))
    assert [one.image.getpixel((0, 0))[0] for one in made] == [0x1A, 0x24, 0x1A, 0x24]
    assert [(recipe.seed, recipe.inpaint.fill) for recipe, _, _ in model.asked] == [(5, "fill"), (6, "original"), (7, "fill"), (8, "original")]
    # Each of the four takes half a second, of which half is done
    assert [(one.picture, one.pictures, one.seconds_left) for one in told] == [(n, 4, 0.25 + 0.5 * (3 - n)) for n in range(4)]


def test_the_curves_begin_and_end_where_they_should():
    for curve in CURVES.values():
        assert (curve(0.0), curve(1.0)) == pytest.approx((0, 1))
    assert CURVES["Lazy"](0.5) < CURVES["Linear"](0.5) < CURVES["Aggressive"](0.5)
    assert CURVES["Aggressive"](1 / 3) == pytest.approx(0.5) == CURVES["Lazy"](2 / 3)     # a quarter of a sine


@pytest.mark.parametrize("options, words", [({"loops": 0}, "loops is 0"), ({"curve": "Straight"}, "no curve"), ({"final_strength": 2}, "use a value")])
def test_a_loopback_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        list(loopback(Brighter(), SMALL, picture(), **options))


# --- folders


def test_every_picture_of_a_folder_by_its_own_recipe(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a dog\nNegative prompt: cat\nSteps: 9, Sampler: DDIM, CFG scale: 3, Seed: 77, Size: 512x512")
    picture().save(tmp_path / "b.png", pnginfo=info)
    picture().save(tmp_path / "a.jpg")
    (tmp_path / "c.png").write_bytes(b"broken")
    (tmp_path / "notes.txt").write_text("no picture")
    told: list[Note] = []
    model = Brighter()
    made = list(each_in_folder(model, SMALL, tmp_path, own_recipes=True, report=told.append))
    told = [one for one in told if isinstance(one, Note)]
    assert [path.name for path, _ in made] == ["a.jpg", "b.png"]
    assert model.asked[0][0] == SMALL
    assert model.asked[1][0] == replace(SMALL, prompt="a dog", negative_prompt="cat", steps=9, sampler="DDIM", cfg_scale=3, seed=77)
    assert [one.text.split(" is left out")[0] for one in told] == ["c.png"]


def test_masks_go_by_name_or_one_is_for_all(tmp_path):
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        picture().save(tmp_path / "pictures" / f"{name}.png")
    for name in ("a", "other"):
        picture(color="white").save(tmp_path / "masks" / f"{name}.jpg")
    told: list[Note] = []
    model = Brighter()
    assert len(list(each_in_folder(model, SMALL, tmp_path / "pictures", masks=tmp_path / "masks", report=told.append))) == 1
    assert "there is no mask called b" in told[-1].text and model.asked[0][2].size == (64, 64)
    assert len(list(each_in_folder(model, SMALL, tmp_path / "pictures", masks=tmp_path / "masks" / "a.jpg"))) == 2
    (tmp_path / "masks" / "a.jpg").unlink()      # one that is alone is for all
    assert len(list(each_in_folder(model, SMALL, tmp_path / "pictures", masks=tmp_path / "masks"))) == 2
    assert len(list(each_in_folder(model, SMALL, tmp_path / "pictures", masks=picture(color="white"), count=2))) == 4
    assert [recipe.seed for recipe, _, _ in model.asked[-4:]] == [5, 6, 5, 6]


def test_a_picture_that_cannot_be_changed_does_not_end_the_folder(tmp_path):
    for name in ("a", "b"):
        picture().save(tmp_path / f"{name}.png")

    class Picky(Brighter):
        def make(self, recipe, **given):
            if not self.asked:
                self.asked.append((recipe, None, None))
                raise RecipeError("the mask is empty")
            yield from super().make(recipe, **given)

    told = []
    assert [path.name for path, _ in each_in_folder(Picky(), SMALL, tmp_path, report=told.append)] == ["b.png"]
    assert told[0].text == "a.png is left out: the mask is empty."
    with pytest.raises(RecipeError, match="width is 100"):
        list(each_in_folder(Picky(), replace(SMALL, width=100), tmp_path))


def test_a_folder_without_pictures_is_said(tmp_path):
    with pytest.raises(NbsdError, match="no picture in"):
        pictures_in(tmp_path)
    with pytest.raises(NbsdError, match="is no folder"):
        pictures_in(tmp_path / "none")


# --- SD upscale


def test_a_large_picture_is_changed_in_tiles_without_gaps():
    model = Brighter()
    made = sd_upscale(model, SMALL, picture(), upscaler="Nearest", scale=2, overlap=16)
    assert made.image.size == (128, 128) and len(model.asked) == 9
    assert set(made.image.getdata()) == {(0x1A, 0x2A, 0x3A)}
    assert "SD upscale overlap: 16, SD upscale upscaler: Nearest" in made.infotext
    assert [recipe.seed for recipe, _, _ in model.asked] == list(range(5, 14)) and made.recipe.seed == 5


def test_by_none_nothing_is_enlarged_and_what_is_clear_has_the_background():
    model, clear = Brighter(), Image.new("RGBA", (96, 64))
    recipe = replace(SMALL, variation_seed=3, variation_strength=0.5, img2img=replace(SMALL.img2img, background="#204060"))
    script = Script(kind=SD_UPSCALE, upscaler="None", overlap=32)
    made = [one.image for _, one in scripted(model, recipe, script, image=clear, count=2)]
    assert [one.size for one in made] == [(96, 64)] * 2 and made[0].getpixel((0, 0)) == (0x2A, 0x4A, 0x6A)
    # the second picture begins one seed further, not one variation
    assert [(one.seed, one.variation_seed) for one, _, _ in model.asked] == [(5, 3), (6, 3), (6, 3), (7, 3)]


@pytest.mark.parametrize("options, words", [({"overlap": 60}, "overlap is 60"), ({"overlap": 8, "scale": 0.5}, "the scale is 0.5")])
def test_an_sd_upscale_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        sd_upscale(Brighter(), SMALL, picture(), **options)


# --- as the panel says it


def test_a_script_is_done_so_often_and_says_so(tmp_path):
    picture().save(tmp_path / "a.png")
    told: list[Progress] = []
    upscale = Script(kind=SD_UPSCALE, upscaler="Nearest", overlap=0)
    assert [one.recipe.seed for _, one in scripted(Brighter(), SMALL, upscale, image=picture(), count=2, report=told.append)] == [5, 6]
    assert [(one.picture, one.pictures) for one in told] == [(n, 8) for n in range(8)]
    loops = list(scripted(Brighter(), loops_said := replace(SMALL, unknown=(("Note", "x"), ("SD upscale overlap", "64"))),
                          Script(kind=LOOPBACK, loops=2), image=picture(), count=2))
    assert len(loops) == 4 and loops[0][1].recipe.unknown == (("Note", "x"), ("Final denoising strength", "0.5"), ("Denoising curve", "Linear"))
    assert without(loops_said).unknown == (("Note", "x"),)
    assert [name for name, _ in scripted(Brighter(), SMALL, Script(kind=FOLDER, folder=str(tmp_path)), count=2)] == ["a", "a"]
    for script, recipe, words in ((Script(kind=FOLDER), SMALL, "no folder is named"), (upscale, replace(SMALL, inpaint=Inpaint()), "choose img2img"),
                                  (Script(), SMALL, "no script is called 'None'")):
        with pytest.raises(RecipeError, match=words):
            list(scripted(Brighter(), recipe, script, image=picture()))


@pytest.mark.parametrize(("pairs", "script"), [
    ({}, Script()), ({"SD upscale overlap": "32", "SD upscale upscaler": "4x-Fancy"}, Script(kind=SD_UPSCALE, overlap=32, upscaler="4x-Fancy")),
    ({"Final denoising strength": "0.35", "Denoising curve": "Lazy"}, Script(kind=LOOPBACK, final_strength=0.35, curve="Lazy")),
    ({"Final denoising strength": "much", "Denoising curve": "Wild", "SD upscale overlap": "-1"}, Script(kind=SD_UPSCALE)),
], ids=str)
def test_a_script_is_read_from_an_infotext(pairs, script):
    assert from_pairs(pairs, Script(loops=9)) == replace(script, loops=9)
