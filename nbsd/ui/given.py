"""The part of the panel for a given picture: which one, what is painted on it, and how it is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ipywidgets as w
from PIL import Image

from nbsd.errors import RecipeError
from nbsd.pipeline.extras import Enlarging
from nbsd.pipeline.scripts import FOLDER, Several
from nbsd.recipe import Recipe
from nbsd.ui import paste
from nbsd.ui.editor import Editor, set_class
from nbsd.ui.modes import EXTRAS, EXTRAS_ROWS, IMG2IMG, IMG2IMG_ROWS, INPAINT, INPAINT_ROWS, SCRIPT_ROWS, SEVERAL_ROWS, SOFT_ROWS, Modes
from nbsd.ui.parts import Parts
from nbsd.ui.source import Source, on_white

SIDES = ("Left", "Right", "Up", "Down")
NO_PICTURE = "there is no picture to change: open one, give the path of one, or press Use result"
NO_MASK = "nothing is masked: paint over what is to change, open a mask, or choose img2img"


class ToEnlarge(NamedTuple):
    """A job of extras."""

    image: Image.Image | None   # RGB; None: those of a folder
    said: str                   # the infotext that it carries
    how: Enlarging
    several: Several = Several()

    @property
    def seed(self) -> int:
        """Of the recipe that the picture carries; 0 where it carries none."""
        return Recipe.from_infotext(self.said).seed


class Given:
    """The source picture, the editor over it, and the controls of img2img and inpainting."""

    def __init__(
        self, parts: Parts, modes: Modes, post: Callable[[Callable[[], None]], None], tried: Callable[[Callable[[], Any]], None],
        cautious: bool = False,
    ) -> None:
        """`post`: runs what writes to the screen. `tried`: runs what may go wrong, and shows it. `cautious`: see Editor."""
        self.modes = modes
        self.on_extended: Callable[[], None] = lambda: None     # the picture has grown
        self.source = Source(parts, self._taken, tried)
        self.editor = Editor(parts, post, cautious)
        self._make_widgets(parts)
        self.widget = self._laid_out(parts)
        self.sketching.observe(lambda _: self.follow(), "value")
        self.extend.on_click(lambda _: tried(self._extend))
        self.mask_upload.observe(lambda _: tried(self._mask_uploaded), "value")
        self.mask_path.observe(lambda _: tried(self._mask_typed), "value")

    @property
    def painting(self) -> bool:
        """Whether the editor is shown in this mode."""
        mode = self.modes.mode.value
        return self.source.picture is not None and (mode == INPAINT or (mode == IMG2IMG and self.sketching.value))

    def pictures(self, recipe: Recipe) -> tuple[Image.Image | None, Image.Image | None]:
        """The picture and the mask that a recipe of the panel needs, as they are now. Raises RecipeError where one is missing."""
        if recipe.img2img is None:
            return None, None
        picture, drawing, script = self.source.picture, self.editor.drawing, self.modes.script
        if script is not None and script.kind == FOLDER:
            return None, drawing.mask if recipe.inpaint and not script.masks.strip() and not drawing.empty else None
        if picture is None:
            raise RecipeError(NO_PICTURE)
        if drawing.has_sketch and self.painting:
            picture = drawing.over(on_white(picture))
        if recipe.inpaint is None:
            return picture, None
        if drawing.empty and not recipe.inpaint.invert:
            raise RecipeError(NO_MASK)
        return picture, drawing.mask

    def to_enlarge(self) -> ToEnlarge | None:
        """What extras make larger; None in the other modes. Raises RecipeError where there is no picture."""
        if self.modes.mode.value != EXTRAS:
            return None
        several = self.modes.several
        if several.folder:
            return ToEnlarge(None, "", self.modes.enlarging, several)
        if self.source.picture is None:
            raise RecipeError(NO_PICTURE)
        return ToEnlarge(on_white(self.source.picture), self.source.said, self.modes.enlarging, several)

    def follow(self) -> None:
        """Show what the mode needs."""
        if self.painting:
            self.editor.open(sketching=self.modes.mode.value != INPAINT)
        set_class(self.widget, "nbsd-has-picture", self.source.picture is not None)
        self.source.preview.layout.display = "none" if self.painting or self.source.picture is None else None
        self.editor.widget.layout.display = None if self.painting else "none"

    def send(self, picture: Image.Image, name: str, mode: str, said: str = "") -> None:
        """Take a picture, with the infotext that it carries, and go to a mode."""
        self.source.take(picture, name, said)
        self.modes.mode.value = mode

    # --- inside

    def _taken(self) -> None:
        if self.source.picture is not None:
            self.editor.show(self.source.picture)
        self.follow()

    def _mask_uploaded(self) -> None:
        for _, data in paste.uploaded(self.mask_upload.value):
            paste.empty(self.mask_upload)
            self._take_mask(data)

    def _mask_typed(self) -> None:
        path = self.mask_path.value.strip().strip("\"'")
        if path:
            self._take_mask(path)

    def _take_mask(self, source: Any) -> None:
        from nbsd.images import read_picture

        if self.source.picture is None:
            raise RecipeError(f"{NO_PICTURE}; then open its mask")
        self.editor.load_mask(read_picture(source))

    def _extend(self) -> None:
        """Make the picture larger on some sides, and mask what is new."""
        if self.source.picture is None:
            raise RecipeError(NO_PICTURE)
        sides = {name.lower(): self.by.value if box.value else 0 for name, box in zip(SIDES, self.sides, strict=True)}
        if not any(sides.values()) or self.by.value < 8:
            raise RecipeError("nothing to extend: choose at least one side, and 8 pixels or more")
        from nbsd.images.outpaint import extended

        larger, new = extended(on_white(self.source.picture), **sides)
        self.source.take(larger, f"{self.source.name}, extended")
        self.editor.load_mask(new)
        self.on_extended()

    def _make_widgets(self, parts: Parts) -> None:
        self.sketching = parts.make(
            w.Checkbox, "nbsd-control", "nbsd-yes", "nbsd-only-img2img", "nbsd-sketch-on", description="Sketch on it in colours", indent=False)
        self.size = parts.button("Use its size", "nbsd-use-size", "Settings take over its width and height, as multiples of 8")
        self.mask_upload = parts.make(w.FileUpload, "nbsd-mask-upload", accept="image/*", multiple=False, description="Open a mask")
        self.mask_path = parts.make(
            w.Text, "nbsd-control", "nbsd-mask-path", description="or the path of a mask (white = changes)", continuous_update=False)
        self.by = parts.make(w.IntText, "nbsd-control", "nbsd-extend-by", description="Outpaint: pixels", value=128, step=8)
        self.sides = [parts.make(w.Checkbox, "nbsd-control", "nbsd-yes", f"nbsd-extend-{name.lower()}", description=name, indent=False)
                      for name in SIDES]
        self.extend = parts.button("Extend", "nbsd-extend", "Make the picture larger on these sides, and mask what is new")

    def _laid_out(self, parts: Parts) -> w.Widget:
        by_field = self.modes.by_field
        head = parts.row(self.source.about, self.size, name="nbsd-tail")
        source = parts.column("nbsd-source", *self.source.rows, head, self.source.preview)
        how = parts.make(w.Box, "nbsd-group", "nbsd-how", children=[by_field[row.field] for row in (*IMG2IMG_ROWS[:3], *SCRIPT_ROWS)])
        mask_file = parts.row(self.mask_upload, self.mask_path, name="nbsd-tail-right")
        rows = [by_field[row.field] for row in INPAINT_ROWS[:5]]
        soft = parts.make(w.Box, "nbsd-group", "nbsd-soft-group", children=[by_field[row.field] for row in SOFT_ROWS])
        sides = parts.row(self.by, *self.sides, self.extend, name="nbsd-sides")
        inpaint = parts.column(
            "nbsd-column", parts.make(w.Box, "nbsd-group", children=rows), self.modes.soft, soft, sides)
        inpaint.add_class("nbsd-only-inpaint")
        mask_file.add_class("nbsd-only-inpaint")
        larger = parts.make(w.Box, "nbsd-group", "nbsd-only-extras", children=[by_field[row.field] for row in (*EXTRAS_ROWS, *SEVERAL_ROWS)])
        return parts.column("nbsd-given", source, self.sketching, self.editor.widget, mask_file, how, inpaint, larger)
