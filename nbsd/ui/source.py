"""The picture that is to be changed: from an upload, from a file's path, from a result, or blank."""

from __future__ import annotations

import contextlib
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w
from PIL import Image

from nbsd import infotext
from nbsd.errors import NbsdError
from nbsd.ui import paste
from nbsd.ui.controls import set_tip
from nbsd.ui.parts import Parts

LARGEST_UPLOAD = "10 MB"        # of Jupyter's web socket: what is larger vanishes without a word
SIDE = 640                      # pixels of the preview's longer side at most


class Source:
    """`picture` is a PIL picture or None; `on_change` is called when it is another one. Its widgets are laid out by given.py."""

    def __init__(self, parts: Parts, on_change: Callable[[], None], tried: Callable[[Callable[[], Any]], None]) -> None:
        """`tried` runs what a click asks for and shows what goes wrong."""
        self.picture: Image.Image | None = None
        self.name = self.said = ""      # what it is called, and the infotext that it carries
        self._on_change = on_change
        self.upload = parts.make(w.FileUpload, "nbsd-source-upload", accept="image/*", multiple=False, description="Open a picture")
        self.path = parts.make(
            w.Text, "nbsd-control", "nbsd-source-path", description="or the path of a file", placeholder="pictures/cat.png",
            continuous_update=False)
        self.use = parts.button("Use result", "nbsd-use-result", "The picture that is shown as result")
        self.blank = parts.button("Blank", "nbsd-blank", "A white picture of the size in Settings, to sketch on")
        self.about = parts.html("nbsd-source-about")
        self._image = parts.make(w.Image, format="jpeg")
        self.preview = parts.make(w.Box, "nbsd-source-picture", children=[self._image])
        self.preview.layout = w.Layout(display="none")
        set_tip(self.path, "Of this machine, or of the notebook's")
        self._say()
        self.rows = (parts.row(self.upload, self.use, self.blank, name="nbsd-source-row"), self.path)
        self.upload.observe(lambda _: tried(self._uploaded), "value")
        self.path.observe(lambda _: tried(self._typed), "value")

    def take(self, picture: Image.Image, name: str, said: str = "") -> None:
        """Use this picture. `said`: the infotext that it carries."""
        self.picture, self.name, self.said = picture, name, said
        small = on_white(picture)
        small.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=88)
        self._image.value = out.getvalue()
        self._say()
        self._on_change()

    def _uploaded(self) -> None:
        from nbsd.images import read_picture

        for name, data in paste.uploaded(self.upload.value):
            paste.empty(self.upload)
            self.take(read_picture(data), name, said_by(data))

    def _typed(self) -> None:
        from nbsd.images import read_picture

        path = self.path.value.strip().strip("\"'")
        if path:
            self.take(read_picture(path), path, said_by(str(Path(path).expanduser())))

    def _say(self) -> None:
        if self.picture is None:
            self.about.value = (f"<span>Files above about {LARGEST_UPLOAD} (1 MB on Colab) get lost on their way through the notebook: "
                                "give their path instead.</span>")
        else:
            width, height = self.picture.size
            self.about.value = f"<span><b>{html.escape(self.name)}</b> · {width}×{height}</span>"


def said_by(source: str | bytes) -> str:
    """The infotext that a picture carries; its pixels may be good where that is not."""
    with contextlib.suppress(NbsdError):
        return infotext.from_image(source) or ""
    return ""


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB, what is transparent in it white, as the web UI's default has it."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    plain = Image.new("RGB", picture.size, "white")
    plain.paste(seen, mask=seen.getchannel("A"))
    return plain
