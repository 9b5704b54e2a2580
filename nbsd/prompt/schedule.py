"""Prompts that change while the picture is made: `[from:to:when]`, `[a|b]`, `AND`. Standard library only.

The language (A1111 v1.10.1, modules/prompt_parser.py; recorded behaviour in the tests):

    [from:to:when]  [to:when]  [from::when]     one text up to step `when`, another after it
    [a|b|]                                      the next alternative at every step
    (x)  (x:1.2)  [x]                           emphasis; its brackets stay in the text

`when` with a point is a share of the steps, without one a step. A bracket that has no partner, or whose content is none of the
above, is an ordinary character. Two things switch the whole language off for a text, which is then taken as it is: a `|` outside
an alternation, and a backslash with nothing to escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Union

_TOKEN = re.compile(r"[^\\\[\]():|]+|\\.|[\[\]():|]")
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(r"\s*([+-]?(?:\d+\.?|\d*\.\d+))\s*")
_PARTNER = {")": "(", "]": "["}


class Part(NamedTuple):
    """One of the texts that `AND` joins."""

    text: str
    weight: float


@dataclass(frozen=True)
class _Edit:
    """`before` up to step `when`, `after` from the next one."""

    before: _Content
    after: _Content
    when: str


@dataclass(frozen=True)
class _Alternation:
    """One of `options` at each step, in turn."""

    options: list[_Content]


_Content = list[Union[str, _Edit, _Alternation, "_Content"]]


def prompt_schedule(text: str, steps: int, hires_steps: int | None = None, old_timelines: bool = False) -> list[tuple[int, str]]:
    """The texts that `text` stands for, each with the last step (from 1) at which it holds.

    With `hires_steps` the schedule is that of the second pass: shares of its steps go from 1.0 to 2.0, and whole numbers go on
    counting after the first pass's `steps`. `old_timelines` (before 1.6): numbers below 1 are shares, others are steps, and the
    second pass has the first one's schedule.

    >>> prompt_schedule("a [cat:dog:0.5]", 10)
    [(5, 'a cat'), (10, 'a dog')]
    """
    parsed = _parse(text)
    second = hires_steps is not None and not old_timelines
    length = hires_steps if second and hires_steps is not None else steps
    if parsed is None or not parsed.changes:
        return [(length, text)]

    def step_of(when: str) -> int:
        number = float(when)
        if old_timelines:
            number = number * length if number < 1 else number
        elif "." in when:
            number = (number - second) * length
        else:
            number = number - (steps if second else 0)
        return int(max(-1.0, min(length, number)))  # the bounds also hold off infinity, which no int can be

    ends = {length}
    for change in parsed.changes:
        ends.update(range(1, length + 1) if isinstance(change, _Alternation) else [step_of(change.when)])
    whens = {change.when: step_of(change.when) for change in parsed.changes if isinstance(change, _Edit)}
    return [(end, "".join(_pieces(parsed.content, end, whens))) for end in sorted(ends) if end >= 1 or end == length]


def is_edited(text: str) -> bool:
    """Whether the prompt changes while the picture is made, or is several prompts."""
    parsed = _parse(text)
    return bool(parsed and parsed.changes) or _AND.search(text) is not None


def and_parts(text: str) -> list[Part]:
    """The texts that `AND` joins, with the weight that `:number` at the end of each gives it (1.0 without).

    >>> and_parts("a cat :1.2 AND a dog")
    [Part(text='a cat', weight=1.2), Part(text=' a dog', weight=1.0)]
    """
    return [_weighted(part) for part in _AND.split(text)]


def _weighted(text: str) -> Part:
    before, colon, after = text.rpartition(":")
    if colon and (number := _PART_WEIGHT.fullmatch(after)):
        return Part(before.rstrip(), float(number[1]))
    return Part(text.rstrip(), 1.0)


# Reading the text: one pass, a stack of open brackets, no recursion. What a bracket holds is decided when it closes.


class _Open:
    """A bracket that has not closed yet: its segments and the `:` and `|` between them."""

    def __init__(self, bracket: str) -> None:
        self.bracket = bracket
        self.segments: list[_Content] = [[]]
        self.marks: list[str] = []
        self.plain = True       # no stray bracket or colon inside: only then can it mean something

    def add(self, piece: str | _Edit | _Alternation | _Content) -> None:
        self.segments[-1].append(piece)

    def as_written(self) -> _Content:
        """Bracket, segments and marks as text, without the closing bracket."""
        out: _Content = [self.bracket, self.segments[0]]
        for mark, segment in zip(self.marks, self.segments[1:], strict=True):
            out += [mark, segment]
        return out


class _Broken(Exception):
    """The text follows no rule of the language: it is taken as it is."""


class _Parsed(NamedTuple):
    content: _Content
    changes: list[_Edit | _Alternation]


def _parse(text: str) -> _Parsed | None:
    """What `text` holds and all that changes in it; None where the language does not apply to it."""
    stack = [_Open("")]
    changes: list[_Edit | _Alternation] = []
    end = 0
    try:
        for found in _TOKEN.finditer(text):
            if found.start() != end:
                return None     # a backslash with nothing to escape
            end = found.end()
            token = found[0]
            if token in ("(", "["):
                stack.append(_Open(token))
            elif token in (":", "|"):
                _mark(stack, token)
            elif token in _PARTNER:
                _close(stack, token, changes)
            else:
                stack[-1].add(token)
        _give_up(stack)
    except _Broken:
        return None
    return _Parsed(stack[0].segments[0], changes) if end == len(text) else None


def _mark(stack: list[_Open], token: str) -> None:
    if len(stack) > 1:
        stack[-1].marks.append(token)
        stack[-1].segments.append([])
    elif token == "|":
        raise _Broken
    else:
        stack[0].add(token)


def _close(stack: list[_Open], token: str, changes: list[_Edit | _Alternation]) -> None:
    if stack[-1].bracket != _PARTNER[token]:
        _give_up(stack)
        stack[0].add(token)
        return
    group = stack.pop()
    change = _change(group) if group.plain and token == "]" else None
    if change is not None:
        changes.append(change)
        stack[-1].add(change)
        return
    if "|" in group.marks:
        raise _Broken
    if not group.plain or len(group.marks) > (1 if token == ")" else 0):
        stack[-1].plain = False
    stack[-1].add([*group.as_written(), token])


def _change(group: _Open) -> _Edit | _Alternation | None:
    """The edit or alternation that a closed `[...]` is, if it is one."""
    if not group.marks:
        return None
    if set(group.marks) == {"|"}:
        return _Alternation(group.segments)
    if set(group.marks) == {":"} and len(group.marks) <= 2:
        last = group.segments[-1]
        number = _NUMBER.fullmatch("".join(str(piece) for piece in last)) if all(isinstance(p, str) for p in last) else None
        if number:
            return _Edit(group.segments[0] if len(group.marks) == 2 else [], group.segments[-2], number[1])
    return None


def _give_up(stack: list[_Open]) -> None:
    """Whatever is still open is ordinary text."""
    for group in stack[1:]:
        if "|" in group.marks:
            raise _Broken
        stack[0].add(group.as_written())
    del stack[1:]


def _pieces(content: _Content, step: int, whens: dict[str, int]) -> Iterator[str]:
    """The text of `content` at `step`, in pieces."""
    todo = [iter(content)]
    while todo:
        for piece in todo[-1]:
            if isinstance(piece, str):
                yield piece
                continue
            if isinstance(piece, _Edit):
                piece = piece.before if step <= whens[piece.when] else piece.after
            elif isinstance(piece, _Alternation):
                piece = piece.options[(step - 1) % len(piece.options)]
            todo.append(iter(piece))
            break
        else:
            todo.pop()
