"""The settings that an infotext may leave open, and the answers that are worth trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nbsd import match
from nbsd.infotext import rules
from nbsd.recipe import LATEST, Recipe

FIRST, LATER = 1, 2     # stages: what decides the picture as a whole, and the rest


@dataclass(frozen=True)
class Answer:
    """One value of a setting."""

    words: str                      # as a sentence says it
    changes: dict[str, Any]         # field of a recipe -> value


@dataclass(frozen=True)
class Question:
    """A setting that matters to a recipe's picture. Its first answer is what the recipe has."""

    name: str
    stage: int
    said: bool                      # the text has answered it: nothing to try
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class _Row:
    name: str                                               # as the panel says it
    field: str
    keys: tuple[str, ...]                                   # of an infotext; any of them answers the question
    values: tuple[tuple[Any, str], ...]                     # those to try, in words
    matters: Callable[[Recipe], bool]
    stage: int = LATER


# "NV" is not tried: it imitates "GPU" to the last digits. In order of their effect on a picture.
_ROWS: tuple[_Row, ...] = (
    _Row("RNG", "rng", ("RNG",), (("GPU", "GPU"), ("CPU", "CPU")), lambda _: True, FIRST),
    _Row("ENSD", "ensd", ("ENSD",), ((0, "0"), (31337, "31337")), match.draws_noise, FIRST),
    _Row("clip skip", "clip_skip", ("Clip skip",), ((1, "1"), (2, "2")), lambda _: True, FIRST),
    _Row("old Karras sigmas", "old_karras", ("Old Karras sigmas",), ((False, "off"), (True, "on")), match.runs_karras),
    _Row("old prompt editing timelines", "old_prompt_timelines", ("Old prompt editing timelines",), ((False, "off"), (True, "on")),
         match.timelines_differ),
    _Row("emphasis", "emphasis", ("Emphasis",), tuple((name, name) for name in ("Original", "No norm", "Ignore", "None")),
         match.uses_emphasis),
    _Row("old emphasis", "old_emphasis", ("Old emphasis",), ((False, "off"), (True, "on")),
         lambda recipe: recipe.dialect == "webui" and match.uses_emphasis(recipe)),
)  # fmt: skip


def open_questions(recipe: Recipe, layers: int = 12) -> list[Question]:
    """The settings that matter to this recipe's picture, those that decide most first.

    `layers`: of the text encoder; a larger clip skip is not tried.
    """
    keys = match.written(recipe)
    usual = Recipe()
    found = []
    for row in _ROWS:
        if not row.matters(recipe):
            continue
        has = getattr(recipe, row.field)
        said = any(key in keys for key in row.keys) if keys is not None else has != getattr(usual, row.field)
        values = [(value, words) for value, words in row.values if row.field != "clip_skip" or value <= layers]
        first = [(value, words) for value, words in values if _alike(value, has)] or [(has, str(has))]
        rest = [(value, words) for value, words in values if not _alike(value, has)]
        answers = tuple(Answer(words, {row.field: value}) for value, words in (*first, *rest))
        found.append(Question(row.name, row.stage, said, answers))
    if version := _version(recipe, keys):
        found.append(version)
    return [question for question in found if len(question.answers) > 1]


def _alike(value: Any, has: Any) -> bool:
    """Whether two values of a field make one picture."""
    return value == has or {value, has} == {"GPU", "NV"}


def _version(recipe: Recipe, keys: tuple[str, ...] | None) -> Question | None:
    """A text without Version counts as old; other programs write none either, and people cut it off."""
    if keys is None or "Version" in keys:
        return None
    asked = {row.field for row in _ROWS}
    today = replace(recipe, version=LATEST)
    changes = {name: getattr(Recipe(), name) for name in rules.implied(recipe) if name not in asked and name not in rules.implied(today)}
    if "Schedule type" not in keys and rules.bare_is_uniform(recipe.sampler) and recipe.schedule == rules.UNIFORM:
        changes["schedule"] = rules.AUTOMATIC
    changes = {name: value for name, value in changes.items() if getattr(recipe, name) != value}
    return Question("rules", LATER, False, (Answer("of before 2023", {}), Answer("of today", changes))) if changes else None
