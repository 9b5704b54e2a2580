"""Puts the form, the view and the paste box together into one widget."""

from __future__ import annotations

import html

import ipywidgets as w

from nbsd.ui.controls import CONTROLS, JOB
from nbsd.ui.form import RANDOM, Form
from nbsd.ui.paste import Report
from nbsd.ui.style import CSS
from nbsd.ui.view import View, button, classed

OTHER_SIZE = "Other"
SIZES = ((512, 512), (512, 768), (768, 512), (640, 640), (640, 960), (960, 640), (768, 768), (768, 1024), (1024, 768), (1024, 1024))
TABS = ("Settings", "Advanced", "Paste a recipe")


class Panel:
    """All widgets and their places. What the buttons do is the studio's, except for what concerns only the form."""

    def __init__(self, form: Form, view: View) -> None:
        self.form, self.view = form, view
        wide = self._wide = form.layout
        self.refresh = button("Refresh", "nbsd-refresh", "Look for model files again", wide)
        self.folder = classed(
            w.Text(description="More model files in", placeholder="a folder or a file", continuous_update=False, layout=wide),
            "nbsd-control", "nbsd-folder",
        )
        self.hint = classed(w.HTML(layout=wide), "nbsd-hint")
        self.random = button("Random", "nbsd-dice", "A new seed for every job (-1)", wide)
        self.same_seed = button("Reuse", "nbsd-same-seed", "The seed of the picture that is shown", wide)
        self.swap = button("Swap", "nbsd-swap", "Width and height change places", wide)
        self.sizes = classed(
            w.Dropdown(options=[OTHER_SIZE, *(f"{a} × {b}" for a, b in SIZES)], description="Common sizes", layout=wide),
            "nbsd-control", "nbsd-sizes",
        )
        self.text = classed(
            w.Textarea(description="Infotext, or the path of a picture", rows=7, layout=wide,
                       placeholder="masterpiece, 1girl ...\nNegative prompt: lowres ...\nSteps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, ..."),
            "nbsd-control", "nbsd-paste",
        )
        self.fill = button("Fill the panel", "nbsd-fill", "Set every control to what the text says", wide)
        self.upload = classed(w.FileUpload(accept="image/*,.txt", multiple=False, description="Open a picture", layout=wide), "nbsd-upload")
        self.understood = classed(w.HTML(layout=wide), "nbsd-understood")
        self.kept = classed(w.HTML(layout=wide), "nbsd-kept")
        self.drop = button("Drop these", "nbsd-drop", "Forget the parts that have no control", wide)
        self._kept_row = row(self.kept, self.drop, name="nbsd-tail")
        self.tabs = self._tabs()
        self.widget = self._root()
        self._connect()

    def show_hint(self, text: str) -> None:
        """One line on where model files go; empty when there are some."""
        self.hint.value = f"<div>{html.escape(text)}</div>" if text else ""

    def show_report(self, report: Report) -> None:
        """What was understood of something pasted."""
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in report.understood)
        notes = [*report.notes, *([f"Kept, without effect: {', '.join(report.unknown)}"] if report.unknown else [])]
        self.understood.value = f"<table>{rows}</table>" + "".join(f"<p>{html.escape(note)}</p>" for note in notes)

    def _root(self) -> w.Widget:
        sheet = classed(w.HTML(f"<style>{CSS}</style>", layout=self._wide), "nbsd-sheet")
        title = classed(w.HTML("<b>nbsd studio</b><span>Stable Diffusion in this notebook</span>", layout=self._wide), "nbsd-title")
        body = classed(w.Box([self._ask(), self._run(), classed(w.VBox([self.tabs]), "nbsd-set"), self._see()]), "nbsd-body")
        return classed(w.VBox([sheet, title, body]), "nbsd")

    def _ask(self) -> w.Widget:
        form = self.form
        return classed(w.VBox([
            row(form.model.widget, self.refresh, name="nbsd-tail"),
            self.hint,
            row(form.vae.widget, self.folder, name="nbsd-files"),
            form["prompt"],
            form["negative_prompt"],
        ]), "nbsd-ask")

    def _run(self) -> w.Widget:
        view = self.view
        buttons = row(view.generate, view.interrupt, view.skip, name="nbsd-buttons")
        return classed(w.VBox([buttons, view.bar, view.status, view.error, view.notes]), "nbsd-run")

    def _see(self) -> w.Widget:
        view = self.view
        return classed(w.VBox([view.frame, view.gallery.widget, row(view.path, view.reuse, name="nbsd-tail"), view.infotext]), "nbsd-see")

    def _tabs(self) -> w.Tab:
        pages = [self._settings(), self._advanced(), self._paste()]
        tabs = w.Tab(children=[classed(w.VBox(page), "nbsd-page") for page in pages], layout=self._wide)
        for index, title in enumerate(TABS):
            tabs.set_title(index, title)
        return tabs

    def _settings(self) -> list[w.Widget]:
        form = self.form
        return [
            row(form["sampler"], form["schedule"]),
            row(form["steps"], form["cfg_scale"], form["clip_skip"]),
            row(form["width"], self.swap, form["height"], self.sizes, name="nbsd-size"),
            row(form["seed"], self.random, self.same_seed, name="nbsd-tails"),
            row(form["variation_seed"], form["variation_strength"]),
            row(form["ensd"], form["rng"]),
            row(*(form[one.field] for one in JOB)),
        ]

    def _advanced(self) -> list[w.Widget]:
        groups = dict.fromkeys(one.group for one in CONTROLS if one.group != "main")
        parts: list[w.Widget] = []
        for group in groups:
            fields = [self.form[one.field] for one in CONTROLS if one.group == group]
            parts += [classed(w.HTML(group, layout=self._wide), "nbsd-heading"), classed(w.Box(fields), "nbsd-group")]
        return parts

    def _paste(self) -> list[w.Widget]:
        return [self.text, row(self.fill, self.upload), self.understood, self._kept_row]

    def _connect(self) -> None:
        form = self.form
        self.random.on_click(lambda _: setattr(form["seed"], "value", RANDOM))
        self.same_seed.on_click(lambda _: self._reuse_seed())
        self.swap.on_click(lambda _: self._swap())
        self.drop.on_click(lambda _: form.drop_kept())
        self.sizes.observe(lambda change: self._resize(change["new"]), "value")
        form.watch(self._follow)
        self._follow()

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
        text = f"Kept from the pasted recipe, without a control: {', '.join(kept)}" if kept else ""
        if self.kept.value != text:
            self.kept.value = text
        self._kept_row.layout.display = None if kept else "none"


def row(*widgets: w.Widget, name: str = "") -> w.Widget:
    """Controls side by side, as many as fit."""
    return classed(w.Box(widgets), "nbsd-row", *([name] if name else []))
