from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from nbsd.errors import ModelError, OutOfMemory, RecipeError
from nbsd.events import Downloading, Ended, Event, Loading, Made, Note, Progress, Started
from nbsd.picture import Picture
from nbsd.recipe import Recipe
from nbsd.ui import view as module
from nbsd.ui.dispatch import Screen, ScreenJob
from nbsd.ui.gallery import PAGE, Gallery, thumbnail
from nbsd.ui.parts import Parts
from nbsd.ui.phase import ALLOWED, Phase, move
from nbsd.ui.view import View, large, progress_words, sentence
from nbsd.worker import Job


@dataclass(frozen=True, eq=False)
class Told(Picture):
    text: str = "a cat"

    @property
    def infotext(self) -> str:
        return self.text


def picture(seed: int = 1, path: Path | None = None, size: tuple[int, int] = (64, 32)) -> Told:
    return Told(Image.new("RGB", size, (seed % 256, 90, 90)), Recipe(seed=seed, width=size[0], height=size[1]), path, text=f"seed {seed}")


def progress(step: int = 5, picture: int = 0, pictures: int = 1, preview: bytes | None = None) -> Progress:
    return Progress(picture, pictures, step, 10, seed=7, rate=2.0, seconds_left=3.0, preview=preview)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def picked() -> list[Picture]:
    return []


@pytest.fixture
def view(clock: list[float], picked: list[Picture]) -> View:
    return View(Parts(), picked.append)


@pytest.fixture
def job() -> ScreenJob:
    return ScreenJob(lambda report, control: None, Screen(lambda *_: None, lambda: False, lambda _: None, "colab"), 1, 512)


def buttons(view: View) -> str:
    return "".join(letter for letter, button in zip("GIS", (view.generate, view.interrupt, view.skip), strict=True) if not button.disabled)


def test_a_job_from_click_to_end(view: View, job: Job, clock: list[float], tmp_path: Path) -> None:
    path = tmp_path / "00001-1.png"
    picture().image.save(path)
    assert (view.phase, buttons(view)) == (Phase.IDLE, "G")
    view.queued(job, "another job")
    assert (view.phase, buttons(view)) == (Phase.LOADING, "I") and "waiting for another job" in view.status.value
    view.show(job, Started())
    assert view.phase is Phase.LOADING
    clock[0] += 2
    view.show(job, Loading("m.ckpt", 50, 200))
    assert view.bar.value == 0.025 and "loading m.ckpt · 25%" in view.status.value
    clock[0] += 2
    view.show(job, progress(5))
    assert (view.phase, buttons(view)) == (Phase.RUNNING, "IS") and view.bar.value == pytest.approx(0.55)
    assert "image 1/1 · step 5/10 · 2.0 it/s · 0:03 left · seed 7" in view.status.value
    view.show(job, Made(picture(path=path)))
    view.show(job, Ended())
    assert (view.phase, buttons(view)) == (Phase.IDLE, "G") and view.bar.value == 1
    assert "done: 1 picture in 0:04" in view.status.value
    assert view.image.value == path.read_bytes() and view.image.format == "png" and view.frame.children == (view.image,)
    assert view.infotext.value == "seed 1" and str(path) in view.path.value and len(view.gallery.pictures) == 1


EVENTS = (Started(), Loading("x"), Downloading("x", 5, 10), progress(), Made(picture()), Note("read this"), Ended())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_there_is_a_way_to_show_every_event(view: View, job: Job, event: Event) -> None:
    if not isinstance(event, Started):
        view.show(job, Started())
    view.show(job, event)


def test_the_events_above_are_all_there_are(view: View, job: Job) -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    with pytest.raises(TypeError, match="no way to show"):
        view.show(job, "something else")    # type: ignore[arg-type]


def test_interrupt_shows_at_once_and_a_late_one_shows_nothing(view: View, job: Job) -> None:
    view.show(job, Started())
    view.show(job, progress())
    view.stopping(Job(lambda report, control: None))    # a click on another job's Interrupt
    assert view.phase is Phase.RUNNING
    view.stopping(job)
    assert (view.phase, buttons(view)) == (Phase.STOPPING, "")
    view.show(job, progress(6))     # a step was on its way
    assert view.phase is Phase.STOPPING and "stopping" in view.status.value
    view.show(job, Ended(stopped=True))
    view.stopping(job)
    assert view.phase is Phase.IDLE and "stopped; 0 pictures finished" in view.status.value and view.error.value == ""


def test_an_error_is_a_sentence_that_goes_with_the_next_job(view: View, job: Job) -> None:
    view.show(job, Started())
    view.show(job, Ended(error=ModelError("<b>.ckpt is an HTML page: download it again")))
    assert view.error.value == '<div role="alert">&lt;b&gt;.ckpt is an HTML page: download it again</div>'
    assert view.bar.bar_style == "danger" and "failed" in view.status.value and buttons(view) == "G"
    view.show(job, Started())
    assert view.error.value == "" and view.bar.bar_style == ""


@pytest.mark.parametrize("error, words", [
    (RecipeError("width is 100: use a multiple of 8"), "width is 100: use a multiple of 8"),
    (OutOfMemory("the GPU is full: lower the batch size"), "the GPU is full: lower the batch size"),
    (MemoryError(), "the memory is full: choose a smaller width"),
    (KeyError("x"), "a bug in nbsd: KeyError: 'x'; please report it"),
])
def test_sentences(error: BaseException, words: str) -> None:
    assert sentence(error).startswith(words)


def test_notes_are_kept_while_the_job_runs(view: View, job: Job) -> None:
    view.show(job, Started())
    view.show(job, Note("one <i>"))
    view.show(job, Note("two"))
    view.show(job, Ended())
    assert view.notes.value == "<div>one &lt;i&gt;</div><div>two</div>"
    view.show(job, Started())
    assert view.notes.value == ""


def test_the_status_line_is_read_out_once_a_second_but_nothing_stays_unsaid(view: View, job: Job, clock: list[float]) -> None:
    view.show(job, Started())
    said = []
    for step in range(1, 10):
        clock[0] += 0.3
        view.show(job, progress(step))
        said.append(view.status.value)
    assert len(set(said)) == 3      # starting, step 4, step 8
    assert "step 9/10" not in view.status.value and view.tick()
    clock[0] += 1
    assert not view.tick() and "step 9/10" in view.status.value
    view.show(job, Ended())
    assert "done" in view.status.value


def test_previews_come_five_times_a_second_at_most(view: View, job: Job, clock: list[float]) -> None:
    view.show(job, Started())
    shown = set()
    for step in range(1, 21):
        clock[0] += 0.05
        view.show(job, progress(step % 10, preview=b"jpeg %d" % step))
        shown.add(view.image.value)
    assert 4 <= len(shown - {b""}) <= 6
    assert view.image.format == "jpeg" and view.image.width == "512"


def test_a_picture_that_the_user_looks_at_is_not_covered_by_previews(view: View, job: Job, clock: list[float], picked: list[Picture]) -> None:
    first, second = picture(1), picture(2)
    view.show(job, Started())
    view.show(job, Made(first))
    view.show(job, progress(1, preview=b"preview"))
    assert view.image.value == b"preview"
    view.gallery.box.children[0].children[1].click()
    assert picked == [first]
    view.pick(first)
    shown = view.image.value
    clock[0] += 1
    view.show(job, progress(2, preview=b"another"))
    assert view.image.value == shown and view.picture is first
    view.show(job, Made(second))
    assert view.picture is second and view.image.value != shown


def test_after_a_stop_the_last_finished_picture_stands_there(view: View, job: Job) -> None:
    view.show(job, Started())
    view.show(job, Made(picture(1)))
    finished = view.image.value
    view.show(job, progress(3, preview=b"half"))
    view.show(job, Ended(stopped=True))
    assert view.image.value == finished


@pytest.mark.parametrize("event, batch, share", [
    (progress(0), 1, 0.0), (progress(10), 1, 1.0), (progress(5, 2, 4), 1, 0.625), (progress(5, 0, 4), 4, 0.5), (progress(5, 4, 5), 4, 0.9),
    (progress(15), 1, 1.0),
])
def test_how_far_the_whole_job_is(view: View, job: ScreenJob, event: Progress, batch: int, share: float) -> None:
    job.batch_size = batch
    view.show(job, Started())
    view.show(job, event)
    assert view.bar.value == pytest.approx(share)


def test_the_bar_never_goes_back(view: View, job: Job) -> None:
    places = []
    for event in (Started(), *(Loading("m", done, 4) for done in range(5)), *(progress(step, 0, 2) for step in range(11)),
                  Made(picture()), Loading("hires.ckpt", 1, 2), *(progress(step, 1, 2) for step in range(11)),
                  replace(progress(9, 1, 2), steps=20), Ended()):       # more was found to do
        view.show(job, event)
        places.append(view.bar.value)
    assert places == sorted(places) and places[0] == 0 and places[-1] == 1


def test_two_jobs_one_after_the_other(view: View, job: Job) -> None:
    second = Job(lambda report, control: None)
    view.queued(job, "nothing")
    view.queued(second, "another job")
    assert view.job is job
    for one in (job, second):
        view.show(one, Started())
        assert view.job is one
        view.show(one, progress())
        view.show(one, Ended())
    assert view.phase is Phase.IDLE


def test_a_second_model_may_be_loaded_half_way(view: View, job: Job) -> None:
    for event in (Started(), progress(), Loading("hires.ckpt", 1, 2), progress(), Ended()):
        view.show(job, event)
    assert view.phase is Phase.IDLE


def test_progress_in_words() -> None:
    assert progress_words(progress(20, 2, 9), 4) == "images 3-6/9 · step 20/10 · 2.0 it/s · 0:03 left · seed 7"
    assert progress_words(Progress(0, 1, 0, 20, 3)) == "image 1/1 · step 0/20 · seed 3"
    assert "4.0 s/it" in progress_words(Progress(0, 1, 0, 20, 3, rate=0.25))


def test_the_screen_shows_the_file_itself_and_a_jpeg_where_it_is_large_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    picture().image.save(path)
    assert large(picture(path=path)) == (path.read_bytes(), "png")
    monkeypatch.setattr(module, "LARGEST_PNG", 10)
    assert large(picture(path=path))[1] == "jpeg"
    data, form = large(picture(path=tmp_path / "gone.png"))
    assert form == "jpeg" and Image.open(io.BytesIO(data)).size == (64, 32)


# --- phases

@pytest.mark.parametrize("now", Phase)
@pytest.mark.parametrize("to", Phase)
def test_moves(now: Phase, to: Phase) -> None:
    if to in ALLOWED[now]:
        assert move(now, to) is to
    else:
        with pytest.raises(RuntimeError, match=to.value):
            move(now, to)


def test_the_panel_can_always_get_back_to_idle() -> None:
    assert all(Phase.IDLE in ALLOWED[phase] for phase in Phase if phase is not Phase.IDLE) and set(ALLOWED) == set(Phase)


# --- gallery

def shown(gallery: Gallery) -> list[str]:
    return [tile.children[1].description.split("seed ")[1] for tile in gallery.box.children]


def test_the_gallery_shows_the_newest_first_in_pages() -> None:
    gallery = Gallery(Parts(), lambda picture: None)
    for seed in range(PAGE):
        gallery.add(picture(seed))
    assert shown(gallery) == [str(seed) for seed in reversed(range(PAGE))] and len(gallery.widget.children) == 1
    kept = gallery.box.children[0]
    gallery.add(picture(PAGE))
    assert shown(gallery) == [str(seed) for seed in range(PAGE, 0, -1)] and gallery.box.children[1] is kept
    assert len(gallery.widget.children) == 2
    gallery._older.click()
    assert shown(gallery) == ["0"] and gallery._older.disabled and "page 2 of 2" in gallery._where.value
    gallery.add(picture(PAGE + 1))
    assert shown(gallery) == ["0"]      # nothing moves under the eyes of who looks at old ones
    gallery._newer.click()
    assert shown(gallery)[0] == str(PAGE + 1) and gallery._newer.disabled
    assert len(gallery.pictures) == PAGE + 2


def test_thumbnails_are_small_jpegs_that_keep_their_shape() -> None:
    data = thumbnail(picture(size=(1024, 512)))
    assert Image.open(io.BytesIO(data)).size == (160, 80) and len(data) < 8192
