"""Studio joins the parts: form and view, worker, pipeline and outputs. The only module that knows all of them.

Nothing slow happens in `Studio()` and `show()`: files are looked for and torch is imported in threads, once the panel is on screen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from nbsd import several
from nbsd.errors import ModelError, NbsdError, NoTextEncoderError, Stopped
from nbsd.events import Ended, Event, Loading, Made
from nbsd.finder import Finder, Folders, paths_of
from nbsd.hosts import this_host
from nbsd.outputs import Outputs
from nbsd.picture import Picture
from nbsd.pipeline.scripts import Script, details_in, without
from nbsd.recipe import Recipe
from nbsd.ui import paste
from nbsd.ui.catalog import Catalog
from nbsd.ui.dispatch import DOORS, Screen, ScreenJob, route_freely
from nbsd.ui.fetching import Fetching, FetchJob
from nbsd.ui.form import Form, Settled, drawn
from nbsd.ui.found import Chooser
from nbsd.ui.given import Given, ToEnlarge
from nbsd.ui.panel import Panel
from nbsd.ui.parts import Parts
from nbsd.ui.settings import Settings
from nbsd.ui.view import View
from nbsd.worker import Control, Interrupted, Job, Report, Worker

PATIENCE = 2.0                          # seconds that show() waits for the list of files where no thread can show it


class Shelf(Protocol):
    """Where models come from; `pipeline.model.Shelf`, or a stand-in, which has a `scan()` too."""

    def model(self, recipe: Recipe, on_progress: Callable[[int, int], None] | None = None) -> Any: ...

    def also(self, folder: Path) -> None:
        """Look for networks and embeddings there too."""


def _route(job: Job, event: Event) -> None:
    if isinstance(job, ScreenJob):
        job.screen.tell(job, event)


# One for the kernel, not for each Studio: a cell that is run again must neither load a second copy of the model nor use the device twice.
_WORKER = Worker(_route)
_SHELVES: dict[tuple[Path, ...], Shelf] = {}
_WARMING: Job | None = None
_BROKEN: Exception | None = None        # why the libraries could not be loaded


class Studio:
    """The panel, and what it does. `models`: a folder or several, `outputs`: a folder; without them the host's own are used."""

    def __init__(self, models: Folders | None = None, outputs: str | os.PathLike[str] | None = None) -> None:
        host = this_host()
        self.folders = paths_of(models) if models is not None else list(host.models())
        self.outputs = Outputs(outputs if outputs is not None else host.outputs())
        self._shelf: Shelf | None = None        # a stand-in for the models, in tests
        parts = Parts()
        self._form = Form(parts)
        self._settings = Settings(self.outputs.folder, self._form.values)
        self._form.restore(self._settings.read())
        self._view = View(parts, on_pick=lambda picture: self._screen.post(lambda: self._view.pick(picture)))
        given = Given(parts, self._form.modes, lambda call: self._screen.post(call), self._try, cautious=not DOORS[host.door])
        self._catalog = Catalog(parts)
        self._panel = Panel(parts, self._form, self._view, given, self._catalog)
        self._screen = Screen(self._show_event, self._tick, self._view.fail, host.door)
        chooser = Chooser(self._form, self._catalog)
        elsewhere = host.elsewhere if models is None else tuple
        self._finder = Finder(self.folders, self._form, self._panel, chooser, self._screen, lambda: self._shelf, elsewhere)
        self._fetching = Fetching(self._catalog, self._screen, self.folders[0], self._finder.came)
        self._errands = Worker(self._errand_told)
        self._host = host
        self._greeted = False
        self._asked: ScreenJob | None = None    # the last job of the Generate button
        self._connect()

    # --- the panel

    def show(self) -> None:
        """Show the panel below this cell. May be called again at any time; it is the same panel."""
        from IPython.display import display

        display(self._panel.widget)
        if not self._greeted:
            self._greeted = True
            self._look_for_files()
            if self._shelf is None and not self._host.headless():
                _warm_up()
            self._errands.submit(ScreenJob(lambda report, control: self._say_notes(), self._screen))
        self._screen.flush()

    def _say_notes(self) -> None:
        """What the host's user should know, in the errands' thread: finding out takes seconds."""
        for note in self._host.notes():
            self._screen.post(partial(self._view.note, note))

    def _ipython_display_(self) -> None:
        self.show()

    def __repr__(self) -> str:
        return f"Studio(models={[str(folder) for folder in self.folders]}, outputs={str(self.outputs.folder)!r})"

    @property
    def recipe(self) -> Recipe:
        """What the panel says now; a seed of -1 is drawn anew each time."""
        return drawn(self._form.read())

    def paste(self, source: str | bytes | os.PathLike[str]) -> paste.Report:
        """Fill the panel from an infotext, a picture that carries one (its path or its bytes), or a text file.

        Returns what was understood. Raises RecipeError where there is nothing to read.
        """
        panel, picture, recipe = self._panel, paste.picture(source), None
        try:
            report = paste.read(source, self._form.read())
            recipe = report.recipe if report.complete else None
        finally:
            panel.again.offer(picture, recipe)
        panel.fills.fill("the pasted recipe", report.recipe, whole=report.complete)
        if report.complete:
            report = replace(report, notes=(*report.notes, *self._finder.match(report.recipe)))
        self._screen.post(lambda: self._panel.show_report(report))
        return report

    # --- making pictures

    def submit(
        self, recipe: Recipe | None = None, count: int = 1, batch_size: int = 1, image: Any = None, mask: Any = None,
    ) -> ScreenJob:
        """Start making `count` pictures, `batch_size` at a time, and return at once; without a recipe, what the panel says, its script too.

        Picture n is made from `recipe.nth(n)`, with the details that the recipe tells of. Read `job.pictures`, `job.done` and `job.error`;
        `job.stop()` and `job.skip()` act on it.
        `image` and `mask` (a path, bytes, a PIL picture or a Picture) are what img2img and inpainting change; without them the panel's are.
        """
        script = self._form.modes.script if recipe is None else details_in(recipe)
        recipe = self._complete(recipe if recipe is not None else self._form.read())
        given = self._given(recipe, image, mask)
        return self._submit(ScreenJob(
            lambda report, control: self._make(recipe, script, count, batch_size, given, report, control), self._screen,
            several.batch(script, batch_size), recipe.width,
        ))

    def _given(self, recipe: Recipe, image: Any = None, mask: Any = None) -> dict[str, Any]:
        """The picture and the mask that a recipe changes, by the names that a model knows them by."""
        if recipe.img2img is None:
            return {}
        if image is None:
            image, of_the_panel = self._panel.given.pictures(recipe)
            mask = of_the_panel if mask is None else mask
        return {name: one for name, one in (("image", image), ("mask", mask)) if one is not None}

    def _complete(self, recipe: Recipe) -> Recipe:
        recipe = drawn(recipe)
        return recipe if recipe.model is not None else replace(recipe, model=self._form.model.value)

    def _submit(self, job: ScreenJob) -> ScreenJob:
        why = "another job" if _WARMING is None or _WARMING.done else "the libraries to be loaded (once, some seconds)"
        self._screen.post(lambda: self._view.queued(job, why))
        _WORKER.submit(job)
        return job

    def generate(
        self, recipe: Recipe | None = None, count: int = 1, batch_size: int = 1, image: Any = None, mask: Any = None,
    ) -> list[Picture]:
        """Make pictures and wait for them; the arguments are those of `submit`. The notebook's stop button and the panel's Interrupt both end it.

        Returns the finished pictures, also when Interrupt was pressed. Raises what went wrong as NbsdError, and after the stop button
        a KeyboardInterrupt, so that a loop around it ends too.
        """
        job = self.submit(recipe, count, batch_size, image, mask)
        try:
            self._wait(job)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; finished pictures: {len(job.pictures)}, in {self.outputs.folder}") from None
        if job.error is not None:
            raise job.error
        return job.pictures

    def _wait(self, job: Job) -> None:
        """Wait for the end of a job and until it is shown; the notebook's stop button ends both the job and this."""
        try:
            job.wait(between=self._between)
        finally:
            self._screen.flush()

    def _between(self) -> None:
        self._screen.between()
        route_freely(self._panel.widget)

    def _show_event(self, job: Job, event: Event) -> None:
        if isinstance(event, Ended) and isinstance(event.error, NoTextEncoderError):
            self._form.borrowed.ask()
        (self._catalog if isinstance(job, FetchJob) else self._view).show(job, event)

    def _tick(self) -> bool:
        held_back = self._view.tick()
        route_freely(self._panel.widget)
        return held_back

    def _make(
        self, recipe: Recipe, script: Script | None, count: int, batch_size: int, given: dict[str, Any], report: Report, control: Control,
    ) -> None:
        """The job itself, in the worker's thread."""
        self.outputs.check()
        model = self._loaded(recipe, report, control)
        if script is not None:
            several.script(model, recipe, script, count, batch_size, given, self.outputs, report, control, partial(self._learn, recipe))
            return
        made = model.make(
            without(recipe), count=count, batch_size=batch_size, report=report, control=control, preview=True, **given)
        for picture in made:
            saved = self.outputs.save(picture)
            self._learn(recipe, saved.recipe)
            report(Made(saved))

    def _loaded(self, recipe: Recipe, report: Report, control: Control) -> Any:
        """The model of a recipe, loaded."""
        from nbsd.models import first

        if recipe.model is None and (self._shelf is not None or first.file() is None):
            raise ModelError(f"no model is chosen: put a model file into {self.folders[0].absolute()}, press Refresh and choose it")
        what = Path(recipe.model or first.NAME).name

        def loading(done: int, total: int) -> None:
            if control.stopping:
                raise Stopped("stopped while loading")
            report(Loading(what, done, total))

        return self._models().model(recipe, on_progress=loading)

    def _learn(self, asked: Recipe, made: Recipe) -> None:
        """A finished picture says the model's name and hash; reusing its recipe has to find the same row of the list."""
        form = self._form
        for name, value, picker in ((made.model, asked.model, form.model), (made.vae, asked.vae, form.vae),
                                    (made.text_encoder, asked.text_encoder, form.borrowed.picker)):
            if name and value:
                picker.learn(name, value)

    def _models(self) -> Shelf:
        if self._shelf is not None:
            return self._shelf
        key = tuple(self.folders)
        if key not in _SHELVES:
            _load_libraries()
            from nbsd.pipeline.model import Shelf

            _SHELVES[key] = Shelf(self.folders)
        for folder in self._finder.more:
            _SHELVES[key].also(folder)
        return _SHELVES[key]

    # --- what the buttons do; short, and from any thread

    def _connect(self) -> None:
        panel, view = self._panel, self._view
        view.generate.on_click(lambda _: self._clicked_generate())
        view.interrupt.on_click(lambda _: self._clicked_interrupt())
        view.skip.on_click(lambda _: self._clicked_skip())
        view.reuse.on_click(lambda _: self._clicked_reuse())
        panel.again.start.on_click(lambda _: self._clicked_reproduce())
        panel.again.use.on_click(lambda _: self._clicked_use_found())
        panel.refresh.on_click(lambda _: self._look_for_files())
        self._catalog.again.on_click(lambda _: self._look_for_files())
        panel.folder.observe(lambda _: self._look_for_files(), "value")
        panel.fill.on_click(lambda _: self._try(lambda: self.paste(panel.text.value)))
        panel.upload.observe(lambda _: self._try(self._uploaded), "value")
        self._form.watch(self._settings.changed)

    def _clicked_generate(self) -> None:
        if self._asked is not None and not self._asked.done:
            return      # a double click
        asked = Settled(self._form, lambda recipe: (self._panel.given.to_enlarge() or self._given(recipe), self._form.modes.script))

        def run(report: Report, control: Control) -> None:
            recipe, count, size, (given, script) = asked.get()
            if isinstance(given, ToEnlarge):
                self.outputs.check()
                _load_libraries()
                several.extras(given, self.folders, self.outputs, report, control)
                return
            size = several.batch(script, size)
            job.batch_size, job.width = size, recipe.width
            self._make(self._complete(recipe), script, count, size, given, report, control)

        job = ScreenJob(run, self._screen)
        self._begin(job)

    def _clicked_reproduce(self) -> None:
        again, recipe = self._panel.again, self._panel.again.recipe
        if recipe is None or again.picture is None or (self._asked is not None and not self._asked.done):
            return
        picture, model = again.picture, self._form.model.value
        vaes = [] if recipe.vae else self._finder.vaes()

        def run(report: Report, control: Control) -> None:
            loaded = self._loaded(replace(recipe, model=model), report, control)
            from nbsd.pipeline.reproduce import reproduce

            found = reproduce(picture, loaded, recipe=recipe, vaes=vaes, report=report, control=control)
            self._screen.post(lambda: again.show(found))

        self._begin(ScreenJob(run, self._screen, width=recipe.width))

    def _clicked_use_found(self) -> None:
        found = self._panel.again.found
        if found is not None:
            self._panel.fills.fill("the settings that were found", replace(found.recipe, model=self._form.model.value))

    def _begin(self, job: ScreenJob) -> None:
        """Start what a button asked for."""
        self._asked = job
        self._submit(job)
        self._settings.changed()
        if self._screen.callers_wait:
            with suppress(KeyboardInterrupt):       # the job has stopped; a button has no cell that could show the interrupt
                self._wait(self._asked)

    def _clicked_interrupt(self) -> None:
        job = self._view.job
        if job is not None:
            job.stop()
            self._screen.post(lambda: self._view.stopping(job))

    def _clicked_skip(self) -> None:
        if self._view.job is not None:
            self._view.job.skip()

    def _clicked_reuse(self) -> None:
        if self._view.picture is not None:
            self._panel.fills.fill("the recipe of a picture", self._view.picture.recipe, whole=True)

    def _uploaded(self) -> None:
        files = paste.uploaded(self._panel.upload.value)
        if files:
            paste.empty(self._panel.upload)
            self.paste(files[0][1])

    def _try(self, act: Callable[[], Any]) -> None:
        """Run what a click asks for; what goes wrong is shown, not raised into the log of a widget message."""
        try:
            act()
        except Exception as error:
            told = error
            self._screen.post(lambda: self._view.fail(told))
        else:
            self._screen.post(self._view.clear_error)

    # --- files

    def _look_for_files(self) -> None:
        job = self._errands.submit(ScreenJob(lambda report, control: self._finder.look(), self._screen))
        if self._screen.callers_wait:
            job.wait(PATIENCE)
            self._screen.flush()

    def _errand_told(self, job: Job, event: Event) -> None:
        if isinstance(event, Ended) and event.error is not None:
            error = event.error
            self._screen.post(lambda: self._view.fail(error))


def _warm_up() -> None:
    """Import what the first picture needs, before the worker's first job. A failure is told by that job."""
    global _WARMING
    if _WARMING is None:
        _WARMING = _WORKER.submit(Job(lambda report, control: _load_libraries()))


def _load_libraries() -> None:
    """Import torch, diffusers and transformers, in the worker's thread. Packages that were imported by half fail with another, misleading
    message the second time, so the first reason is kept."""
    global _BROKEN
    if _BROKEN is None:
        try:
            from nbsd.pipeline import warm_up

            warm_up()
        except Exception as error:
            _BROKEN = error
    if _BROKEN is not None:
        raise NbsdError(
            f"the libraries that make pictures could not be loaded ({type(_BROKEN).__name__}: {_BROKEN}): "
            "mend the installation, then restart the kernel"
        ) from _BROKEN
