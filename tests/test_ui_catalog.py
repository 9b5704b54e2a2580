"""The page of the panel with all files, and the box that fetches more."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from download_server import Site, model_bytes, serve
from fake_shelf import ENTRIES, FakeShelf

from nbsd import studio as module
from nbsd.errors import NbsdError
from nbsd.models import detect, stream, transfer
from nbsd.studio import Studio
from nbsd.ui import settings
from nbsd.ui.catalog import GROUPS, TAGS, Catalog, Row, in_prompt
from nbsd.ui.found import CHECKPOINT, UNKNOWN, VAE
from nbsd.ui.parts import Parts

ROWS = (
    Row("checkpoint", "anime", "anime", 2_132_625_894, "SD 1", "925997e9", "/m/anime.safetensors"),
    Row("checkpoint", "big", "big", 6_938_040_682, "SDXL", "", "/m/big.safetensors"),
    Row("lora", "ink", "ink", 37_861_176, "SD 1", "aaaaaaaa", "/m/ink.safetensors"),
    Row("embedding", "bad-hands", "bad-hands", 7_083, "", "", "/m/bad-hands.pt"),
    Row("hypernetwork", "old", "old", 87_000_000, "", "", "/m/old.pt"),
    Row("upscaler", "4x", "4x", 67_000_000, "", "", "/m/4x.pth"),
    Row("controlnet", "pose", "pose", 700_000_000, "", "", "/m/pose.pth"),
    Row("unknown", "broken", "broken", 17, "", "", "/m/broken.ckpt", "'broken.ckpt' is cut off: download it again."),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(settings, "DELAY", 0.01)
    monkeypatch.setattr(transfer, "PAUSES", (0.0,))
    monkeypatch.setattr(stream, "LOOK", 0.02)


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog(Parts())
    catalog.set_rows(ROWS)
    return catalog


def texts(catalog: Catalog) -> list[str]:
    return [text for text, _ in catalog.list.options]


def test_files_stand_under_the_name_of_their_kind_with_family_size_and_hash(catalog):
    assert texts(catalog) == [
        "── Models (2) ──", "anime  ·  SD 1  ·  2.13 GB  ·  925997e9", "big  ·  SDXL  ·  6.94 GB", "── LoRA (1) ──",
        "ink  ·  SD 1  ·  37.9 MB  ·  aaaaaaaa", "── Hypernetworks (1) ──", "old  ·  87 MB", "── Embeddings (1) ──", "bad-hands  ·  7.08 kB",
        "── Upscalers (1) ──", "4x  ·  67 MB", "── Other files (2) ──", "pose  ·  700 MB  ·  ControlNet", "broken  ·  17 bytes  ·  not readable or not known",
    ]
    assert catalog.row == ROWS[0] and catalog.use.disabled is False


@pytest.mark.parametrize("typed, titles", [
    ("ANI", ["anime"]), ("sd 1", ["anime", "ink"]), ("lora", ["ink"]), ("925997", ["anime"]), ("sdxl", ["big"]), ("ink sd", ["ink"]), ("ink sdxl", []),
    ("/m/", [row.title for row in (*ROWS[:3], ROWS[4], ROWS[3], *ROWS[5:])]), ("models", ["anime", "big"]), ("", [row.title for row in (*ROWS[:3], ROWS[4], ROWS[3], *ROWS[5:])]),
])  # fmt: skip
def test_the_list_narrows_as_one_types(catalog, typed, titles):
    catalog.find.value = typed
    assert [text.split("  ·  ")[0] for text in texts(catalog) if not text.startswith("──")] == titles
    if not titles:
        assert catalog.use.disabled and "Nothing here is called so." in catalog.about.value


def test_the_choice_survives_a_refresh_and_a_filter_that_shows_it(catalog):
    catalog.list.value = ROWS[2].path
    catalog.set_rows((Row("checkpoint", "aaa", "aaa", 1, path="/m/aaa.ckpt"), *ROWS))
    assert catalog.row == ROWS[2]
    catalog.find.value = "ink"
    assert catalog.row == ROWS[2]
    catalog.find.value = "anime"
    assert catalog.row == ROWS[0]       # what is chosen can be seen
    catalog.set_rows(())
    assert catalog.row is None and "No files were found yet." in catalog.about.value


def test_a_heading_and_a_file_without_use_cannot_be_used(catalog):
    used = []
    catalog.use_row = used.append
    for key in ("# checkpoint", "/m/4x.pth", "/m/pose.pth", "/m/broken.ckpt"):
        catalog.list.value = key
        assert catalog.use.disabled, key
        catalog.use.click()
    assert used == [] and "cut off: download it again" in catalog.about.value
    catalog.list.value = "/m/ink.safetensors"
    catalog.use.click()
    assert used == [ROWS[2]]


def test_enter_in_the_box_uses_what_is_chosen(catalog):
    used = []
    catalog.use_row = used.append
    catalog.find.value = "ink"
    catalog.find._handle_custom_msg({"event": "submit"}, [])
    catalog.find.value = "nothing of that name"
    catalog.find._handle_custom_msg({"event": "submit"}, [])
    assert used == [ROWS[2]]


@pytest.mark.parametrize("row, prompt, after", [
    (ROWS[2], "", "<lora:ink:1>"), (ROWS[2], "a cat, ", "a cat, <lora:ink:1>"), (ROWS[2], "a <lora:ink:0.4>", "a <lora:ink:0.4>"),
    (ROWS[4], "a", "a, <hypernet:old:1>"), (ROWS[3], "a", "a, bad-hands"), (ROWS[3], "a bad-hands", "a bad-hands"),
])  # fmt: skip
def test_networks_go_into_the_prompt_once(row, prompt, after):
    assert in_prompt(row, prompt) == after


def test_names_of_kinds_are_those_of_the_store():
    assert (CHECKPOINT, VAE, UNKNOWN) == (detect.CHECKPOINT, detect.VAE, detect.UNKNOWN)
    known = {value for name, value in vars(detect).items() if name.isupper() and isinstance(value, str)}
    assert set(GROUPS) <= known and set(TAGS) <= set(GROUPS)


# --- in the panel

@pytest.fixture(params=["thread", "colab"])
def studio(request, monkeypatch, tmp_path) -> Studio:
    host = replace(module.this_host(), door=request.param)
    monkeypatch.setattr(module, "this_host", lambda: host)
    studio = Studio(models=tmp_path / "models", outputs=tmp_path / "outputs")
    yield studio
    studio._fetching.stop()


def until(studio: Studio, condition) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        studio._screen.flush()
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"it did not come to that; the panel says: {studio._catalog.said.value} {studio._view.error.value}")


def test_used_files_reach_the_form(studio):
    studio._shelf = FakeShelf()
    studio._look_for_files()
    catalog, form = studio._catalog, studio._form
    until(studio, lambda: len(catalog.list.options) > 4)
    for entry, read in ((ENTRIES[1], lambda: form.model.value), (ENTRIES[3], lambda: form.vae.value), (ENTRIES[4], lambda: form["prompt"].value)):
        catalog.list.value = str(entry.path)
        catalog.use.click()
        assert entry.title in read()
    assert form["prompt"].value == "<lora:ink:1>"


def test_a_link_is_fetched_with_a_bar_and_then_listed(studio, tmp_path):
    catalog = studio._catalog
    with serve(Site(model_bytes())) as site:
        catalog.link.value = f"{site.url}/fine.safetensors?token=my-secret"
        catalog.get.click()
        assert "my-secret" not in catalog.link.value
        until(studio, lambda: studio._fetching.job.done and not catalog.get.disabled)
        assert site.seen[0]["authorization"] == "Bearer my-secret" and "my-secret" not in site.seen[0]["path"]
    assert (tmp_path / "models" / "fine.safetensors").is_file() and catalog.bar.value == 1.0 and catalog.link.value == ""
    assert "fine.safetensors is here" in catalog.said.value and "my-secret" not in catalog.said.value
    until(studio, lambda: catalog.row is not None and catalog.row.title == "fine" and catalog.row.kind == "vae")
    assert studio._view.phase.name == "IDLE"      # it is no picture


def test_a_download_can_be_cancelled_and_gone_on_with(studio, tmp_path):
    catalog = studio._catalog
    with serve(Site(model_bytes(), stalls=[100_000, None])) as site:
        if studio._screen.callers_wait:     # the callback waits: the click on Cancel comes through the pump
            real = studio._screen.between
            studio._screen.between = lambda: (real(), "of 200 kB" in catalog.said.value and catalog.cancel.click())
        catalog.link.value = f"{site.url}/fine.safetensors"
        catalog.get.click()
        until(studio, lambda: "of 200 kB" in catalog.said.value or studio._fetching.job.done)
        catalog.cancel.click()
        until(studio, lambda: studio._fetching.job.done and not catalog.get.disabled)
        assert "stopped; what is here is kept" in catalog.said.value and catalog.link.value
        assert not (tmp_path / "models" / "fine.safetensors").exists()
        catalog.get.click()
        until(studio, lambda: studio._fetching.job.done and not catalog.get.disabled)
        assert (tmp_path / "models" / "fine.safetensors").is_file() and "range" in site.seen[1]


@pytest.mark.parametrize("text, says", [
    ("", "this is no link"), ("model.safetensors", "this is no link"), ("http://example.com/a.ckpt", "only https:// addresses are"),
])  # fmt: skip
def test_what_is_no_link_is_said(studio, text, says):
    studio._catalog.link.value = text
    studio._catalog.get.click()
    until(studio, lambda: says in studio._catalog.said.value)
    assert studio._fetching.job is None and not studio._catalog.get.disabled


def test_a_download_that_fails_says_why_and_can_be_tried_again(studio):
    with serve(Site(model_bytes(), statuses=[404])) as site:
        studio._catalog.link.value = f"{site.url}/fine.safetensors"
        studio._catalog.get.click()
        until(studio, lambda: studio._fetching.job.done and "any more (404)" in studio._catalog.said.value)
        assert isinstance(studio._fetching.job.error, NbsdError) and not studio._catalog.get.disabled and studio._catalog.cancel.disabled


def test_files_go_into_the_first_folder(tmp_path):
    studio = Studio(models=[tmp_path / "a", tmp_path / "b"], outputs=tmp_path / "outputs")
    assert studio._fetching._folder == Path(tmp_path / "a")
