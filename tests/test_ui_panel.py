from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import ipywidgets as w
import pytest
from PIL import Image

from nbsd.picture import Picture
from nbsd.recipe import Hires, Img2Img, Recipe
from nbsd.ui import settings as module
from nbsd.ui.catalog import Catalog
from nbsd.ui.controls import CONTROLS, JOB
from nbsd.ui.form import RANDOM, Form
from nbsd.ui.given import Given
from nbsd.ui.panel import OTHER_SIZE, SIZES, TABS, Panel
from nbsd.ui.parts import Parts
from nbsd.ui.paste import Report
from nbsd.ui.settings import Settings
from nbsd.ui.style import CSS
from nbsd.ui.view import View

# What the browser tests and users' own styles rely on.
CLASSES = {f"nbsd-{name}" for name in (
    "generate", "interrupt", "skip", "progress", "status", "error", "preview", "gallery", "infotext", "model", "vae", "prompt", "negative",
    "seed", "paste",
)} | {"nbsd"} | {f"nbsd-field-{row.field}" for row in (*CONTROLS, *JOB)} | {"nbsd-field-model", "nbsd-field-vae"}


@pytest.fixture
def panel() -> Panel:
    parts = Parts()
    form = Form(parts)
    given = Given(parts, form.modes, lambda call: call(), lambda act: act())
    return Panel(parts, form, View(parts, lambda picture: None), given, Catalog(parts))


def everything(widget: w.Widget) -> Iterator[w.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def size(panel: Panel) -> tuple[int, int]:
    return panel.form["width"].value, panel.form["height"].value


def test_the_classes_that_others_rely_on(panel: Panel) -> None:
    classes = [name for widget in everything(panel.widget) for name in widget._dom_classes]
    assert set(classes) >= CLASSES
    for name in CLASSES:
        assert classes.count(name) == 1, name


def test_every_control_is_on_the_panel_once(panel: Panel) -> None:
    shown = [id(widget) for widget in everything(panel.widget)]
    assert all(shown.count(id(widget)) == 1 for widget in panel.form.by_field.values())


def test_everything_that_can_be_entered_or_pressed_has_a_name(panel: Panel) -> None:
    kinds = (w.Dropdown, w.Textarea, w.Text, w.IntText, w.FloatText, w.Checkbox, w.Button, w.FileUpload)
    unnamed = [widget for widget in everything(panel.widget) if isinstance(widget, kinds) and not widget.description]
    assert unnamed == []
    assert [panel.tabs.get_title(index) for index in range(len(TABS))] == list(TABS)


def test_only_core_widgets_and_few_of_them(panel: Panel) -> None:
    """Each widget, layout and style is a message when the panel appears; other people's widgets do not work everywhere."""
    widgets = list(everything(panel.widget))
    models = {id(part) for widget in widgets for part in (widget, widget.layout, getattr(widget, "style", widget))}
    assert {type(widget).__module__.split(".")[0] for widget in widgets} == {"ipywidgets"}
    assert len(models) <= 280


def test_swap(panel: Panel) -> None:
    panel.form["width"].value, panel.form["height"].value = 512, 760
    panel.swap.click()
    assert size(panel) == (760, 512)


@pytest.mark.parametrize("wanted", SIZES)
def test_common_sizes(panel: Panel, wanted: tuple[int, int]) -> None:
    panel.sizes.value = "768 × 512"
    panel.sizes.value = f"{wanted[0]} × {wanted[1]}"
    assert size(panel) == wanted and panel.sizes.value == f"{wanted[0]} × {wanted[1]}"


def test_the_size_is_named_when_it_has_a_name(panel: Panel) -> None:
    assert panel.sizes.value == "512 × 512"
    panel.form["width"].value = 520
    assert panel.sizes.value == OTHER_SIZE and size(panel) == (520, 512)
    panel.sizes.value = OTHER_SIZE
    assert size(panel) == (520, 512)


def test_dice_and_reuse(panel: Panel) -> None:
    panel.same_seed.click()
    assert panel.form["seed"].value == RANDOM      # there is no picture yet
    panel.view.picture = Picture(Image.new("RGB", (8, 8)), Recipe(seed=99, variation_seed=5, variation_strength=0.1))
    panel.same_seed.click()
    assert (panel.form["seed"].value, panel.form["variation_seed"].value) == (99, 5)
    panel.random.click()
    assert panel.form["seed"].value == RANDOM


def test_what_is_kept_without_a_control_is_said_and_can_be_dropped(panel: Panel) -> None:
    assert panel._kept_row.layout.display == "none"
    panel.form.write(Recipe(img2img=Img2Img(), hires=Hires(), unknown=(("<b>", "1"),)))
    assert "hires, &lt;b&gt;" in panel.kept.value and panel._kept_row.layout.display is None
    panel.drop.click()
    assert panel.kept.value == "" and panel._kept_row.layout.display == "none"


def test_hint_and_report_are_escaped(panel: Panel) -> None:
    panel.show_hint("put it into /a/<b>")
    assert panel.hint.value == "<div>put it into /a/&lt;b&gt;</div>"
    panel.show_hint("")
    assert panel.hint.value == ""
    panel.show_report(Report(Recipe(), (("Steps", "<20>"),), ("Foo",), ("a <note>",)))
    assert "<td>&lt;20&gt;</td>" in panel.understood.value and "a &lt;note&gt;" in panel.understood.value


def test_the_style_sheet_is_inside_the_panel_and_touches_nothing_else(panel: Panel) -> None:
    assert any(CSS in widget.value for widget in everything(panel.widget) if isinstance(widget, w.HTML))
    assert "<" not in CSS and CSS.count("{") == CSS.count("}")
    plain = re.sub(r"/\*.*?\*/", "", CSS, flags=re.DOTALL)
    for rule in re.findall(r"([^{}]+)\{", plain):
        if not rule.strip().startswith("@container"):
            assert all(".nbsd" in one for one in re.split(r",(?![^(]*\))", rule)), rule


# --- the settings file

def test_settings_are_written_some_time_after_the_last_change_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 0.05)
    asked = []
    settings = Settings(tmp_path / "outputs", lambda: asked.append(1) or {"prompt": "猫"})     # type: ignore[func-returns-value]
    assert settings.read() == {}
    for _ in range(50):
        settings.changed()
    end = time.monotonic() + 5
    while not settings.path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert settings.read() == {"prompt": "猫"} and asked == [1]
    settings.write()
    assert len(asked) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_settings_that_cannot_be_read_are_none(tmp_path: Path, content: bytes) -> None:
    settings = Settings(tmp_path, dict)
    settings.path.write_bytes(content)
    assert settings.read() == {}


def test_settings_never_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    Settings(tmp_path / "file", dict).write()
    settings = Settings(tmp_path, lambda: {"prompt": "half an emoji \ud83d"})
    settings.write()
    assert json.loads(settings.path.read_text()) == {"prompt": "half an emoji ?"}
    assert sorted(os.listdir(tmp_path)) == [module.NAME, "file"]
