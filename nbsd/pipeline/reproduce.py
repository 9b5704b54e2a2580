"""Which settings made this picture? Those that its infotext leaves open are tried, and the pictures compared.

No coarse look can decide it: after a few steps no picture resembles its end, and with fewer steps noise is added at other places. So
whole pictures are made, but few: the settings are decided one after the other, those with the largest effect together and first, and
only the best combinations go on.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsd.errors import NbsdError
from nbsd.events import Event, Note, Progress
from nbsd.picture import Picture
from nbsd.pipeline.check import check
from nbsd.pipeline.compare import Likeness, Target, apart, read_picture
from nbsd.pipeline.make import Control, Unasked, decode, ignore
from nbsd.pipeline.model import Model, load
from nbsd.pipeline.open_settings import FIRST, Answer, Question, open_questions
from nbsd.recipe import Recipe, join_title, split_title

if TYPE_CHECKING:
    from PIL.Image import Image

BEAM = 2                # combinations that go on to the next question
LATER = 3               # combinations that are made anew where the search used fewer steps
CLOSE = 0.98            # score from which a picture is the same to the eye: other precision, other GPU, saved with losses
VISIBLE = 0.05          # bytes (root mean square) that two pictures must be apart for a choice between them

Source = str | PathLike[str] | bytes | Any      # or a PIL picture, or a Picture
Answers = tuple[int, ...]                       # for each question the number of its answer


@dataclass(frozen=True)
class Trial:
    """A combination that was tried."""

    recipe: Recipe
    answers: tuple[tuple[str, str], ...]        # (name of a setting, its value in words), one for each open setting
    likeness: Likeness


@dataclass(frozen=True, eq=False)
class Reproduced:
    """What came of it: the best combination, and all that were tried."""

    recipe: Recipe                              # the text's, with the settings that were found
    picture: Picture                            # as it was made here, not saved
    score: float                                # 1: the same picture, 0: unrelated
    matches: bool                               # whether at least 99 of 100 bytes are within 1
    found: tuple[tuple[str, str], ...]          # settings that the text left open: (name, value)
    undecided: tuple[str, ...]                  # those that made no difference to the picture, or none that could be told
    tried: tuple[Trial, ...]                    # best first
    said: tuple[tuple[str, str], ...] = ()      # settings of the same kind that the text did say

    @property
    def close(self) -> bool:
        """Whether it is the same picture but for what precision, another GPU or a lossy file change."""
        return self.matches or self.score >= CLOSE

    @property
    def text(self) -> str:
        """One plain sentence."""
        return _sentence(self)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return html.escape(self.text)


def reproduce(
    picture: Source,
    model: str | PathLike[str] | Model,
    *,
    recipe: Recipe | None = None,
    steps: int | None = None,
    vaes: Sequence[str | PathLike[str]] = (),
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
) -> Reproduced:
    """Find the settings that a picture's infotext leaves open: RNG, ENSD, clip skip, emphasis, old behaviours, VAE.

    `picture`: a path, the bytes of a file, a PIL picture or a `Picture`, with its infotext; `recipe` is used instead of that. Of a
    recipe that was read from no text, fields that have their default count as open.
    `model`: a file, or a loaded model. `vaes`: files of VAEs to try besides the model's own.
    `steps`: makes the search quicker with fewer steps than the recipe's, the best few are made in full at the end. Only for samplers
    that add no noise: with others, and with edits at numbered steps, such a search finds nothing.
    `report` gets Progress and Note events; `control` stops it (raises Stopped). Raises RecipeError where there is no recipe, or one that
    cannot be made; what `load` raises for the model.
    """
    image, recipe, lossless = read_picture(picture, recipe)
    check(recipe if steps is None else replace(recipe, steps=steps))
    loaded = model if isinstance(model, Model) else load(Path(model))
    models = [loaded, *_with_vaes(loaded, vaes)]
    target = Target(image, (recipe.width, recipe.height))
    for sentence in (*_wrong_model(recipe, loaded), *target.notes(lossless)):
        report(Note(sentence))
    layers = loaded.checkpoint.text_encoder.config.num_hidden_layers
    search = _Search(recipe, open_questions(recipe, layers), models, target, report, control or Unasked())
    search.run(steps)
    result = search.result()
    report(Note(result.text))
    return result


def _with_vaes(model: Model, vaes: Sequence[str | PathLike[str]]) -> Iterator[Model]:
    """The same model with other VAEs; everything else is shared."""
    from nbsd.models.load import load_vae

    for path in vaes:
        checkpoint = model.checkpoint
        vae = load_vae(Path(path), checkpoint.family, model.compute.device, model.compute.vae)
        yield Model(replace(checkpoint, vae=vae, vae_path=Path(path)), model.compute)


def _wrong_model(recipe: Recipe, model: Model) -> Iterator[str]:
    from nbsd.models import hashes

    _, digest = split_title(recipe.model)
    if digest:
        here = hashes.old_hash(model.checkpoint.path) if len(digest) == hashes.OLD else hashes.sha256(model.checkpoint.path)
        if not here.startswith(digest):
            yield f"The picture was made with the model {recipe.model}; {model.name} is another one, so no setting will match."


@dataclass(eq=False)
class _Made:
    """A combination that was made: its best VAE, its picture."""

    answers: Answers
    likeness: Likeness
    picture: Picture
    model: int          # number of the model whose VAE fits best

    @property
    def rank(self) -> tuple[float, Answers]:
        """Of equal pictures the one nearest to what the text says comes first."""
        return self.likeness.difference, self.answers


class _Search:
    """Tries combinations of answers. A combination is made once for each number of steps."""

    def __init__(self, recipe: Recipe, questions: list[Question], models: list[Model], target: Target,
                 report: Callable[[Event], None], control: Control) -> None:
        self._recipe, self._models, self._target = recipe, models, target
        self._questions = [question for question in questions if not question.said]
        self._said = [question for question in questions if question.said]
        self._report, self._control = report, control
        self._made: dict[tuple[int, Answers], _Made] = {}
        self._planned = 0

    def run(self, steps: int | None) -> None:
        """Search, with so many steps where that is given, and then in full."""
        full = self._recipe.steps
        best = self._narrowed(steps or full)
        if steps not in (None, full):
            self._plan(len(best))
            best = sorted((self._try(one.answers, full) for one in best), key=lambda made: made.rank)
        self._mend(best[0], full)
        self._contrast(full)

    def _narrowed(self, steps: int) -> list[_Made]:
        """The best few combinations, found question by question."""
        first = [n for n, question in enumerate(self._questions) if question.stage == FIRST]
        later = [n for n in range(len(self._questions)) if n not in first]
        base = (0,) * len(self._questions)
        options = [list(_varied(base, first, self._questions)), *([] for _ in later)]
        self._plan(len(options[0]) + BEAM * sum(len(self._questions[n].answers) - 1 for n in later))
        beam = [self._try(base, steps)]
        for number, wanted in enumerate(options):
            asked = [] if number == 0 else [later[number - 1]]
            for answers in wanted or [one for made in beam for one in _varied(made.answers, asked, self._questions)]:
                if beam[0].likeness.same:
                    return beam
                beam.append(self._try(answers, steps))
                beam = _best(beam, max(BEAM, LATER))
            beam = _best(beam, BEAM)
        return beam

    def _mend(self, best: _Made, steps: int) -> None:
        """Change single answers of the best combination as long as that makes it better."""
        better = True
        while better and not best.likeness.same:
            better = False
            for n in range(len(self._questions)):
                for answers in _varied(best.answers, [n], self._questions):
                    made = self._try(answers, steps)
                    if made.likeness.difference < best.likeness.difference:
                        best, better = made, True

    def _contrast(self, steps: int) -> None:
        """Try another answer to each question that was decided without one, to see whether it matters at all."""
        best = self._best(steps)
        for n, question in enumerate(self._questions):
            if all(made.answers[n] == best.answers[n] for (done, _), made in self._made.items() if done == steps):
                other = 1 if best.answers[n] == 0 else 0
                self._try(_with(best.answers, n, other % len(question.answers)), steps)

    def _try(self, answers: Answers, steps: int) -> _Made:
        if (steps, answers) not in self._made:
            recipe = replace(self._answered(answers), steps=steps)
            self._made[steps, answers] = self._judged(answers, self._picture(recipe))
        return self._made[steps, answers]

    def _picture(self, recipe: Recipe) -> Picture:
        for picture in self._models[0].make(recipe, report=self._tell, control=self._control):
            return picture
        raise NbsdError("a picture was skipped, and without it nothing can be compared: use Interrupt to end the search")

    def _judged(self, answers: Answers, picture: Picture) -> _Made:
        """Compare a picture, decoded by every VAE."""
        made = []
        for n, model in enumerate(self._models):
            other = picture
            if n:
                vae = join_title(model.checkpoint.vae_name or "", model.checkpoint.vae_hash or "")
                other = replace(picture, image=self._decoded(model, picture), recipe=replace(picture.recipe, vae=vae))
            made.append(_Made(answers, self._target.compare(other.image), other, n))
        return min(made, key=lambda one: (one.likeness.difference, one.model))

    def _decoded(self, model: Model, picture: Picture) -> Image:
        assert picture.latent is not None
        return decode(model, picture.latent.to(model.compute.device), self._report, tiling=picture.recipe.tiling)

    def _answered(self, answers: Answers) -> Recipe:
        """The recipe with these answers. The first answer of each question is what the recipe says already."""
        changes: dict[str, Any] = {}
        for question, number in zip(self._questions, answers, strict=True):
            if number:
                changes |= question.answers[number].changes
        return replace(self._recipe, **changes)

    def _plan(self, more: int) -> None:
        self._planned = len(self._made) + more

    def _tell(self, event: Event) -> None:
        """A picture's progress as that of the search."""
        if isinstance(event, Progress):
            done, planned = len(self._made), max(self._planned, len(self._made) + 1)
            left = None
            if event.seconds_left is not None and event.rate:
                left = event.seconds_left + (planned - done - 1) * event.steps / event.rate
            event = replace(event, picture=done, pictures=planned, seconds_left=left)
        self._report(event)

    # --- what came of it

    def _best(self, steps: int) -> _Made:
        return min((made for (done, _), made in self._made.items() if done == steps), key=lambda made: made.rank)

    def result(self) -> Reproduced:
        full = self._recipe.steps
        best = self._best(full)
        made = sorted((one for (steps, _), one in self._made.items() if steps == full), key=lambda one: one.rank)
        found, undecided = [], []
        for n, question in enumerate(self._questions):
            if self._decided(n, best, made):
                found.append((question.name, question.answers[best.answers[n]].words))
            else:
                undecided.append(question.name)
        changes = {name: getattr(best.picture.recipe, name) for name in ("model", "vae")}
        recipe = self._answered(best.answers)
        if len(self._models) > 1:
            recipe = replace(recipe, vae=changes["vae"])
            found.append(("VAE", self._models[best.model].checkpoint.vae_name or "of the model"))
        return Reproduced(
            recipe=recipe, picture=replace(best.picture, recipe=replace(recipe, **changes)), score=best.likeness.score,
            matches=best.likeness.matches, found=tuple(found), undecided=tuple(undecided),
            tried=tuple(Trial(self._answered(one.answers), self._words(one.answers), one.likeness) for one in made),
            said=tuple((question.name, question.answers[0].words) for question in self._said),
        )

    def _decided(self, n: int, best: _Made, made: list[_Made]) -> bool:
        """Whether every other answer that was tried gives a clearly worse picture.

        What spoils the comparison (losses, another precision) is independent of the settings. So with the right ones the squared
        difference is by d * d smaller than with wrong ones, whose picture is d away, and with those on the other side by as much larger.
        """
        others = [one for one in made if one.answers[n] != best.answers[n]]
        return bool(others) and all(self._is_worse(one, best) for one in others)

    def _is_worse(self, other: _Made, best: _Made) -> bool:
        distance = apart(other.picture.image, best.picture.image)
        gain = other.likeness.difference**2 - best.likeness.difference**2
        return distance > VISIBLE and gain > distance**2 / 2

    def _words(self, answers: Answers) -> tuple[tuple[str, str], ...]:
        return tuple((question.name, question.answers[number].words) for question, number in zip(self._questions, answers, strict=True))


def _varied(answers: Answers, which: list[int], questions: list[Question]) -> Iterator[Answers]:
    """All combinations of the answers to some questions, the others as they are."""
    for numbers in itertools.product(*(range(len(questions[n].answers)) for n in which)):
        changed = answers
        for n, number in zip(which, numbers, strict=True):
            changed = _with(changed, n, number)
        yield changed


def _with(answers: Answers, n: int, number: int) -> Answers:
    return (*answers[:n], number, *answers[n + 1:])


def _best(made: list[_Made], count: int) -> list[_Made]:
    """The best few; of equal pictures only the first, so that a setting without effect does not fill the places."""
    best: list[_Made] = []
    for one in sorted({one.answers: one for one in made}.values(), key=lambda one: one.rank):
        if not any(one.picture.image.tobytes() == other.picture.image.tobytes() for other in best):
            best.append(one)
    return best[:count]


def _sentence(result: Reproduced) -> str:
    values = [f"{name} {value}" for name, value in (*result.said, *result.found)]
    with_these = f" with {', '.join(values)}" if values else " as the recipe says"
    how = f"The picture matches{with_these}"
    if not result.matches:
        score = f"{int(result.score * 1000) / 1000:.3f}"
        how = f"It comes close, but not to the byte (score {score}),{with_these}" if result.close else (
            f"No combination gives this picture; the nearest (score {score}) is the one{with_these}")
    names = [name for name, _ in result.found]
    unsaid = f"; the recipe did not say {_listed(names)}" if names else ""
    open_still = f"; {_listed(list(result.undecided))} cannot be told from this picture" if result.undecided else ""
    return f"{how}{unsaid}{open_still}."


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


__all__ = ["Answer", "Reproduced", "Trial", "reproduce"]
