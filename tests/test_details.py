"""pipeline/boxes.py and details.py: the face and detail pass, with detectors that are played."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import nbsd
from nbsd import Recipe
from nbsd.errors import NbsdError, RecipeError, Stopped
from nbsd.events import Note, Progress
from nbsd.pipeline import boxes, details
from nbsd.pipeline.adetailer import Detail
from nbsd.pipeline.boxes import Found, apart, find_detector, read_answer
from nbsd.pipeline.details import detailed, turned, with_details
from nbsd.pipeline.jobs import scripted
from nbsd.pipeline.progress import calls_of
from nbsd.pipeline.regions import masks_of
from nbsd.pipeline.scripts import DETAILS, Script, from_pairs, said
from nbsd.recipe import Hires, Img2Img, Inpaint

RECIPE = Recipe(prompt="a cat", steps=2, sampler="Euler", width=64, height=64, seed=7, rng="CPU")
CHANGE = replace(RECIPE, img2img=Img2Img())
FACES = [Found((20, 30, 60, 70), 0.9), Found((120, 40, 170, 100), 0.4)]
FACE = Detail(detector="face")


def picture() -> Image.Image:
    return Image.merge("RGB", [Image.radial_gradient("L").rotate(turn).resize((200, 150)) for turn in (0, 90, 180)])


def faces(image: Image.Image, least: float) -> list[Found]:
    assert image.mode == "RGB"
    return [one for one in FACES if one.confidence >= least]


class Played:
    """A model that paints what is masked with a grey of its own for each run, and tells ten steps of each."""

    folders: tuple[Path, ...] = ()

    def __init__(self, stop_at: int = 99) -> None:
        self.asked: list[tuple[Recipe, tuple[int, ...] | None]] = []
        self.others: dict[str, Played] = {}
        self._stop_at = stop_at

    def other(self, title: str) -> Played:
        """The model of another checkpoint."""
        self.others[title] = Played()
        return self.others[title]

    def make(self, recipe, *, image=None, mask=None, count=1, batch_size=1, report, after=None, **_):
        for first in range(0, count, batch_size):
            for step in (0, 10):
                report(Progress(first, count, step, 10, recipe.seed, rate=5.0))
            report(Note("The same note each time."))
            for one in (recipe.nth(number) for number in range(first, min(first + batch_size, count))):
                self.asked.append((one, mask and mask.getbbox()))
                if len(self.asked) >= self._stop_at:
                    raise Stopped("stopped")
                out = (image or Image.new("RGB", (200, 150))).copy()
                out.paste((len(self.asked),) * 3, mask=mask or Image.new("L", out.size, 255))
                yield nbsd.Picture(after(out, one) if after else out, replace(one, model="m [0123456789]"))


def run(model, recipe, *details, told=None, **more):
    return list(with_details(model, recipe, details or [FACE], find=lambda name: faces, report=(told if told is not None else []).append, **more))


def test_each_new_picture_gets_its_details():
    model, told = Played(), []
    recipe = replace(RECIPE, hires=Hires(sampler="Heun"), variation_seed=3)
    made = run(model, recipe, told=told, count=3, batch_size=2)
    seeds = [(one.seed, one.variation_seed, mask) for one, mask in model.asked]
    masks = (19, 29, 62, 72), (119, 39, 172, 102)
    assert seeds == [pair for seed in (7, 8, 9) for pair in ((seed, 3, None), (seed, 3, masks[0]), (seed + 1, 4, masks[1]))]
    inner = model.asked[1][0]
    assert (inner.hires, inner.inpaint, inner.img2img) == (None, Inpaint(only_masked=True), Img2Img(denoising_strength=0.4))
    assert [(one.image.getpixel((0, 0))[0], one.image.getpixel((30, 40))[0], one.image.getpixel((130, 60))[0]) for one in made] == [
        (1, 2, 3), (4, 5, 6), (7, 8, 9)]
    text = made[1].infotext
    assert "Seed: 8," in text and text.count("enoising strength") == 2 and "Mask blur" not in text and "Hires sampler: Heun" in text
    assert "ADetailer model: face, ADetailer confidence: 0.3, ADetailer dilate erode: 4, ADetailer mask blur: 4, ADetailer denoising" in text
    assert "ADetailer version: 25.3.0, Hires" in text       # in the web UI an extension speaks before the second pass
    # Of each batch all steps are counted: one box a pass was expected, then two; the last step is the last of all
    steps = [(one.picture, one.step, one.steps, one.seed) for one in told if isinstance(one, Progress)]
    calls = calls_of(inner)
    assert steps[:2] == [(0, 0, 10 + 2 * calls, 7), (0, 10, 10 + 2 * calls, 7)] and (2, 10, 10 + 2 * calls, 7) in steps
    assert {first: [(step, of) for one, step, of, _ in steps if one == first][-1] for first in (0, 2)} == {0: (10 + 3 * calls + 10, 20 + 3 * calls),
                                                                                                          2: (20 + calls, 20 + calls)}
    assert all(step <= of for _, step, of, _ in steps) and len([one for one in told if isinstance(one, Note)]) == 1
    assert [one.seconds_left for one in told if isinstance(one, Progress)][1] == ((2 * calls) + (10 + 2 * calls)) / 5


def test_two_detectors_with_prompts_of_their_own():
    model = Played()
    run(model, replace(RECIPE, negative_prompt="bad"), Detail(detector="a", prompt="one [SEP] [SKIP] [SEP]two, [PROMPT]", merge="None"),
        Detail(detector="b", negative_prompt="worse[SEP]", steps=5, cfg_scale=2.0, width=128, height=96, clip_skip=2, noise_multiplier=0.5,
               sampler="Euler a", schedule="Karras", only_masked=False, mask_blur=9, strength=0.7, confidence=0.5, checkpoint="small [0123456789]"))
    [_, first], [second] = ([one for one, _ in by.asked] for by in (model, model.others["small [0123456789]"]))
    assert (first.prompt, first.negative_prompt, second.prompt, second.negative_prompt, second.seed) == ("one", "bad", "a cat", "worse", 7)
    assert (second.steps, second.cfg_scale, second.width, second.height, second.clip_skip, second.sampler, second.schedule) == (
        5, 2.0, 128, 96, 2, "Euler a", "Karras")
    assert second.img2img == Img2Img(denoising_strength=0.7, noise_multiplier=0.5) and second.inpaint == Inpaint(mask_blur=9)
    [alone] = run(model, replace(CHANGE, img2img=Img2Img(denoising_strength=0.0)), Detail(detector="a", checkpoint="Use same checkpoint"),
                  Detail(detector="b", checkpoint="other"), image=picture())
    assert alone.recipe.model == "m [0123456789]" and list(model.others) == ["small [0123456789]", "other"]


@pytest.mark.parametrize(("sampler", "schedule", "version", "wanted"), [
    ("", "Karras", "v1.10.1", ("Euler", "Exponential")), ("Use same sampler", "", "v1.10.1", ("Euler", "Exponential")),
    ("DPM++ 2M", "", "v1.10.1", ("DPM++ 2M", "Exponential")), ("DPM++ 2M", "Use same scheduler", "v1.10.1", ("DPM++ 2M", "Exponential")),
    ("DPM++ 2M Karras", "", "v1.6.0", ("DPM++ 2M", "Karras")), ("Euler a", "", "v1.6.0", ("Euler a", "Automatic")),
])
def test_the_sampler_of_a_pass(sampler, schedule, version, wanted):
    one = turned(replace(RECIPE, schedule="Exponential", version=version), replace(FACE, sampler=sampler, schedule=schedule), 0, ("", ""))
    assert (one.sampler, one.schedule) == wanted


def test_what_was_made_is_kept_where_nothing_is_found_and_where_the_rest_fails():
    told: list = []
    [plain] = run(Played(), RECIPE, replace(FACE, confidence=0.95), told=told)
    assert plain.image.getextrema() == ((1, 1),) * 3 and "ADetailer model" in plain.infotext
    assert told[-1] == Note("Nothing was found in the picture of seed 7: it is as it was made.")
    # Stopped in the second box of the first of two pictures: it is yielded with the first box
    made = with_details(Played(stop_at=3), RECIPE, [FACE], find=lambda name: faces, count=2)
    first = next(made).image
    assert (first.getpixel((30, 40)), first.getpixel((130, 60))) == ((2, 2, 2), (1, 1, 1))
    with pytest.raises(Stopped):
        next(made)

    def broken(image, least):
        raise NbsdError("it answers as no YOLO does")

    made = with_details(Played(), RECIPE, [FACE], find=lambda name: broken, count=2)
    assert next(made).image.getpixel((0, 0)) == (1, 1, 1)
    with pytest.raises(NbsdError, match="as no YOLO does"):
        next(made)


def test_a_given_picture_is_changed_first_or_only_its_details_are():
    model = Played()
    [made] = run(model, CHANGE, image=picture())
    assert len(model.asked) == 3 and made.image.getpixel((0, 0)) == (1, 1, 1) and "Denoising strength: 0.75" in made.infotext
    model, how = Played(), replace(CHANGE, img2img=Img2Img(denoising_strength=0.0))
    made = run(model, how, image=picture(), count=2)
    assert [one.recipe.seed for one in made] == [7, 8] and len(model.asked) == 4 and made[0].recipe.model == "m [0123456789]"
    assert made[1].image.getpixel((0, 0)) == picture().getpixel((0, 0)) and made[1].image.getpixel((30, 40)) == (3, 3, 3)
    assert made[0].recipe.inpaint is None and made[0].recipe.img2img.denoising_strength == 0
    with pytest.raises(NbsdError, match=r"found nothing in the picture: try a lower confidence than 0\.95"):
        run(model, how, replace(FACE, confidence=0.95), image=picture())
    with pytest.raises(NbsdError, match="was skipped"):
        run(model, how, replace(FACE, prompt="[SKIP]"), image=picture())


def test_of_an_inpainted_picture_only_what_was_to_change_gets_details():
    mask = Image.new("L", (200, 150))
    mask.paste(255, (0, 0, 30, 60))
    wide = replace(CHANGE, width=200, height=152)
    for how, wanted in ((Inpaint(), [(19, 29, 62, 72)]), (Inpaint(invert=True), [(19, 29, 62, 72), (119, 39, 172, 102)]),
                        (Inpaint(only_masked=True), [(19, 29, 62, 72), (119, 39, 172, 102)])):     # the box alone is seen then, as it is
        model = Played()
        run(model, replace(wide, inpaint=how), image=picture(), mask=mask)
        assert [box for _, box in model.asked[1:]] == wanted, how


def test_the_script_of_the_panel(monkeypatch):
    monkeypatch.setattr(details, "find_detector", lambda name, folders: faces)
    recipe, script = replace(RECIPE, unknown=(("Denoising curve", "Lazy"),)), Script(kind=DETAILS, detector="a, b", confidence=0.35, detail_prompt="c")
    model = Played()
    [(name, one), _] = scripted(model, recipe, script, count=2, batch_size=2)
    assert name == "" and len(model.asked) == 10 and "Denoising curve" not in one.infotext
    assert from_pairs(said(Recipe.from_infotext(one.infotext)), Script()) == script
    before = len(model.asked)
    for wrong, words in ((replace(script, confidence=3), "confidence of the detail pass is 3"), (replace(script, detector=" , "), "no detector is named"),
                         (replace(script, detail_strength=7), "denoising strength of the detail pass is 7")):
        with pytest.raises(RecipeError, match=words):
            list(scripted(model, recipe, wrong))
    monkeypatch.undo()
    with pytest.raises(NbsdError, match="there is no detector a"):
        list(scripted(model, recipe, script))
    assert len(model.asked) == before


def test_a_new_picture_with_details_is_that_picture_inpainted(tiny_model):
    """The recorded road: the picture, then each box by hand."""
    model, recipe = nbsd.load(tiny_model, device="cpu"), replace(RECIPE, width=128, height=96)
    [plain] = model.generate(recipe)
    found = [Found((20, 20, 50, 60), 0.9), Found((70, 10, 120, 50), 0.4)]
    [made] = with_details(model, recipe, [replace(FACE, prompt="a dog")], find=lambda name: lambda image, least: found)
    by_hand = plain
    for number, box in enumerate(((19, 19, 52, 62), (69, 9, 122, 52))):
        mask = Image.new("L", (128, 96))
        mask.paste(255, box)
        how = replace(recipe, prompt="a dog", seed=7 + number, img2img=Img2Img(denoising_strength=0.4), inpaint=Inpaint(only_masked=True))
        [by_hand] = model.generate(how, image=by_hand, mask=mask)
    assert made.image.tobytes() == by_hand.image.tobytes() != plain.image.tobytes() and made.latent is None
    assert made.infotext.startswith(plain.infotext.rpartition(", Version")[0] + ", ADetailer model: face, ADetailer prompt: a dog")


def test_only_what_was_found_is_painted_anew(tiny_model):
    model, told = nbsd.load(tiny_model, device="cpu"), []
    made = detailed(model, RECIPE, picture(), detector=faces, report=told.append)
    changed = (np.asarray(made.image) != np.asarray(picture())).any(axis=2)
    inside = np.zeros_like(changed)
    for left, top, right, bottom in (one.box for one in FACES):
        assert changed[top:bottom, left:right].mean() > 0.5
        inside[top - 16 : bottom + 16, left - 16 : right + 16] = True       # the mask's blur reaches a little farther
    assert made.image.size == (200, 150) and not changed[~inside].any()
    seen = [one for one in told if isinstance(one, Progress)]
    assert {(one.picture, one.pictures) for one in seen} == {(0, 1)} and seen[-1].step == seen[-1].steps == 2
    script = from_pairs(said(Recipe.from_infotext(made.infotext)), Script(detail_prompt="x", detail_strength=0.9))
    assert script == Script(kind=DETAILS, detector="faces", confidence=0.3, detail_strength=0.4)


@pytest.mark.parametrize(("name", "words"), [("mediapipe", "mediapipe is not installed"), ("mediapipe_face_short", "mediapipe is not installed"),
                                             ("mediapipe_face_mesh", "only mediapipe_face_full and mediapipe_face_short"),
                                             ("face.pt", r"neither face.onnx nor face.pt: .* needs the package ultralytics; yolo export model=face.pt"),
                                             ("face", "there is no detector face: put a YOLO"), ("face.onnx", "(.tflite) into {}, or use mediapipe"),
                                             ("a/face.tflite", "there is no detector a/face.tflite")])
def test_a_detector_that_is_not_there_is_one_sentence(monkeypatch, tmp_path, name, words):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    (tmp_path / "adetailer").mkdir()
    (tmp_path / "adetailer/hand.pt").write_bytes(b"x")
    with pytest.raises(NbsdError) as told:
        find_detector(name, [tmp_path])
    assert str(told.value).endswith("; there are hand.pt") or "mesh" in name        # what could be named instead
    where = words.replace("{}", str(tmp_path / "adetailer"))
    assert where in str(told.value) or re.search(words, str(told.value))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("name", "file", "folder"), [
    ("face_yolov8n.pt", "adetailer/face_yolov8n.onnx", ""), ("hand.onnx", "hand.onnx", ""), ("person-seg", "ultralytics/segm/person-seg.onnx", ""),
    ("a b y8n.pt", "models/adetailer/a b y8n.onnx", ""), ("face.pth", "models/adetailer/face.onnx", "models/Stable-diffusion"), ("{}/x/face.pt", "x/face.onnx", ""),
    ("face_yolov8n.pt", "adetailer/face_yolov8n.pt", ""), ("face", "face.pth", ""),
])
def test_a_detector_is_found_where_its_users_have_it(monkeypatch, tmp_path, name, file, folder):
    monkeypatch.setattr(boxes, "KINDS", {ending: lambda path: path for ending in boxes.KINDS})
    if file.endswith(".onnx"):      # before any pickle
        (tmp_path / "nowhere").mkdir()
        (tmp_path / "nowhere" / Path(file).with_suffix(".pt").name).write_bytes(b"x")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    if "models/" in file or folder:
        (tmp_path / "models/Stable-diffusion").mkdir(parents=True, exist_ok=True)       # a folder of A1111
    assert find_detector(name.replace("{}", str(tmp_path)), [tmp_path / "nowhere", tmp_path / folder]) == tmp_path / file


def test_onnxruntime_is_asked_for_only_then(monkeypatch, tmp_path):
    (tmp_path / "face.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NbsdError, match="onnxruntime is not installed"):
        find_detector(str(tmp_path / "face.onnx"))


@pytest.mark.parametrize(("shape", "answer", "more"), [
    ([1, 3, 320, 320], [[[160, 10], [160, 10], [80, 4], [48, 4], [0.9, 0.1]]], 0),                              # version 8, one class
    ([1, 3, "h", "w"], [[[320, 10], [320, 10], [160, 4], [96, 4], [0.2, 0.0], [0.9, 0.1], [1, 0], *[[0, 0]] * 31]], 1),      # segmenting, two classes
    ([1, 3, 320, 320], [[[120, 136, 200, 184, 0.9, 0], [8, 8, 12, 12, 0.1, 0]]], 0),                             # version 10
], ids=["8", "segments", "10"])
def test_a_yolo_looks_at_the_whole_picture_and_its_boxes_come_back(monkeypatch, tmp_path, shape, answer, more):
    seen = []
    patterns = np.full((1, 32, 160, 160), -1, dtype=np.float32)
    patterns[0, 0, :, 70:] = 1      # the object is there, cut off at its box: 280 of 640 are 43.75 % from the left

    class Session:
        def __init__(self, path, providers):
            assert path.endswith("face.onnx")

        def get_inputs(self):
            return [SimpleNamespace(name="images", shape=shape)]

        def run(self, _, given):
            seen.append(given["images"])
            return [np.array(answer, dtype=np.float32), *[patterns] * more]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    (tmp_path / "face.onnx").write_bytes(b"x")
    found = find_detector(str(tmp_path / "face.onnx"))(Image.new("RGB", (200, 100), "white"), 0.3)
    assert [(one.box, round(one.confidence, 3)) for one in found] == [((75, 35, 126, 66), 0.9)]
    if more:
        assert found[0].outline.size == (200, 100) and found[0].outline.point(lambda value: value > 127 and 255).getbbox() == (87, 35, 125, 65)
        [mask] = masks_of(found, Detail(detector="a", dilate=4), (200, 100))
        assert mask.point(lambda value: value > 127 and 255).getbbox() == (86, 34, 127, 67)
    else:
        assert found[0].outline is None
    side = 320 if shape[2] == 320 else 640
    assert seen[0].shape == (1, 3, side, side) and seen[0][0, 0, side // 2].min() == 1 and seen[0][0, 0, 0, 0] == np.float32(114 / 255)


def test_a_pickled_yolo_looks_at_no_more_than_it_must(monkeypatch, tmp_path):
    seen = []

    def answers(pixels):
        seen.append(pixels.shape)
        return [np.array([[[320], [160], [160], [96], [0.9]]], dtype=np.float32)]

    monkeypatch.setattr("nbsd.pipeline.boxes.load_yolo", lambda path: answers)
    (tmp_path / "face.pt").write_bytes(b"x")
    assert [one.box for one in find_detector("face.pt", [tmp_path])(Image.new("RGB", (200, 100)), 0.3)] == [(75, 35, 126, 66)]
    assert find_detector("face.pt", [tmp_path])(Image.new("RGB", (100, 150)), 0.3) and seen == [(1, 3, 320, 640), (1, 3, 640, 448)]


def test_boxes_that_lie_over_each_other_are_one():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [50, 50, 60, 60]], dtype=np.float32)
    assert apart(boxes, np.array([0.5, 0.9, 0.4, 0.2]), 0.3) == [1, 2]
    assert read_answer(np.zeros((5, 7)))[0].shape == (7, 4)


def test_faces_by_mediapipe(monkeypatch):
    class Finder:
        def __init__(self, model_selection, min_detection_confidence):
            assert min_detection_confidence == 0.25

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def process(self, pixels):
            assert pixels.shape == (150, 200, 3)
            at = SimpleNamespace(xmin=-0.1, ymin=0.2, width=0.3, height=0.4)
            one = SimpleNamespace(location_data=SimpleNamespace(relative_bounding_box=at), score=[0.8])
            return SimpleNamespace(detections=[one])

    module = ModuleType("mediapipe")
    monkeypatch.setitem(sys.modules, "mediapipe", module)
    with pytest.raises(NbsdError, match="this mediapipe brings no model along"):       # from version 1.0 on
        find_detector("mediapipe")(picture(), 0.25)
    module.solutions = SimpleNamespace(face_detection=SimpleNamespace(FaceDetection=Finder))
    assert find_detector("MediaPipe")(picture(), 0.25) == [Found((0, 30, 41, 91), 0.8)]


def test_faces_by_mediapipe_with_a_file(monkeypatch, tmp_path):
    class Finder:
        fails = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def detect(self, pixels):
            if self.fails:
                raise RuntimeError("Graph failed:\nno boxes")
            assert pixels.data.shape == (150, 200, 3)
            box = SimpleNamespace(origin_x=20, origin_y=30, width=40, height=40)
            return SimpleNamespace(detections=[SimpleNamespace(bounding_box=box, categories=[SimpleNamespace(score=0.75)])])

    def create(options):
        Finder.fails = options.base_options.model_asset_path.endswith("full.tflite")
        if options.base_options.model_asset_path.endswith("other.tflite"):
            raise RuntimeError("no model")
        assert options.min_detection_confidence == 0.25
        return Finder()

    vision = SimpleNamespace(FaceDetectorOptions=SimpleNamespace, FaceDetector=SimpleNamespace(create_from_options=create))
    module, parent, tasks = ModuleType("mediapipe"), ModuleType("mediapipe.tasks"), ModuleType("mediapipe.tasks.python")
    module.tasks, module.ImageFormat, module.Image = SimpleNamespace(BaseOptions=SimpleNamespace), SimpleNamespace(SRGB=1), SimpleNamespace
    tasks.vision = vision
    for one in (module, parent, tasks):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    for name in ("face.tflite", "other.tflite", "full.tflite"):
        (tmp_path / name).write_bytes(b"x")
    assert find_detector(str(tmp_path / "face.tflite"))(picture(), 0.25) == [Found((20, 30, 61, 71), 0.75)]
    for name, why in (("other", "no model"), ("full", "Graph failed: no boxes")):
        with pytest.raises(NbsdError, match=rf"{name}.tflite is no face detector that this MediaPipe can run \({why}\)"):
            find_detector(str(tmp_path / f"{name}.tflite"))(picture(), 0.25)
