"""What the web UI's text says when, and what its version changes. Facts of A1111 v1.10.1; `recipes.py` and `keys.py` apply them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from packaging.version import Version

from nbsd.infotext.text import endings, version_of
from nbsd.names import AUTOMATIC, SAMPLER_FACTS, SCHEDULE_NAMES, SamplerFacts
from nbsd.prompt.networks import split_networks, strip_comments
from nbsd.prompt.schedule import and_parts, prompt_schedule
from nbsd.recipe import OF_2022, Img2Img, Recipe, split_title

UNIFORM = "Uniform"
SEPARATE_SCHEDULE = "1.9.0"     # since this version "Schedule type" is a key of its own, and always written
FIRST_WRITTEN = "1.2.0"         # no text of an earlier version says which it is
OLD_HASH = 8                    # digits of a model's hash until January 2023
NEVER_ENDED = frozenset({"Restart"})    # had a schedule of its own before 1.9, and its name did not say so

# Old behaviours: before which version, for which recipes, which field has which value. A text without a version is older than all
# of them (the web UI has written its version since May 2023); a version that is none of the web UI's brings no rule.
BEHAVIOURS: tuple[tuple[str, Callable[[Recipe], bool], str, Any], ...] = (
    ("1.6.0", lambda recipe: "[" in recipe.prompt, "old_prompt_timelines", True),
    ("1.6.0", lambda recipe: recipe.sampler in ("DDIM", "PLMS"), "pad_conds", "v0"),
    ("1.7.0-225", lambda recipe: not recipe.zero_terminal_snr, "downcast_alphas", True),    # the two are of one age, and exclude each other
    (FIRST_WRITTEN, lambda recipe: is_of_2022(recipe), "rules", OF_2022),
    (FIRST_WRITTEN, lambda recipe: is_of_2022(recipe) and label(recipe.sampler, recipe.schedule) == "Karras", "old_karras", True),
)
IMPLIED = frozenset(field for _, _, field, _ in BEHAVIOURS)


class Written(NamedTuple):
    """A pair of a text that was read."""

    key: str
    raw: str        # its value as it stood there


class Leftovers(tuple[tuple[str, str], ...]):
    """`Recipe.unknown` of a recipe that was read: the unknown pairs, and besides them how the text was written.

    It is equal to the plain tuple of its pairs; `write` uses the rest to give back the same text, as far as the recipe is the same.
    """

    head: str                           # all before the line of parameters
    line: str                           # that line, as it was; "" where it has been changed
    prompts: tuple[str, str]            # what was read of it
    written: tuple[Written, ...]        # all pairs, in their order
    meant: dict[str, str | None]        # the text of each row of KEYS for the recipe that was read

    def __new__(cls, pairs: Iterable[tuple[str, str]] = (), head: str = "", line: str = "", written: Iterable[Written] = ()) -> Leftovers:
        self = super().__new__(cls, tuple(pairs))
        self.head, self.line, self.prompts, self.written, self.meant = head, line, ("", ""), tuple(written), {}
        return self


def is_of_2022(recipe: Recipe) -> bool:
    """Whether the model's hash is of the kind that was written until January 2023."""
    return len(split_title(recipe.model)[1]) == OLD_HASH


def passes(recipe: Recipe) -> tuple[Recipe, ...]:
    """What each run of a sampler is, as a recipe of its own: the hires fix makes a second one."""
    hires = recipe.hires
    if hires is None:
        return (recipe,)
    how = Img2Img(denoising_strength=hires.denoising_strength, extra_noise=hires.extra_noise, exact_steps=True)
    second = replace(
        recipe, hires=None, img2img=how, sampler=hires.sampler or recipe.sampler, schedule=hires.schedule or recipe.schedule,
        steps=hires.steps or recipe.steps, prompt=hires.prompt or recipe.prompt, negative_prompt=hires.negative_prompt or recipe.negative_prompt,
    )
    return replace(recipe, hires=None), second


def facts(recipe: Recipe) -> SamplerFacts:
    """What is known of the recipe's sampler; nothing of one that nbsd does not know."""
    return SAMPLER_FACTS.get(recipe.sampler) or SamplerFacts(recipe.sampler)


def is_before(version: str, limit: str) -> bool:
    """Whether the rules of before `limit` hold. Not for versions of other programs."""
    known = version_of(version)
    return not version or (known is not None and known < Version(limit))


def implied(recipe: Recipe) -> dict[str, Any]:
    """The fields whose absence from a text of this version does not mean the default."""
    return {field: value for limit, holds, field, value in BEHAVIOURS if is_before(recipe.version, limit) and holds(recipe)}


# Sampler and schedule


def schedule_is_apart(recipe: Recipe) -> bool:
    """Whether the schedule has a key of its own; else the sampler's name ends in it."""
    if isinstance(recipe.unknown, Leftovers) and any(pair.key == "Schedule type" for pair in recipe.unknown.written):
        return True
    known = version_of(recipe.version)
    return known is not None and known >= Version(SEPARATE_SCHEDULE)


def label(sampler: str, schedule: str) -> str:
    """The schedule that runs; "Automatic" where that is the model's own sigmas."""
    row = SAMPLER_FACTS.get(sampler)
    return row.schedule if row and schedule == AUTOMATIC else schedule


def bare_is_uniform(sampler: str) -> bool:
    """Whether a name without a schedule's meant the model's own sigmas before 1.9, and means another schedule since."""
    row = SAMPLER_FACTS.get(sampler)
    return row is not None and row.schedule != AUTOMATIC and sampler not in NEVER_ENDED


def sampler_text(recipe: Recipe) -> str:
    if schedule_is_apart(recipe):
        return recipe.sampler
    runs = label(recipe.sampler, recipe.schedule)
    bare = UNIFORM if bare_is_uniform(recipe.sampler) else label(recipe.sampler, AUTOMATIC)
    return recipe.sampler if runs == bare else f"{recipe.sampler} {runs}"


def schedule_text(recipe: Recipe) -> str | None:
    return label(recipe.sampler, recipe.schedule) if schedule_is_apart(recipe) else None


def find_sampler(name: str) -> str | None:
    """The name of a sampler that goes by this name, in any case of its letters."""
    return _NAMES.get(name.casefold())


def find_schedule(name: str) -> str | None:
    return _LABELS.get(name.casefold())


def split_name(name: str) -> tuple[str, str | None]:
    """A sampler's name of before 1.9 as sampler and schedule; names that nbsd does not know stay whole."""
    if found := find_sampler(name):
        return found, None
    fits = []
    for row in SCHEDULE_NAMES.values():
        for ending in endings(row):
            if name.casefold().endswith(ending.casefold()) and (found := find_sampler(name[:-len(ending)])):
                fits.append((len(ending), found, row.label))
    return max(fits)[1:] if fits else (name, None)


def sampler_and_schedule(name: str, schedule: str | None, version: str) -> tuple[str, str]:
    """What a text's `Sampler` and `Schedule type` (None: absent) mean."""
    sampler, ending = split_name(name)
    if ending or schedule is not None:
        return sampler, ending or find_schedule(schedule or "") or schedule or AUTOMATIC
    known = version_of(version)
    old = known is None or known < Version(SEPARATE_SCHEDULE)
    return sampler, UNIFORM if old and bare_is_uniform(sampler) else AUTOMATIC


_NAMES = {name.casefold(): row.name for row in SAMPLER_FACTS.values() for name in (*row.novelai, *row.aliases, row.name)}
_LABELS = {name.casefold(): row.label for row in SCHEDULE_NAMES.values() for name in (*row.aliases, row.name, row.label)}


# When the web UI writes a key


def says_ensd(recipe: Recipe) -> bool:
    """Always in 2022; today only for samplers that are marked so, though others use it too. Where their eta is 0 they do not, but after
    the hires fix nobody knows it any more.
    """
    uses = facts(recipe).uses_ensd and (recipe.hires is not None or recipe.eta != 0)
    return recipe.ensd != 0 and (not recipe.version or uses)


def has_schedule(recipe: Recipe) -> bool:
    """Whether a schedule runs that is computed, not the model's own; of the hires fix, in the first pass."""
    return not facts(recipe).timesteps and label(recipe.sampler, recipe.schedule) != AUTOMATIC


def runs_beta(recipe: Recipe) -> bool:
    return has_schedule(recipe) and label(recipe.sampler, recipe.schedule) == "Beta"


def says_rho(recipe: Recipe) -> bool:
    row = SCHEDULE_NAMES.get(label(recipe.sampler, recipe.schedule))
    return row is not None and has_schedule(recipe) and row.default_rho != -1 and recipe.rho not in (0, row.default_rho)


def hires_schedule_text(recipe: Recipe) -> str | None:
    if recipe.hires is None:
        return None
    unsaid = not recipe.hires.schedule and hires_inherits_default(recipe) and recipe.schedule != AUTOMATIC
    return _hires_label(recipe) if unsaid or says_hires_schedule(recipe) else recipe.hires.schedule


def hires_inherits_default(recipe: Recipe) -> bool:
    """Whether a second pass of another sampler, without a schedule of its own, would get a schedule that is the first one's default.

    The web UI reads such a schedule as "Automatic", which means another one for the second sampler.
    """
    other = recipe.hires is not None and recipe.hires.sampler not in ("", recipe.sampler)
    return other and facts(recipe).schedule != AUTOMATIC and label(recipe.sampler, recipe.schedule) == facts(recipe).schedule


def goes_on_with_ddim(recipe: Recipe) -> bool:
    """Whether the web UI of then made every second pass by DDIM: two samplers could not start from a picture until 1.6."""
    return is_before(recipe.version, "1.6.0") and recipe.sampler in ("PLMS", "UniPC")


def hires_sampler_text(recipe: Recipe) -> str | None:
    """Where nothing said means DDIM, "" is DDIM, and another sampler has to be said."""
    if recipe.hires is None:
        return None
    if not goes_on_with_ddim(recipe):
        return recipe.hires.sampler
    return "" if recipe.hires.sampler == "DDIM" else recipe.hires.sampler or recipe.sampler


def says_hires_schedule(recipe: Recipe) -> bool:
    """Where the second pass computes a schedule, and the first one another or none."""
    if recipe.hires is None:
        return False
    row = SAMPLER_FACTS.get(recipe.hires.sampler or recipe.sampler)
    second = _hires_label(recipe)
    first = label(recipe.sampler, recipe.schedule) if has_schedule(recipe) else None
    return row is not None and not row.timesteps and second not in (AUTOMATIC, first)


def _hires_label(recipe: Recipe) -> str:
    assert recipe.hires is not None
    return label(recipe.hires.sampler or recipe.sampler, recipe.hires.schedule or recipe.schedule)


def in_effect(recipe: Recipe, used: Collection[str]) -> Recipe:
    """The recipe without comments and settings of guidance, which changed nothing; `used` are the keys of those that did."""
    changes: dict[str, Any] = {"prompt": strip_comments(recipe.prompt), "negative_prompt": strip_comments(recipe.negative_prompt)}
    if hires := recipe.hires:
        changes["hires"] = replace(hires, prompt=strip_comments(hires.prompt), negative_prompt=strip_comments(hires.negative_prompt))
    if "NGMS" not in used:
        changes |= {"ngms": 0.0, "ngms_all_steps": False}
    if "Skip Early CFG" not in used:
        changes["skip_early_cfg"] = 0.0
    if not {"Pad conds", "Pad conds v0"}.intersection(used):
        changes["pad_conds"] = implied(recipe).get("pad_conds", "off")
    changes = {name: value for name, value in changes.items() if getattr(recipe, name) != value}
    return replace(recipe, **changes) if changes else recipe


def says_ngms(recipe: Recipe) -> bool:
    """Where it can leave a negative prompt out; of a picture that was made, `in_effect` knows whether it did. It looks at every second
    call only, unless told otherwise; the samplers that step in time steps compare it with the time step, which is hardly ever that low.
    """
    row = facts(recipe)
    if row.timesteps:
        times = _time_steps(recipe)
        return any(time < recipe.ngms for time in (times if recipe.ngms_all_steps else times[1::2]))
    steps = _steps(recipe)[1] + 1 if recipe.img2img else recipe.steps
    several_calls = steps > 1 or row.second_order or recipe.sampler == "DPM adaptive"
    return recipe.ngms > 0 and (several_calls or recipe.ngms_all_steps)


def _steps(recipe: Recipe) -> tuple[int, int]:
    """The steps of the schedule, and the number (from 0) of the one at which a picture is noised, as `sampling.img2img` has them."""
    if recipe.img2img is None:
        return recipe.steps, recipe.steps
    share = min(max(recipe.img2img.denoising_strength, 0.0), 0.999)
    if not recipe.img2img.exact_steps:
        return recipe.steps, int(share * recipe.steps)
    return int(recipe.steps / share) if share else 0, recipe.steps - 1


def _time_steps(recipe: Recipe) -> list[float]:
    """The time steps at which DDIM and its like ask the model, in their order (`sampling.timesteps`, `sampling.unipc`)."""
    steps, t = _steps(recipe)
    stride = max(1, 1000 // max(1, steps + recipe.discard_penultimate_sigma))
    plan = [min(1 + at, 999) for at in range(0, 1000, stride)]
    if recipe.img2img:
        plan = plan[:t]
    if recipe.sampler == "UniPC":
        # Evenly spaced, or denser at the low end: then any of them may be low
        return [999 * (1 - n / len(plan)) if recipe.unipc_skip_type == "time_uniform" else 0.0 for n in range(len(plan))]
    first, *rest = plan[::-1] or [0]
    if recipe.sampler == "PLMS" and rest:       # asks at the end of its first step, too
        return [first, rest[0], *rest[:-1]]
    return [first, *rest[:-1]] if rest else []


def says_emphasis(recipe: Recipe) -> bool:
    """Where a text that is encoded has a bracket."""
    return recipe.emphasis != "Original" and any("(" in text or "[" in text for text in _encoded(recipe))


def says_old_timelines(recipe: Recipe) -> bool:
    """Where they make a difference."""
    if not recipe.old_prompt_timelines or implied(recipe).get("old_prompt_timelines"):
        return False
    first, *second = passes(recipe)
    steps = _calls(first)
    asked: list[tuple[str, int | None]] = [(text, None) for text in _prompts(first)]
    asked += [(text, _calls(one)) for one in second for text in _prompts(one)]
    return any(prompt_schedule(text, steps, hires) != prompt_schedule(text, steps, hires, old_timelines=True) for text, hires in asked)


def _calls(recipe: Recipe) -> int:
    return recipe.steps * 2 if facts(recipe).second_order else recipe.steps


def _prompts(recipe: Recipe) -> tuple[str, str]:
    return split_networks(strip_comments(recipe.prompt))[0], strip_comments(recipe.negative_prompt)


def _encoded(recipe: Recipe) -> Iterator[str]:
    """The texts that the text encoder gets for the two prompts."""
    prompt, negative = _prompts(recipe)
    steps = _calls(recipe)
    for text in (*(part.text for part in and_parts(prompt)), negative):
        yield from (one for _, one in prompt_schedule(text, steps, old_timelines=recipe.old_prompt_timelines))
