"""pipeline/boxes.py and details.py: the face and detail pass, with detectors that are played."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import nbsd
from nbsd import Recipe
from nbsd.errors import NbsdError, RecipeError
from nbsd.events import Progress
from nbsd.pipeline import details
from nbsd.pipeline.boxes import Found, apart, find_detector, read_answer
from nbsd.pipeline.details import detailed
from nbsd.pipeline.jobs import scripted
from nbsd.pipeline.scripts import DETAILS, Script, from_pairs, said
from nbsd.recipe import Img2Img

RECIPE = Recipe(prompt="a cat", steps=2, sampler="Euler", width=64, height=64, seed=7, rng="CPU", img2img=Img2Img())
FACES = [Found((20, 30, 60, 70), 0.9), Found((120, 40, 170, 100), 0.4)]


def picture() -> Image.Image:
    return Image.merge("RGB", [Image.radial_gradient("L").rotate(turn).resize((200, 150)) for turn in (0, 90, 180)])


def faces(image: Image.Image, least: float) -> list[Found]:
    assert image.mode == "RGB"
    return [one for one in FACES if one.confidence >= least]


def test_only_what_was_found_is_painted_anew(tiny_model):
    model, told = nbsd.load(tiny_model, device="cpu"), []
    made = detailed(model, RECIPE, picture(), detector=faces, report=told.append)
    changed = (np.asarray(made.image) != np.asarray(picture())).any(axis=2)
    inside = np.zeros_like(changed)
    for left, top, right, bottom in (one.box for one in FACES):
        assert changed[top:bottom, left:right].mean() > 0.5
        inside[top - 16 : bottom + 16, left - 16 : right + 16] = True       # the mask's blur reaches a little farther
    assert made.image.size == (200, 150) and not changed[~inside].any()
    assert {(one.picture, one.pictures) for one in told if isinstance(one, Progress)} == {(0, 2), (1, 2)}
    assert "ADetailer model: faces, ADetailer confidence: 0.3, ADetailer dilate erode: 4, ADetailer mask blur: 4" in made.infotext
    script = from_pairs(said(Recipe.from_infotext(made.infotext)), Script(detail_prompt="x", detail_strength=0.9))
    assert script == Script(kind=DETAILS, detector="faces", confidence=0.3, detail_strength=0.4)
    sure = detailed(model, RECIPE, picture(), detector=faces, confidence=0.5, prompt="a face")
    assert not (np.asarray(sure.image) != np.asarray(picture()))[:, 100:].any() and sure.recipe.prompt == "a face"


def test_the_script_of_the_panel(monkeypatch):
    asked = []

    class Same:
        def make(self, recipe, *, image, mask, **_):
            asked.append((recipe.seed, recipe.img2img.denoising_strength, mask.getbbox()))
            yield nbsd.Picture(image, recipe)

    monkeypatch.setattr(details, "find_detector", lambda name: faces)
    script = Script(kind=DETAILS, confidence=0.35)
    assert [one.recipe.seed for _, one in scripted(Same(), RECIPE, script, image=picture(), count=2)] == [7, 8]
    assert asked[:2] == [(7, 0.4, (16, 26, 64, 74)), (8, 0.4, (116, 36, 174, 104))] and asked[2][0] == 8
    with pytest.raises(NbsdError, match=r"found nothing in the picture: try a lower confidence than 0\.95"):
        list(scripted(Same(), RECIPE, replace(script, confidence=0.95), image=picture()))
    with pytest.raises(RecipeError, match="confidence of the detail pass is 3"):
        list(scripted(Same(), RECIPE, replace(script, confidence=3), image=picture()))


@pytest.mark.parametrize(("name", "words"), [("mediapipe", "mediapipe is not installed"), ("face.pt", "is a pickle, which could run anything"),
                                             ("face", "no detector is called 'face'"), ("face.onnx", "there is no detector face.onnx")])
def test_a_detector_that_is_not_there_is_one_sentence(monkeypatch, name, words):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(NbsdError, match=words) as told:
        find_detector(name)(picture(), 0.3)
    assert "\n" not in str(told.value)


def test_onnxruntime_is_asked_for_only_then(monkeypatch, tmp_path):
    (tmp_path / "face.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NbsdError, match="onnxruntime is not installed"):
        find_detector(str(tmp_path / "face.onnx"))


@pytest.mark.parametrize(("shape", "answer", "more"), [
    ([1, 3, 320, 320], [[[160, 10], [160, 10], [80, 4], [48, 4], [0.9, 0.1]]], 0),                              # version 8, one class
    ([1, 3, "h", "w"], [[[320, 10], [320, 10], [160, 4], [96, 4], [0.2, 0.0], [0.9, 0.1], *[[99, 99]] * 32]], 1),     # segmenting, two classes
    ([1, 3, 320, 320], [[[120, 136, 200, 184, 0.9, 0], [8, 8, 12, 12, 0.1, 0]]], 0),                             # version 10
], ids=["8", "segments", "10"])
def test_a_yolo_looks_at_the_whole_picture_and_its_boxes_come_back(monkeypatch, tmp_path, shape, answer, more):
    seen = []

    class Session:
        def __init__(self, path, providers):
            assert path.endswith("face.onnx")

        def get_inputs(self):
            return [SimpleNamespace(name="images", shape=shape)]

        def run(self, _, given):
            seen.append(given["images"])
            return [np.array(answer, dtype=np.float32), *[np.zeros(1)] * more]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    (tmp_path / "face.onnx").write_bytes(b"x")
    found = find_detector(str(tmp_path / "face.onnx"))(Image.new("RGB", (200, 100), "white"), 0.3)
    assert [(one.box, round(one.confidence, 3)) for one in found] == [((75, 35, 125, 65), 0.9)]
    side = 320 if shape[2] == 320 else 640
    assert seen[0].shape == (1, 3, side, side) and seen[0][0, 0, side // 2].min() == 1 and seen[0][0, 0, 0, 0] == np.float32(114 / 255)


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
    assert find_detector("MediaPipe")(picture(), 0.25) == [Found((0, 30, 40, 90), 0.8)]


def test_faces_by_mediapipe_with_a_file(monkeypatch, tmp_path):
    class Finder:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def detect(self, pixels):
            assert pixels.data.shape == (150, 200, 3)
            box = SimpleNamespace(origin_x=20, origin_y=30, width=40, height=40)
            return SimpleNamespace(detections=[SimpleNamespace(bounding_box=box, categories=[SimpleNamespace(score=0.75)])])

    def create(options):
        if not options.base_options.model_asset_path.endswith("face.tflite"):
            raise RuntimeError("no model")
        assert options.min_detection_confidence == 0.25
        return Finder()

    vision = SimpleNamespace(FaceDetectorOptions=SimpleNamespace, FaceDetector=SimpleNamespace(create_from_options=create))
    module, parent, tasks = ModuleType("mediapipe"), ModuleType("mediapipe.tasks"), ModuleType("mediapipe.tasks.python")
    module.tasks, module.ImageFormat, module.Image = SimpleNamespace(BaseOptions=SimpleNamespace), SimpleNamespace(SRGB=1), SimpleNamespace
    tasks.vision = vision
    for one in (module, parent, tasks):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    for name in ("face.tflite", "other.tflite"):
        (tmp_path / name).write_bytes(b"x")
    assert find_detector(str(tmp_path / "face.tflite"))(picture(), 0.25) == [Found((20, 30, 60, 70), 0.75)]
    with pytest.raises(NbsdError, match="other.tflite is no face detector of MediaPipe"):
        find_detector(str(tmp_path / "other.tflite"))(picture(), 0.25)
