"""Detectors that the user has installed: where in a picture faces, hands or people are. Nothing of them is imported before it is asked for.

A file is MediaPipe's face detector (.tflite), or a YOLO detector in the open ONNX format, run by onnxruntime: its three usual outputs are
understood. Such models also go around as .pt, pickles of whole programs: the .onnx file of the same name is taken for them, else
`models/yolo.py` reads them with ultralytics' layers, where the user has that package. "mediapipe" alone finds faces with the model that
versions before 1.0 brought along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nbsd.errors import ModelError, NbsdError, RecipeError
from nbsd.images.masks import Box
from nbsd.models.scan import places
from nbsd.models.yolo import ONCE, PATTERNS, load_yolo

Array = np.ndarray[Any, np.dtype[Any]]

MEDIAPIPE = "mediapipe"
FACES = {MEDIAPIPE: 1, "mediapipe_face_full": 1, "mediapipe_face_short": 0}     # which of MediaPipe's models: for faces far away, and near
PICKLES = (".pt", ".pth")
HOME = "adetailer"              # the folder that the extension's users have beside their other models
AMONG, NAMED = (HOME, "bbox", "segm"), 6    # folders that have nothing else in them; how many of their files an error names at most
HOMES = ("", HOME, "ultralytics/bbox", "ultralytics/segm")
SIDE, STEP = 640, 32                # of what YOLO looks at, in pixels, where the file does not say
GREY = (114, 114, 114)              # the colour around the picture
OVERLAP = 0.7                       # two boxes that share more of their area are one; the usual value for YOLO


class Found(NamedTuple):
    """Something that was found."""

    box: Box                # pixels of the picture
    confidence: float       # 0 to 1
    outline: Image.Image | None = None      # "L" of the picture's size, white where it is, from detectors that find that too


Detector = Callable[[Image.Image, float], list[Found]]      # (RGB picture, least confidence) -> the surest first


def find_detector(name: str, folders: Sequence[Path] = ()) -> Detector:
    """The detector of a name: "mediapipe" or the extension's names for it, the path of a file, or the name of one in the folders of models.

    Raises NbsdError where it or its package is not there.
    """
    name = name.strip()
    if name.lower() in FACES:
        try:
            return by_mediapipe(FACES[name.lower()])
        except NbsdError as error:
            raise NbsdError(f"{error}{_there(folders)}") from None
    if name.lower().startswith(MEDIAPIPE) and not name.lower().endswith(tuple(KINDS)):
        raise RecipeError(f"nbsd knows no detector {name}, only {' and '.join(list(FACES)[1:])}: name one of them")
    path = _file(name, folders) if name else None
    if path is None:
        raise ModelError(_absent(name, folders))
    return KINDS[path.suffix.lower()](path)


def _file(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of a name or path. In place of a pickle, and where the name has no ending, one of the same name that is read in the open."""
    path = Path(name).expanduser()
    bare = path.with_suffix("") if path.suffix.lower() in PICKLES else path
    ways = [bare.with_name(f"{bare.name}{ending}") for ending in KINDS]
    if path.suffix.lower() in KINDS and bare is path:
        ways = [path]
    around = [Path(), *_homes(folders)] if path.parent == Path() else [Path()]
    return next((place / way for way in ways for place in around if (place / way).is_file()), None)


def _homes(folders: Sequence[Path]) -> Iterator[Path]:
    """Where detectors lie."""
    for folder in folders:
        yield from (place / home for place in places(folder) for home in HOMES)
        yield folder.parent / HOME


def _absent(name: str, folders: Sequence[Path]) -> str:
    """Why there is no such detector, and what to do."""
    path = Path(name).expanduser()
    where = f" into {(folders[0] / HOME).absolute()}" if folders else " anywhere and give its path"
    if path.suffix.lower() in PICKLES:
        return (f"there is neither {path.stem}.onnx nor {path.name}: put one{where}, or use mediapipe (a .pt needs the package ultralytics; "
                f"yolo export model={path.name} format=onnx makes the other of it){_there(folders)}")
    return (f"there is no detector {name}: put a YOLO in ONNX format (.onnx) or MediaPipe's face detector (.tflite){where}, or use mediapipe"
            f"{_there(folders)}")


def _there(folders: Sequence[Path]) -> str:
    """What to name instead: the detectors in folders that have nothing else in them."""
    found = sorted({file.name for place in _homes(folders) if place.name in AMONG for file in place.glob("*") if file.suffix.lower() in KINDS})
    return f"; there are {', '.join(found[:NAMED])}" if found else ""


def by_mediapipe(model: int = FACES[MEDIAPIPE]) -> Detector:
    """Faces, by Google's MediaPipe. `model`: one of FACES."""
    try:
        from mediapipe import solutions
    except ModuleNotFoundError as error:
        what = "is not installed" if error.name == MEDIAPIPE else f"cannot be used here ({error.name} is missing)"
        raise NbsdError(f"mediapipe {what}: pip install mediapipe, or name a YOLO detector's .onnx file") from None
    except ImportError:
        raise NbsdError("this mediapipe brings no model along: give the path of its face detector (.tflite), or name a YOLO detector's .onnx file"
                        ) from None

    def find(image: Image.Image, least: float) -> list[Found]:
        width, height = image.size
        found = []
        with solutions.face_detection.FaceDetection(model_selection=model, min_detection_confidence=least) as finder:
            for one in finder.process(np.asarray(image)).detections or ():
                at = one.location_data.relative_bounding_box
                box = at.xmin * width, at.ymin * height, (at.xmin + at.width) * width, (at.ymin + at.height) * height
                found.append(Found(inside(box, image.size), float(one.score[0])))
        return sorted(found, key=lambda one: -one.confidence)

    return find


class FaceFile:
    """MediaPipe's face detector with a model of its own."""

    def __init__(self, path: Path) -> None:
        try:
            from mediapipe.tasks.python import vision
        except ImportError:
            raise NbsdError("mediapipe is not installed: pip install mediapipe, or name a YOLO detector's .onnx file") from None
        self._vision, self._path = vision, path

    def __call__(self, image: Image.Image, least: float) -> list[Found]:
        import mediapipe

        options = self._vision.FaceDetectorOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(self._path)), min_detection_confidence=least)
        pixels = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.array(image))
        try:
            with self._vision.FaceDetector.create_from_options(options) as finder:
                detections = finder.detect(pixels).detections
        except (RuntimeError, ValueError) as error:     # a model for other versions fails only when it is asked
            why = " ".join(str(error).split())[:80]
            raise ModelError(f"{self._path.name} is no face detector that this MediaPipe can run ({why}): use its short-range model, or a newer "
                             "MediaPipe") from error
        found = []
        for one in detections:
            at = one.bounding_box
            box = at.origin_x, at.origin_y, at.origin_x + at.width, at.origin_y + at.height
            found.append(Found(inside(box, image.size), float(one.categories[0].score)))
        return sorted(found, key=lambda one: -one.confidence)


def by_onnx(path: Path) -> Detector:
    """A YOLO detector, from version 8 on, as its users export it to ONNX."""
    try:
        import onnxruntime
    except ImportError:
        raise NbsdError("onnxruntime is not installed: pip install onnxruntime, or use mediapipe") from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:      # onnxruntime's own errors have no common parent
        raise ModelError(f"{path.name} is no model that onnxruntime can run ({str(error)[:80]}): export it to ONNX again") from error
    given = session.get_inputs()[0]
    sides = [side if isinstance(side, int) else SIDE for side in given.shape[2:]]
    return Yolo(path.name, lambda pixels: session.run(None, {given.name: pixels}), (sides[0], sides[1]))


def by_ultralytics(path: Path) -> Detector:
    """A YOLO detector as ultralytics saves it, where the user has that package."""
    return Yolo(path.name, load_yolo(path), None)


class Yolo:
    """A YOLO detector, whatever runs it."""

    def __init__(self, name: str, answers: Callable[[Array], list[Array]], sides: tuple[int, int] | None) -> None:
        """`answers`: to pixels [1, 3, h, w] of 0 to 1. `sides`: h and w; None: as small as the picture's shape allows."""
        self._name, self._answers, self._sides = name, answers, sides

    def __call__(self, image: Image.Image, least: float) -> list[Found]:
        sides = self._sides or (SIDE, SIDE)
        scale = min(sides[1] / image.width, sides[0] / image.height)
        if self._sides is None:
            sides = _stepped(image.height * scale), _stepped(image.width * scale)
        small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR)
        left, top = (sides[1] - small.width) // 2, (sides[0] - small.height) // 2
        seen = Image.new("RGB", (sides[1], sides[0]), GREY)
        seen.paste(small, (left, top))
        answers = self._answers((np.asarray(seen, dtype=np.float32) / 255).transpose(2, 0, 1)[None])
        if answers[0].ndim != 3 or (answers[0].shape[2] not in (ONCE, ONCE + PATTERNS) and answers[0].shape[1] < 5):
            raise ModelError(f"{self._name} answers with {list(answers[0].shape)}, as no YOLO detector does: export one of version 8 or later")
        segments = len(answers) > 1 and answers[1].ndim == 4 and answers[1].shape[1] == PATTERNS
        boxes, sure, numbers = read_answer(answers[0][0], segments=segments)
        placed, part = (boxes - (left, top, left, top)) / scale, (left, top, left + small.width, top + small.height)
        return [Found(inside(tuple(placed[i]), image.size), float(sure[i]),
                      outline(numbers[i], answers[1][0], boxes[i], seen.size).crop(part).resize(image.size) if segments else None)
                for i in apart(placed, sure, least)]


def _stepped(side: float) -> int:
    """A side as the network can take it."""
    return -(-round(side) // STEP) * STEP


def read_answer(answer: Array, *, segments: bool = False) -> tuple[Array, Array, Array]:
    """Boxes [N, 4] (left, top, right, bottom), their confidences [N] and the numbers of their masks [N, 32 or 0], from a YOLO's answer.

    [N, 6]: the boxes, confidence and class, each object once. [4 + classes, N]: middle, width and height, and a confidence for each class;
    `segments`: and behind these the numbers of a mask.
    """
    more = PATTERNS if segments else 0
    if answer.shape[1] == ONCE + more:
        return answer[:, :4], answer[:, 4], answer[:, ONCE:]
    middle, size, end = answer[:2].T, answer[2:4].T, len(answer) - more
    return np.concatenate([middle - size / 2, middle + size / 2], axis=1), answer[4:end].max(axis=0), answer[end:].T


def outline(numbers: Array, patterns: Array, box: Array, size: tuple[int, int]) -> Image.Image:
    """The mask ("L", of this size) of an object: a sum of patterns [32, h, w], cut off at its box in pixels of that size."""
    large = Image.fromarray(np.tensordot(numbers, patterns, 1).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    across, along = np.arange(size[0]), np.arange(size[1])[:, None]
    within = (along >= box[1]) & (along < box[3]) & (across >= box[0]) & (across < box[2])
    return Image.fromarray(np.where(within & (np.asarray(large) > 0), 255, 0).astype(np.uint8))


def apart(boxes: Array, sure: Array, least: float) -> list[int]:
    """Which boxes to take: the surest first, none below `least`, and none that lies over a surer one."""
    taken: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
    for i in np.argsort(-sure, kind="stable"):
        if sure[i] < least:
            break
        shared = [(np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])).clip(min=0).prod() for j in taken]
        if all(part <= OVERLAP * (areas[i] + areas[j] - part) for part, j in zip(shared, taken, strict=True)):
            taken.append(int(i))
    return taken


def inside(box: tuple[float, ...], size: tuple[int, int]) -> Box:
    """A box in whole pixels, with those that its right and lower sides fall on, cut off where the picture ends."""
    left, top, right, bottom = (int(side) for side in box)
    return max(0, left), max(0, top), min(size[0], right + 1), min(size[1], bottom + 1)


KINDS: dict[str, Callable[[Path], Detector]] = {".onnx": by_onnx, ".tflite": FaceFile, **dict.fromkeys(PICKLES, by_ultralytics)}
