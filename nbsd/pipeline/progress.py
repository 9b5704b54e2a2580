"""How far a job is: counts denoiser calls, looks ahead, and says when a preview is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from nbsd.events import Event, Note, Progress
from nbsd.models.families import SD1, Family
from nbsd.pipeline.preview import PreviewThrottle, cheap_preview
from nbsd.recipe import Recipe
from nbsd.sampling import SAMPLERS
from nbsd.sampling.img2img import img2img_steps


class Watch:
    """Counts denoiser calls and tells how far the job is."""

    def __init__(
        self, recipe: Recipe, count: int, batch_size: int, report: Callable[[Event], None], preview: bool, family: Family = SD1
    ) -> None:
        """`family`: of the model, which tells the colours of its latents."""
        self._report, self._count, self._family = report, count, family
        self._batches = -(-count // batch_size)
        self._planned = self._steps = max(1, calls_of(recipe))
        self._throttle = PreviewThrottle() if preview else None
        self._done = 0              # denoiser calls of this job
        self._began: float | None = None    # when the first call was answered: before it the model may still be warming up
        self._batch = -1

    def start(self, first: int, batch: Sequence[Recipe]) -> None:
        self._first, self._seed, self._call, self._batch = first, batch[0].seed, 0, self._batch + 1
        self._steps = self._planned
        self._tell(None)

    def called(self, x0: Callable[[], Tensor]) -> None:
        """A denoiser call was answered; `x0` gives the guess of the clean latents [B, 4, h, w], where a preview is due."""
        now = time.monotonic()
        self._call += 1
        self._done += 1
        if self._began is None:
            self._began, self._done = now, 0
        due = self._throttle is not None and self._throttle.due()
        self._tell(cheap_preview(x0()[0], self._family) if due else None, now - self._began)

    def tile(self, done: int, of: int) -> None:
        """An upscaler has done so many of its tiles; each counts like a denoiser call."""
        if not done:
            self._steps += of
        else:
            self._call += 1
        self._tell(None)

    def _tell(self, preview: bytes | None, seconds: float = 0.0) -> None:
        rate = self._done / seconds if self._done and seconds > 0 else None
        steps = max(self._steps, self._call)
        left = (self._batches - self._batch) * steps - self._call
        self._report(Progress(
            picture=self._first, pictures=self._count, step=self._call, steps=steps, seed=self._seed,
            rate=rate, seconds_left=left / rate if rate else None, preview=preview,
        ))


def calls_of(recipe: Recipe) -> int:
    """About how many denoiser calls a picture takes, both passes together."""
    calls = steps_of(recipe) * SAMPLERS[recipe.sampler].model_calls
    if recipe.hires:
        second = SAMPLERS[recipe.hires.sampler or recipe.sampler]
        calls += (recipe.hires.steps or recipe.steps) * second.model_calls
    return calls


def steps_of(recipe: Recipe) -> int:
    """How many steps the first pass makes."""
    if recipe.img2img is None:
        return recipe.steps
    schedule, t = img2img_steps(recipe.steps, recipe.img2img.denoising_strength, recipe.img2img.exact_steps)
    return (t if SAMPLERS[recipe.sampler].timesteps else t + 1) if schedule else 0


def part_of(report: Callable[[Event], None], done: int, total: int) -> Callable[[Event], None]:
    """A report for a job that is one of `total` equally long ones, `done` of which are done."""
    def told(event: Event) -> None:
        if isinstance(event, Progress):
            more = (total - done - 1) * event.steps / event.rate if event.rate else 0.0
            left = None if event.seconds_left is None else event.seconds_left + more
            event = replace(event, picture=done, pictures=total, seconds_left=left)
        report(event)
    return told


class Tally:
    """How far a job is whose pictures get details, of which nobody knows how many there are before the picture was looked at.

    Until then each pass counts as many boxes as it found in the last picture, at first one. Their calls are added to those of the batch.
    """

    def __init__(self, report: Callable[[Event], None], calls: Sequence[int], pictures: int, batch_size: int) -> None:
        """`calls`: the denoiser calls of a box in each pass over a picture."""
        self._report, self._calls, self._pictures, self._size = report, calls, pictures, batch_size
        self._boxes = [1] * len(calls)      # of the last picture, in each pass
        self._first = -1                    # the first picture of the batch
        self._notes: set[str] = set()       # that were told: each box would say them again

    def told(self, event: Event) -> None:
        """What the making of the pictures themselves tells."""
        if isinstance(event, Progress):
            if event.picture != self._first:
                self.start(event.picture)
            self._done, self._base = event.step, max(event.step, event.steps)
            event = self._whole(event)
        self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, Note):
            if event.text in self._notes:
                return
            self._notes.add(event.text)
        self._report(event)

    def start(self, first: int) -> None:
        """A batch begins with this picture."""
        self._first = first
        self._to_come = min(self._size, self._pictures - first)     # pictures that were not looked at
        self._base = self._done = 0         # calls of the pictures themselves, in all and done
        self._spent = 0                     # calls of the boxes that are done
        self._boxes_left, self._pass = 0, -1

    def next_picture(self) -> None:
        """The next picture of the batch is looked at."""
        self._to_come -= 1
        self._done, self._pass, self._boxes_left = self._base, -1, 0

    def looked(self, number: int, boxes: int) -> None:
        """So many boxes are to be painted in this pass."""
        self._pass, self._boxes_left, self._boxes[number] = number, boxes, boxes

    def box_done(self) -> None:
        self._spent += self._calls[self._pass]
        self._boxes_left -= 1

    def within(self, seed: int) -> Callable[[Event], None]:
        """What the painting of a box tells. `seed`: of its picture."""
        def told(event: Event) -> None:
            self._pass_on(self._whole(replace(event, seed=seed), event.step) if isinstance(event, Progress) else event)
        return told

    def _whole(self, event: Progress, of_box: int = 0) -> Progress:
        """The event with the steps of the whole batch. `of_box`: calls that are done of the box in work."""
        one = sum(calls * boxes for calls, boxes in zip(self._calls, self._boxes, strict=True))
        later = sum(calls * boxes for calls, boxes in list(zip(self._calls, self._boxes, strict=True))[self._pass + 1:])
        now = self._calls[self._pass] * self._boxes_left + later if self._pass >= 0 else 0
        step, steps = self._done + self._spent + of_box, self._base + self._spent + now + self._to_come * one
        batches = -(-(self._pictures - self._first) // self._size) - 1
        left = max(steps - step, 0) + batches * (self._base + one * self._size)
        return replace(event, picture=self._first, pictures=self._pictures, step=step, steps=max(steps, step, 1),
                       seconds_left=left / event.rate if event.rate else None)
