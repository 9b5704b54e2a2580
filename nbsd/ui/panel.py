"""Puts the form, the view and the paste box together into one widget."""

from __future__ import annotations

import html

import ipywidgets as w
from PIL import Image

from nbsd.pipeline.scripts import DETAILS, FOLDER, LOOPBACK, SD_UPSCALE
from nbsd.recipe import Img2Img
from nbsd.ui.again import Again
from nbsd.ui.catalog import Catalog
from nbsd.ui.controls import CONTROLS, JOB
from nbsd.ui.dialects import Dialects
from nbsd.ui.editor import set_class
from nbsd.ui.fills import Fills
from nbsd.ui.form import RANDOM, Form
from nbsd.ui.given import Given
from nbsd.ui.modes import EXTRAS, HIRES_ROWS, IMG2IMG, MODES
from nbsd.ui.page import PAGE
from nbsd.ui.parts import Parts
from nbsd.ui.paste import Report
from nbsd.ui.style import CSS
from nbsd.ui.style_modes import MODES_CSS
from nbsd.ui.view import View

OTHER_SIZE = "Other"
SCRIPT_CLASSES = {LOOPBACK: "nbsd-with-loopback", SD_UPSCALE: "nbsd-with-sd-upscale", FOLDER: "nbsd-with-folder", DETAILS: "nbsd-with-details"}
EDITING = " editing"    # how the family of an InstructPix2Pix model ends, see models.detect
SIZES = ((512, 512), (512, 768), (768, 512), (640, 640), (640, 960), (960, 640), (768, 768), (768, 1024), (1024, 768), (1024, 1024))
EXAMPLE = """masterpiece, 1girl ...
Negative prompt: lowres ...
Steps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, ..."""
TABS = ("Settings", "Advanced", "Paste a recipe", "Files")
SELDOM = ("img2img.noise_multiplier", "img2img.extra_noise", "img2img.background", "img2img.color_correction", "img2img.exact_steps",
          "inpaint.overlay", "inpaint.round_mask")


class Panel:
    """All widgets and their places. What the buttons do is the studio's, except for what concerns only the form."""

    def __init__(self, parts: Parts, form: Form, view: View, given: Given, catalog: Catalog) -> None:
        self._parts, self.form, self.view, self.given, self.catalog = parts, form, view, given, catalog
        self.refresh = parts.button("Refresh", "nbsd-refresh", "Look for model files again")
        self.folder = parts.make(
            w.Text, "nbsd-control", "nbsd-folder", description="More model files in", placeholder="a folder or a file",
            continuous_update=False,
        )
        self.hint = parts.html("nbsd-hint")
        self.random = parts.button("Random", "nbsd-dice", "A new seed for every job (-1)")
        self.same_seed = parts.button("Reuse", "nbsd-same-seed", "The seed of the picture that is shown")
        self.swap = parts.button("Swap", "nbsd-swap", "Width and height change places")
        self.sizes = parts.make(
            w.Dropdown, "nbsd-control", "nbsd-sizes", description="Common sizes", options=[OTHER_SIZE, *(f"{a} × {b}" for a, b in SIZES)],
        )
        self.text = parts.make(
            w.Textarea, "nbsd-control", "nbsd-paste", description="Infotext, or the path of a picture", rows=7, placeholder=EXAMPLE,
        )
        self.fill = parts.button("Fill the panel", "nbsd-fill", "Set every control to what the text says")
        self.upload = parts.make(w.FileUpload, "nbsd-upload", accept="image/*,.txt", multiple=False, description="Open a picture")
        self.understood = parts.html("nbsd-understood")
        self.kept = parts.html("nbsd-kept")
        self.drop = parts.button("Drop these", "nbsd-drop", "Forget the parts that have no control")
        self._kept_row = parts.row(self.kept, self.drop, name="nbsd-tail")
        self._kept_row.layout = w.Layout()      # its own: it comes and goes
        self.send = {mode: parts.button(f"To {mode}", f"nbsd-send-{mode}", f"Make the picture that is shown the source of {mode}")
                     for mode in MODES[1:]}
        self.fills = Fills(parts, form)
        self.dialects = Dialects(parts, form, self.fills)
        self.again = Again(parts)
        self.tabs = self._tabs()
        self.widget = self._root()
        self._connect()

    def show_hint(self, text: str) -> None:
        """One line on where model files go; empty when there are some."""
        self.hint.value = f"<div>{html.escape(text)}</div>" if text else ""

    def show_report(self, report: Report) -> None:
        """What was understood of something pasted."""
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in report.understood)
        # What is kept without a control stands below it anyway, as long as it is kept.
        self.understood.value = f"<table>{rows}</table>" + "".join(f"<p>{html.escape(note)}</p>" for note in report.notes)

    def _root(self) -> w.Widget:
        parts = self._parts
        title = parts.html("nbsd-title", "<b>nbsd studio</b><span>Stable Diffusion in this notebook</span>")
        places = (self._ask(), self._run(), self.given.widget, parts.column("nbsd-set", self.tabs), self._see())
        body = parts.make(w.Box, "nbsd-body", children=places)
        return parts.column("nbsd", parts.html("nbsd-sheet", f"<style>{CSS}{MODES_CSS}</style>{PAGE}"), title, body)

    def _ask(self) -> w.Widget:
        row, form = self._parts.row, self.form
        files = row(form.vae.widget, self.folder, name="nbsd-files")
        model = row(form.model.widget, self.refresh, name="nbsd-tail")
        prompts = form["prompt"], form["negative_prompt"], self.dialects.widget
        return self._parts.column("nbsd-ask", form.modes.mode, model, self.hint, form.borrowed.widget, files, *prompts)

    def _run(self) -> w.Widget:
        view = self.view
        buttons = self._parts.row(view.generate, view.interrupt, view.skip, name="nbsd-buttons")
        return self._parts.column("nbsd-run", buttons, view.bar, view.status, view.error, view.notes)

    def _see(self) -> w.Widget:
        view = self.view
        about = self._parts.row(view.path, view.reuse, name="nbsd-tail")
        send = self._parts.row(*self.send.values(), name="nbsd-send")
        return self._parts.column("nbsd-see", view.frame, about, send, view.infotext, view.gallery.widget)

    def _tabs(self) -> w.Tab:
        pages = (self._settings(), self._advanced(), self._paste(), self.catalog.page)
        tabs = self._parts.make(w.Tab, children=[self._parts.column("nbsd-page", *page) for page in pages])
        for index, title in enumerate(TABS):
            tabs.set_title(index, title)
        return tabs

    def _settings(self) -> list[w.Widget]:
        row, form = self._parts.row, self.form
        return [
            self.fills.widget,
            row(form["sampler"], form["schedule"]),
            row(form["steps"], form["cfg_scale"], form["clip_skip"]),
            row(form["width"], self.swap, form["height"], self.sizes, name="nbsd-size"),
            row(form["seed"], self.random, self.same_seed, name="nbsd-tails"),
            row(form["variation_seed"], form["variation_strength"]),
            row(form["ensd"], form["rng"]),
            row(*(form[one.field] for one in JOB)),
            form.modes.hires,
            self._parts.make(w.Box, "nbsd-group", "nbsd-hires-group", children=[form[one.field] for one in HIRES_ROWS]),
        ]

    def _advanced(self) -> list[w.Widget]:
        form = self.form
        groups = dict.fromkeys(one.group for one in CONTROLS if one.group != "main")
        found: list[w.Widget] = []
        for group in groups:
            fields = [self.form[one.field] for one in CONTROLS if one.group == group]
            found += [self._parts.html("nbsd-heading", group), *fields]
        more = [form[name] for name in SELDOM]
        found += [self._parts.html("nbsd-heading", "Changing a picture"), *more]
        return [self._parts.make(w.Box, "nbsd-group", children=found)]

    def _paste(self) -> list[w.Widget]:
        return [self.text, self._parts.row(self.fill, self.upload), self.again.widget, self.understood, self._kept_row]

    def _connect(self) -> None:
        form = self.form
        self.random.on_click(lambda _: setattr(form["seed"], "value", RANDOM))
        self.same_seed.on_click(lambda _: self._reuse_seed())
        self.swap.on_click(lambda _: self._swap())
        self.drop.on_click(lambda _: form.drop_kept())
        self.sizes.observe(lambda change: self._resize(change["new"]), "value")
        self.given.size.on_click(lambda _: self.use_size())
        self.given.on_extended = self.use_size
        self.given.source.use.on_click(lambda _: self._send(form.modes.mode.value))
        self.given.source.blank.on_click(lambda _: self._blank())
        for mode, button in self.send.items():
            button.on_click(lambda _, mode=mode: self._send(mode))
        self.view.reuse.observe(lambda _: self._offer_result(), "disabled")
        self._offer_result()
        for switch in (form.modes.mode, form.modes.hires, form.modes.soft, self.given.sketching, form["script.kind"]):
            switch.observe(lambda _: self._dress(), "value")
        form["img2img.image_cfg_scale"].observe(lambda _: self._dress(), "value")
        form.model.widget.observe(lambda _: self._dress(), ["value", "options"])     # a list that comes later knows what the model is for
        self._dress()
        form.watch(self._follow)
        self._follow()

    def _send(self, mode: str) -> None:
        """The picture that is shown becomes the source of a mode; what is made of it is as large."""
        if (picture := self.view.picture) is not None:
            name = picture.path.name if picture.path else f"result, seed {picture.recipe.seed}"
            self.given.send(picture.image, name, mode, picture.infotext)
            if mode != EXTRAS:
                self.use_size()

    def _blank(self) -> None:
        self.given.source.take(Image.new("RGB", (self.form["width"].value, self.form["height"].value), "white"), "blank")
        if self.form.modes.mode.value == IMG2IMG:
            self.given.sketching.value = True

    def _offer_result(self) -> None:
        """There is something to send once there is a picture."""
        for button in (*self.send.values(), self.given.source.use):
            button.disabled = self.view.reuse.disabled

    def use_size(self) -> None:
        """Make the result as large as the source picture is."""
        if self.given.source.picture is not None:
            for name, side in zip(("width", "height"), self.given.source.picture.size, strict=True):
                self.form[name].value = max(round(side / 8) * 8, 64)

    def _dress(self) -> None:
        """Show the controls of the mode and of what is switched on; the style sheet knows which."""
        modes = self.form.modes
        edits = self.form.model.family.endswith(EDITING) or self.form["img2img.image_cfg_scale"].value != Img2Img.image_cfg_scale
        on = {**{f"nbsd-in-{mode}": mode == modes.mode.value for mode in MODES},
              "nbsd-with-hires": modes.hires.value, "nbsd-with-soft": modes.soft.value, "nbsd-with-edit": edits,
              **{name: kind == self.form["script.kind"].value for kind, name in SCRIPT_CLASSES.items()}}
        for name, shown in on.items():
            set_class(self.widget, name, shown)
        self.given.follow()

    def _swap(self) -> None:
        width, height = self.form["width"], self.form["height"]
        width.value, height.value = height.value, width.value

    def _reuse_seed(self) -> None:
        if self.view.picture is not None:
            self.form["seed"].value = self.view.picture.recipe.seed
            if self.view.picture.recipe.variation_strength > 0:
                self.form["variation_seed"].value = self.view.picture.recipe.variation_seed

    def _resize(self, words: str) -> None:
        if words != OTHER_SIZE:
            width, height = (int(side) for side in words.split(" × "))
            if (self.form["width"].value, self.form["height"].value) != (width, height):
                self.form["width"].value, self.form["height"].value = width, height

    def _follow(self) -> None:
        """Show what follows from the form: the name of its size, and what it keeps without a control."""
        size = (self.form["width"].value, self.form["height"].value)
        self.sizes.value = f"{size[0]} × {size[1]}" if size in SIZES else OTHER_SIZE
        kept = self.form.kept()
        text = f"Kept from the recipe, without a control: {html.escape(', '.join(kept))}" if kept else ""
        if self.kept.value != text:
            self.kept.value = text
        self._kept_row.layout.display = None if kept else "none"
