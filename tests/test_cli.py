"""The command line, with a model that paints grey at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from download_server import Site, model_bytes, serve
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import nbsd
from nbsd import cli
from nbsd.errors import ModelError, RecipeError
from nbsd.events import Loading, Note, Progress
from nbsd.infotext import from_image
from nbsd.picture import Picture
from nbsd.recipe import DRAWN_BELOW, Hires, Img2Img, Inpaint, Recipe, Soft

INFOTEXT = "a cat\nNegative prompt: blurry\nSteps: 7, Sampler: Euler, Schedule type: Karras, CFG scale: 5, Seed: 42, Size: 64x128"


class GreyModel:
    """Makes grey pictures and remembers what it was asked."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, dict]] = []
        self.made: list[Recipe] = []

    def load(self, source, **options):
        if on_progress := options.pop("on_progress", None):
            on_progress(50, 100)
        self.loaded.append((source, options))
        return self

    def make(self, recipe, *, count=1, batch_size=1, report=lambda event: None, image=None, **_):
        self.given = image
        for n in range(count):
            self.made.append(recipe.nth(n))
            for step in range(recipe.steps + 1):
                report(Progress(picture=n, pictures=count, step=step, steps=recipe.steps, seed=recipe.seed, seconds_left=61.0))
            yield Picture(Image.new("RGB", (recipe.width, recipe.height), "grey"), recipe.nth(n))


@pytest.fixture
def model(monkeypatch, tmp_path):
    grey = GreyModel()
    monkeypatch.setitem(vars(nbsd), "load", grey.load)      # setattr would look at the real one first, and load torch
    monkeypatch.chdir(tmp_path)
    return grey


def given(*arguments: str) -> Recipe:
    return cli.recipe_from(cli.parser().parse_args(["generate", "--model", "m", *arguments]))


# --- options ----------------------------------------------------------------------------------------------------------------------

def test_every_field_has_an_option_or_is_named_as_having_none():
    options = set(vars(cli.parser().parse_args(["generate", "--model", "m", *every_option()])))
    assert {field.name for field in fields(Recipe)} - options == cli.NO_OPTION - {"model", "vae", "text_encoder"}


def every_option() -> list[str]:
    options = []
    for field in cli.recipe_fields():
        name = "--" + field.name.replace("_", "-")
        options += [name] if isinstance(field.default, bool) else [name, "1"]
    return options


def test_what_is_not_given_is_the_web_uis_default():
    assert replace(given("--seed", "0"), seed=0) == Recipe()


@pytest.mark.parametrize(("options", "expected"), [
    (["--prompt", "a (cat:1.2)", "--negative-prompt=-x"], {"prompt": "a (cat:1.2)", "negative_prompt": "-x"}),
    (["--steps", "28", "--cfg-scale", "12", "--clip-skip", "2"], {"steps": 28, "cfg_scale": 12.0, "clip_skip": 2}),
    (["--width", "640", "--height", "384", "--ensd", "31337", "--rng", "NV"], {"width": 640, "height": 384, "ensd": 31337, "rng": "NV"}),
    (["--tiling", "--no-unipc-lower-order-final"], {"tiling": True, "unipc_lower_order_final": False}),
])
def test_options(options, expected):
    assert given("--seed", "0", *options) == replace(Recipe(), **expected)


def test_options_of_the_parts():
    assert given("--hires-scale", "1.5").hires == Hires(scale=1.5) and given("--steps", "3").hires is None
    made = given("--img2img-denoising-strength", "0.4", "--inpaint-only-masked", "--inpaint-mask-blur", "8")
    assert made.img2img == Img2Img(denoising_strength=0.4) and made.inpaint == Inpaint(only_masked=True, mask_blur=8)
    parts = {f"{part}.{field.name}" for part, field in cli.part_fields()}
    assert given("--soft-mask-influence", "0.5", "--inpaint-mask-blur", "9").inpaint == Inpaint(mask_blur=9, soft=Soft(mask_influence=0.5))
    kinds = {"img2img": Img2Img, "inpaint": Inpaint, "soft": Soft, "hires": Hires}
    assert {f"{part}.{field.name}" for part, kind in kinds.items() for field in fields(kind)} - parts == {
        "img2img.image_hash", "inpaint.soft"}


def test_a_picture_is_changed(model, capsys):
    Image.new("RGB", (64, 64), "teal").save("a.png")
    assert cli.main(["generate", "--model", "m", "--image", "a.png", "--steps", "2", "--width", "64", "--height", "64"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file() and model.given.size == (64, 64)
    assert cli.main(["generate", "--model", "m", "--image", "none.png"]) == 1
    assert "none.png is not there" in capsys.readouterr().err


def test_pictures_are_made_larger_and_keep_their_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 1, Sampler: Euler, Seed: 1")
    Image.new("RGB", (40, 24), "teal").save("a.png", pnginfo=info)
    for name in ("a-x2.png", "a-x2-2.png"):
        assert cli.main(["upscale", "a.png", "--out", "large"]) == 0
        assert Path(capsys.readouterr().out.strip()) == tmp_path / "large" / name
    with Image.open("large/a-x2.png") as image:
        assert image.size == (80, 48)
    assert from_image("large/a-x2.png").startswith("a cat")
    assert cli.main(["upscale", "a.png", "--upscaler", "4x"]) == 1
    assert "no upscaler called '4x'" in capsys.readouterr().err


def test_a_seed_is_drawn_where_none_is_given():
    seeds = {given().seed for _ in range(4)} | {given("--seed", "-1").seed for _ in range(4)}
    assert len(seeds) > 1
    assert all(0 <= seed < DRAWN_BELOW for seed in seeds)


@pytest.mark.parametrize("arguments", [
    [], ["paint"], ["generate"], ["generate", "--model", "m", "--steps", "many"], ["generate", "--model", "m", "--bogus"], ["info"],
])
def test_a_wrong_use_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: nbsd" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"nbsd {nbsd.__version__}\n")


# --- get --------------------------------------------------------------------------------------------------------------------------

def test_a_file_is_fetched_and_its_path_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = model_bytes()
    with serve(Site(data)) as site:
        assert cli.main(["get", f"{site.url}/a.safetensors", "--to", str(tmp_path / "here")]) == 0
        told = capsys.readouterr()
        assert told.out == f"{tmp_path / 'here' / 'a.safetensors'}\n"
        assert (tmp_path / "here" / "a.safetensors").read_bytes() == data
        assert "fetching a.safetensors: 100% (200 kB of 200 kB" in told.err
        site.statuses = [404]
        assert cli.main(["get", f"{site.url}/b.safetensors", "--to", str(tmp_path / "here")]) == 1
        assert "127.0.0.1 has no 'b.safetensors' any more (404)" in capsys.readouterr().err


def test_what_is_no_link_is_not_fetched(capsys):
    assert cli.main(["get", "model.safetensors"]) == 1
    assert "'model.safetensors' is no link: give owner/repo" in capsys.readouterr().err


# --- generate and info ------------------------------------------------------------------------------------------------------------

def test_pictures_are_saved_and_their_paths_printed(model, capsys):
    assert cli.main(["generate", "--model", "m.safetensors", "--prompt", "cat", "--seed", "5", "--count", "2", "--steps", "20",
                     "--width", "64", "--height", "64", "--vae", "v.pt", "--device", "cpu", "--dtype", "float32", "--out", "there"]) == 0
    told = capsys.readouterr()
    paths = [Path(line) for line in told.out.splitlines()]
    assert [re.sub(r"^.*?(\d{5}-\d+)\.png$", r"\1", str(path)) for path in paths] == ["00001-5", "00002-6"]
    assert all(path.is_relative_to(Path("there").absolute()) and path.is_file() for path in paths)
    assert model.loaded == [
        ("m.safetensors", {"vae": "v.pt", "text_encoder": None, "device": "cpu", "dtype": "float32", "networks": Path("."), "embeddings": Path(".")}),
    ]
    assert "loading m.safetensors: 50%" in told.err
    assert "picture 2 of 2: 100%, 1:01 left" in told.err
    assert len(told.err.splitlines()) < 30      # no terminal: a line every tenth, not every step

    assert cli.main(["info", str(paths[1])]) == 0
    assert capsys.readouterr().out.strip() == model.made[1].infotext()


def test_the_built_in_model_gets_its_own_size():
    for arguments, size in (([], (512, 512)), (["--model", "first"], (128, 128)), (["--model", "first", "--width", "256"], (256, 512))):
        made = given(*arguments)
        assert (made.width, made.height) == size


def test_a_recipe_gets_its_details_and_says_nothing_of_a_script_that_was_not_done(model, capsys, monkeypatch):
    from nbsd.pipeline import jobs

    def played(model, recipe, script, *, count, **_):
        yield from (("", Picture(Image.new("RGB", (8, 8)), replace(recipe.nth(n), prompt=script.detector))) for n in range(count))

    monkeypatch.setattr(jobs, "scripted", played)
    details = INFOTEXT + ", ADetailer model: face.onnx, ADetailer confidence: 0.4"
    assert cli.main(["generate", "--model", "m", "--infotext", details, "--out", "faces", "--count", "2"]) == 0
    texts = [from_image(path) for path in sorted(Path("faces").rglob("*.png"))]
    assert len(texts) == 2 and all(text.startswith("face.onnx") and "ADetailer model: face.onnx" in text for text in texts)
    assert "not done" not in capsys.readouterr().err and not model.made
    looped = INFOTEXT + ", Final denoising strength: 0.5, Denoising curve: Linear"
    assert cli.main(["generate", "--model", "m", "--infotext", looped, "--out", "loops"]) == 0
    assert "tells of Loopback, which is not done here" in capsys.readouterr().err
    assert "curve" not in from_image(next(Path("loops").rglob("*.png")))


@pytest.mark.parametrize("kind", ["text", "text file", "picture"])
def test_a_recipe_from_infotext(model, kind):
    place = Path("recipe.png" if kind == "picture" else "recipe.txt")
    if kind == "text file":
        place.write_text(INFOTEXT)
    if kind == "picture":
        assert cli.main(["generate", "--model", "m", "--infotext", INFOTEXT, "--out", "first"]) == 0
        place = next(Path("first").rglob("*.png"))
    assert cli.main(["generate", "--model", "m", "--steps", "9", "--infotext", INFOTEXT if kind == "text" else str(place)]) == 0
    made = model.made[-1]
    assert (made.prompt, made.negative_prompt, made.sampler, made.schedule) == ("a cat", "blurry", "Euler", "Karras")
    assert (made.steps, made.cfg_scale, made.seed, made.width, made.height) == (9, 5.0, 42, 64, 128)     # --steps goes over the recipe's


def test_info_without_a_recipe(model, capsys):
    Image.new("RGB", (8, 8)).save("bare.png")
    Path("text.png").write_text("no picture")
    for name in ("bare.png", "text.png", "missing.png"):
        assert cli.main(["info", name]) == 1
        told = capsys.readouterr().err
        assert name in told
        assert told.count("\n") == 1


# --- reproduce and convert --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("close", [True, False])
def test_reproduce_prints_the_recipe_that_was_found(model, monkeypatch, capsys, close):
    asked = {}

    def reproduce(picture, loaded, **options):
        options.pop("report")(Note("a sentence"))
        asked.update(options, picture=picture, loaded=loaded)
        return SimpleNamespace(recipe=Recipe.from_infotext(INFOTEXT), close=close)
    monkeypatch.setitem(vars(nbsd), "reproduce", reproduce)
    arguments = ["reproduce", "one.png", "--model", "m", "--vae", "v.pt", "--vae", "w.pt", "--steps", "8", "--device", "cpu"]
    assert cli.main(arguments) == (0 if close else 1)
    assert asked == {"picture": "one.png", "loaded": model, "recipe": None, "steps": 8, "vaes": ["v.pt", "w.pt"]}
    assert model.loaded == [("m", {"device": "cpu", "dtype": None, "networks": Path("."), "embeddings": Path(".")})]
    told = capsys.readouterr()
    assert told.out.strip() == INFOTEXT
    assert "nbsd: a sentence\n" in told.err
    assert cli.main([*arguments, "--infotext", INFOTEXT]) == (0 if close else 1)
    assert asked["recipe"] == Recipe.from_infotext(INFOTEXT)


@pytest.mark.parametrize(("to", "text", "expected"), [
    ("webui", "{masterpiece}, [[lowres]]", "(masterpiece:1.05), (lowres:0.907)"),
    ("novelai", "(masterpiece:1.1025), (cat:1.3)", "{{masterpiece}}, 1.3::cat::"),
])
def test_convert(capsys, to, text, expected):
    assert cli.main(["convert", text, "--to", to]) == 0
    assert capsys.readouterr().out == expected + "\n"


def test_convert_says_what_it_cannot(capsys):
    assert cli.main(["convert", "[a:b:0.5]", "--to", "novelai"]) == 1
    assert "NovelAI's prompt language has no" in capsys.readouterr().err


# --- when something goes wrong ----------------------------------------------------------------------------------------------------

def test_a_wrong_recipe_is_told_before_the_model_is_loaded(model, capsys):
    assert cli.main(["generate", "--model", "m", "--width", "100", "--steps", "0", "--sampler", "Eulr"]) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in ("100", "steps", "Eulr"))
    assert model.loaded == []
    assert not Path("outputs").exists()


@pytest.mark.parametrize("error", [ModelError("m is a LoRA"), RecipeError("no")])
def test_an_error_is_one_sentence(model, monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error
    monkeypatch.setitem(vars(nbsd), "load", fail)
    assert cli.main(["generate", "--model", "m"]) == 1
    told = capsys.readouterr()
    assert f"nbsd: {error}\n" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_ctrl_c_keeps_what_is_finished(model, monkeypatch, capsys):
    def make(recipe, **_):
        yield Picture(Image.new("RGB", (64, 64)), recipe)
        raise KeyboardInterrupt
    monkeypatch.setattr(model, "make", make)
    assert cli.main(["generate", "--model", "m", "--count", "3"]) == 130
    told = capsys.readouterr()
    assert Path(told.out.strip()).is_file()
    assert "stopped" in told.err


def test_a_terminal_gets_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = cli.ProgressLine()
    line.tell(Loading("a-long-name.safetensors"))
    for step in range(5):
        line.tell(Progress(picture=0, pictures=1, step=step, steps=4, seed=1))
    line.tell(Note("a note"))
    line.clear()
    told = capsys.readouterr().err
    assert told.count("\n") == 1                            # the note's
    assert re.sub(r"\s*\r\s*", "|", told).startswith("|loading a-long-name.safetensors|picture 1 of 1: 0%|")


# --- lab --------------------------------------------------------------------------------------------------------------------------

def test_lab_writes_the_quick_start_once(model, monkeypatch):
    started: list[list[str]] = []

    def started_with(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)
    monkeypatch.setattr(cli.subprocess, "run", started_with)
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: object())
    assert cli.main(["lab", "--no-browser"]) == 0
    assert started == [[sys.executable, "-m", "jupyterlab", "quickstart.ipynb", "--no-browser"]]
    notebook = json.loads(Path("quickstart.ipynb").read_text())
    assert [cell["source"] for cell in notebook["cells"]] == ["from nbsd import Studio", "Studio().show()"]
    Path("quickstart.ipynb").write_text("mine")
    assert cli.main(["lab"]) == 0
    assert Path("quickstart.ipynb").read_text() == "mine"


def test_lab_without_jupyterlab(model, monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["lab"]) == 1
    assert "pip install 'nbsd[lab]'" in capsys.readouterr().err


def test_python_m_nbsd_is_nbsd():
    told = subprocess.run([sys.executable, "-m", "nbsd", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"nbsd {nbsd.__version__}\n"
