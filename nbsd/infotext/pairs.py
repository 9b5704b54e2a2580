"""Pairs of an infotext that stand for no field of a recipe, put in and taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nbsd.infotext.rules import Leftovers, Written
from nbsd.infotext.text import quote
from nbsd.recipe import Recipe


def with_pairs(recipe: Recipe, said: Mapping[str, str]) -> Recipe:
    """The recipe with these pairs among those that its infotext says besides the fields; an empty value takes the pair out."""
    kept = recipe.unknown
    raws = {key: str(quote(value)) for key, value in said.items() if value}
    if not raws and not any(key in said for key, _ in kept):
        return recipe
    pairs = _placed(kept, said, raws)
    if not isinstance(kept, Leftovers):
        return replace(recipe, unknown=tuple(pairs))
    before = [pair for pair in kept.written if pair.key != "Version"]
    written = [Written(*pair) for pair in [*_placed(before, said, raws), *(pair for pair in kept.written if pair.key == "Version")]]
    again = Leftovers(pairs, kept.head, written=written)
    again.prompts, again.meant = kept.prompts, kept.meant
    return replace(recipe, unknown=again)


def _placed(pairs: Sequence[tuple[str, str]], said: Mapping[str, str], raws: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs with those that are said now in their old places, new ones behind, and without those that no longer hold."""
    there = [(key, raws.get(key, raw)) for key, raw in pairs if key in raws or key not in said]
    return there + [(key, raw) for key, raw in raws.items() if key not in {known for known, _ in there}]
