"""Emphasis: which words of a prompt count more or less. Standard library only.

Two spellings, one result. The web UI's: `(x)` x1.1, `[x]` /1.1, `(x:1.3)` x1.3, `\\(` a literal bracket, `BREAK` a new chunk.
NovelAI's: `{x}` x1.05, `[x]` /1.05, `1.3::x::` x1.3; no escapes, round brackets are text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from nbsd.errors import RecipeError
from nbsd.prompt.schedule import is_edited

# The web UI's, modules/prompt_parser.py; NovelAI's, its documentation of the image generator.
ROUND, SQUARE = 1.1, 1 / 1.1
CURLY, NOVELAI_SQUARE = 1.05, 1 / 1.05

_WEBUI_TOKEN = re.compile(r"\\[()\[\]\\]?|[(\[\])]|:\s*([+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")
_NOVELAI_TOKEN = re.compile(r"([+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}))::|::|[{}\[\]]|[0-9.]+|[^{}\[\]:+.0-9-]+|[:+-]")
_BREAK = re.compile(r"\bBREAK\b")
_KEYWORD = re.compile(r"\b(?:AND|BREAK)\b")     # of the web UI; plain words for NovelAI
_SPECIAL = re.compile(r"[\\()\[\]]")
_LARGEST = 1e6      # a weight beyond it is written as this one
_WORK = 1_000_000   # multiplications that a prompt may cost before very deep nesting is computed by products of products
_DEEP = 32          # brackets around a word that always count one by one, innermost first


class Span(NamedTuple):
    """A stretch of text and its weight. `Span("BREAK", -1.0)` ends a chunk."""

    text: str
    weight: float


def parse_weights(text: str) -> list[Span]:
    """The web UI's emphasis, with its oddities: an open bracket counts up to the end, a stray closing one is text,
    round and square brackets may cross, empty brackets leave nothing behind.

    >>> parse_weights("a (red:1.5) cat")
    [Span(text='a ', weight=1.0), Span(text='red', weight=1.5), Span(text=' cat', weight=1.0)]
    """
    draft = _Draft()
    for token, number in _webui_tokens(text):
        if token[0] == "\\":
            draft.add(token[1:])
        elif token in "([":
            draft.open(token)
        elif number is not None and draft.close("(", number):
            continue
        elif not ((token == ")" and draft.close("(", ROUND)) or (token == "]" and draft.close("[", SQUARE))):
            draft.add_with_breaks(token)
    return draft.spans({"(": ROUND, "[": SQUARE})


def parse_novelai(text: str) -> list[Span]:
    """NovelAI's emphasis, with the exact products. An open bracket or number counts up to the end, a stray closing one is text.

    >>> parse_novelai("{{red}} cat, 1.5::tree::")
    [Span(text='red', weight=1.1025), Span(text=' cat, ', weight=1.0), Span(text='tree', weight=1.5)]
    """
    draft = _Draft()
    for found in _NOVELAI_TOKEN.finditer(text):
        token = found[0]
        if found[1] is not None:
            draft.open("::", float(found[1]))
        elif token in "{[":
            draft.open(token)
        elif not ((token == "}" and draft.close("{", CURLY))
                  or (token == "]" and draft.close("[", NOVELAI_SQUARE))
                  or (token == "::" and draft.close("::"))):
            draft.add(token)
    return draft.spans({"{": CURLY, "[": NOVELAI_SQUARE})


DIALECTS: dict[str, Callable[[str], list[Span]]] = {"webui": parse_weights, "novelai": parse_novelai}


def from_novelai(text: str) -> str:
    """A prompt in NovelAI's language in the web UI's. Weights get the digits that people use: four decimals above 1, three below.

    >>> from_novelai("{masterpiece}, [[lowres]], sword (weapon)")
    '(masterpiece:1.05), (lowres:0.907), sword \\\\(weapon\\\\)'
    """
    out = []
    for span in parse_novelai(text):
        # the tokenizer sees no difference between AND and "and"; the web UI's prompt language does
        words = _SPECIAL.sub(r"\\\g<0>", _KEYWORD.sub(lambda word: word[0].lower(), span.text))
        weight = _digits(span.weight)
        out.append(words if weight == "1" else f"({words}:{weight})")
    return "".join(out)


def to_novelai(text: str) -> str:
    """A prompt in the web UI's language in NovelAI's: braces where the weight is a power of 1.05, else `weight::text::`.

    NovelAI has no escapes: literal curly and square brackets become round ones. It has no BREAK either, which becomes a blank.
    Raises RecipeError for prompts that change while the picture is made, for which NovelAI has no words.

    >>> to_novelai("(masterpiece:1.05), (lowres:0.907), (cat:1.3)")
    '{masterpiece}, [[lowres]], 1.3::cat::'
    """
    if is_edited(text):
        raise RecipeError("NovelAI's prompt language has no [a:b:0.5], [a|b] or AND: take them out of the prompt before converting it")
    out = ""
    for span in parse_weights(text):
        if span.text == "BREAK" and span.weight < 0:
            out += " "
            continue
        words = span.text.translate({ord("{"): "(", ord("["): "(", ord("}"): ")", ord("]"): ")"}).replace("::", ": :")
        out += _novelai_weighted(words, span.weight, out)
    return out


def _novelai_weighted(words: str, weight: float, before: str) -> str:
    digits = _digits(weight)
    if digits == "1" or not words:
        return words
    if weight > 0 and (power := round(math.log(weight, CURLY))) and digits == _digits(CURLY**power):
        opening, closing = ("{", "}") if power > 0 else ("[", "]")
        return opening * abs(power) + words + closing * abs(power)
    # a digit right before a number or before "::" would be read as part of it
    gap = " " if before[-1:].isdigit() or (before[-1:] in ("+", "-", ".") and before) else ""
    return f"{gap}{digits}::{words}{' ' if words[-1] in '0123456789.' else ''}::"


def _digits(weight: float) -> str:
    """A weight as people write it: 1.1025, 0.952, 1.

    >>> _digits(1.05**2), _digits(1 / 1.05)
    ('1.1025', '0.952')
    """
    weight = 0.0 if math.isnan(weight) else max(-_LARGEST, min(_LARGEST, weight))   # infinity times nothing is not a number
    return f"{weight:.{4 if weight > 1 else 3}f}".rstrip("0").rstrip(".")


def _webui_tokens(text: str) -> Iterator[tuple[str, float | None]]:
    """Brackets, escapes, `:1.3)` with its number, and the text between them."""
    for found in _WEBUI_TOKEN.finditer(text):
        if found[1] is None:
            yield found[0], None
            continue
        try:
            yield found[0], float(found[1])
        except ValueError:      # ":1.2.3)": the web UI stops with an error here; for us it is text and a bracket
            yield found[0][:-1], None
            yield ")", None


class _Group(NamedTuple):
    """A pair of brackets: it multiplies the pieces from `start` up to `end`."""

    order: int          # of closing: brackets that close first multiply first
    start: int
    end: int
    factor: float


class _Draft:
    """Pieces of text and the brackets around them, while a prompt is read."""

    def __init__(self) -> None:
        self._pieces: list[Span] = []
        self._open: dict[str, list[tuple[int, float]]] = {"(": [], "[": [], "{": [], "::": []}
        self._groups: dict[str, list[_Group]] = {kind: [] for kind in self._open}
        self._closed = 0

    def add(self, text: str) -> None:
        self._pieces.append(Span(text, 1.0))

    def add_with_breaks(self, text: str) -> None:
        """`text` cut at the word BREAK, which swallows the blanks around it."""
        parts = _BREAK.split(text)
        for i, part in enumerate(parts):
            if i > 0:
                self._pieces.append(Span("BREAK", -1.0))
                part = part.lstrip()
            self.add(part.rstrip() if i < len(parts) - 1 else part)

    def open(self, kind: str, factor: float = 1.0) -> None:
        self._open[kind].append((len(self._pieces), factor))

    def close(self, kind: str, factor: float | None = None) -> bool:
        """Close the last open bracket of this kind; False where none is open."""
        if not self._open[kind]:
            return False
        start, given = self._open[kind].pop()
        if start < len(self._pieces):
            self._groups[kind].append(_Group(self._closed, start, len(self._pieces), given if factor is None else factor))
            self._closed += 1
        return True

    def spans(self, factors: dict[str, float]) -> list[Span]:
        """The weighted text; what is still open counts up to the end."""
        for kind in self._open:
            while self.close(kind, factors.get(kind)):
                pass
        return _merged(_multiplied(self._pieces, list(self._groups.values()))) or [Span("", 1.0)]


class _Stack:
    """The groups of one kind of bracket around a piece, outermost first, each with the product of all up to it."""

    def __init__(self, groups: list[_Group]) -> None:
        self.to_come = sorted(groups, key=lambda group: (-group.start, group.order))    # the next one is last
        self.around: list[_Group] = []
        self.products = [1.0]

    def move_to(self, piece: int) -> bool:
        """Leave and enter groups at this piece; whether there were any."""
        moved = False
        while self.around and self.around[-1].end <= piece:
            self.around.pop()
            self.products.pop()
            moved = True
        while self.to_come and self.to_come[-1].start == piece:
            self.around.append(self.to_come.pop())
            self.products.append(self.products[-1] * self.around[-1].factor)
            moved = True
        return moved


def _multiplied(pieces: list[Span], kinds: list[list[_Group]]) -> Iterator[Span]:
    """Each piece with its weight times the factors of the groups around it, those that close first first.

    That order decides the last digit, so it is part of the result. Brackets of one kind nest, so those around a piece are a stack;
    brackets of different kinds may cross.
    """
    most = max(_DEEP, _WORK // (len(pieces) + 1))
    stacks = [_Stack(groups) for groups in kinds if groups]
    factors: list[float] = []
    for i, piece in enumerate(pieces):
        moved = [stack.move_to(i) for stack in stacks]
        if any(moved):
            factors = list(_innermost_first(stacks, most))
        weight = piece.weight
        for factor in factors:
            weight *= factor
        yield Span(piece.text, weight)


def _innermost_first(stacks: list[_Stack], most: int) -> Iterator[float]:
    """The factors of all stacks in the order of closing; after `most` of them one product for the rest of each stack."""
    if len(stacks) == 1:
        around = stacks[0].around
        yield from (group.factor for group in around[: -most - 1 : -1])
        yield stacks[0].products[max(0, len(around) - most)]
        return
    left = [len(stack.around) for stack in stacks]
    for _ in range(most):
        tops = [(stacks[k].around[n - 1].order, k) for k, n in enumerate(left) if n]
        if not tops:
            return
        _, k = min(tops)
        left[k] -= 1
        yield stacks[k].around[left[k]].factor
    yield from (stack.products[n] for stack, n in zip(stacks, left, strict=True))


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Neighbours of equal weight as one span."""
    out: list[Span] = []
    texts: list[str] = []
    for span in spans:
        if texts and span.weight != out[-1].weight:
            out[-1] = Span("".join(texts), out[-1].weight)
            texts.clear()
        if not texts:
            out.append(span)
        texts.append(span.text)
    if texts:
        out[-1] = Span("".join(texts), out[-1].weight)
    return out
