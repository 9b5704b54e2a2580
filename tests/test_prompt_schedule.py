"""prompt/schedule.py: prompts that change, exactly as recorded."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.prompt import schedule
from nbsd.prompt.schedule import Part, and_parts, is_edited, prompt_schedule

LONG = 100_000     # characters; what cost more than linear time would hang here. Its speed is measured by bench/parsers.py
CASES = json.loads((Path(__file__).parent / "data/fidelity/a_prompts.json").read_text(encoding="utf-8"))["cases"]
PIECES = ["[", "]", "(", ")", ":", "|", "a", "b ", " ", "0.5", "3", "-1", "1e3", "\\", "\\[", "AND", "\n"]
PROMPT = st.lists(st.sampled_from(PIECES)).map("".join)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_recorded_schedules(case):
    for one in case["schedules"]:
        got = prompt_schedule(case["prompt"], one["base_steps"], one["hires_steps"], one["use_old_scheduling"])
        assert [list(item) for item in got] == one["result"], one


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_recorded_and_parts(case):
    parts = and_parts(case["prompt"])
    flat = list(dict.fromkeys(part.text for part in parts))
    assert flat == case["multicond"]["flat_prompts"]
    assert [[[flat.index(part.text), part.weight] for part in parts]] == case["multicond"]["index_and_weight"]


# What the web UI's own grammar answers, run with lark 1.1.2 under 24 hash seeds; all of them agreed.
@pytest.mark.parametrize(("text", "at_first", "at_last"), [
    ("([a:b:0.5]", "(a", "(b"),
    ("[a:b:0.5] c)", "a c)", "b c)"),
    ("[a:b:0.5] x: y", "a x: y", "b x: y"),
    ("[a:b:0.5] [c", "a [c", "b [c"),
    ("x: [a:b:0.5], y: c", "x: a, y: c", "x: b, y: c"),
    ("a ) [b:c:0.5] d", "a ) b d", "a ) c d"),
    ("[a:b] [c:d:0.5]", "[a:b] c", "[a:b] d"),
    ("[a:b:0.5:0.7] [c:d:0.5]", "[a:b:0.5:0.7] c", "[a:b:0.5:0.7] d"),
    ("[[a:b:0.5]", "[a", "[b"),
    ("((([a:b:0.5] [c:d:0.5]", "(((a c", "(((b d"),
    ("[a:b: 0.5 ]", "a", "b"),
    ("[(a:[b:c:0.5]):d:8]", "(a:b)", "d"),
    ("[x [a:b]:c:8]", "[x [a:b]:c:8]", "[x [a:b]:c:8]"),            # what holds no sense gives none to what is around it
    ("[(a:b:c):d:8]", "[(a:b:c):d:8]", "[(a:b:c):d:8]"),
    ("[(a|b):d:8] [e:f:8]", "[(a|b):d:8] [e:f:8]", "[(a|b):d:8] [e:f:8]"),
    ("[a:b:0.5] c|d", "[a:b:0.5] c|d", "[a:b:0.5] c|d"),            # a stray | switches the language off
    ("[a|b:c:0.5]", "[a|b:c:0.5]", "[a|b:c:0.5]"),
    ("[a:b:0.5] \\", "[a:b:0.5] \\", "[a:b:0.5] \\"),               # so does a backslash with nothing to escape
    ("[a:b:5 steps]", "[a:b:5 steps]", "[a:b:5 steps]"),
])
def test_odd_brackets(text, at_first, at_last):
    schedule = prompt_schedule(text, 10)
    assert (schedule[0][1], schedule[-1][1]) == (at_first, at_last)


def test_a_number_beyond_all_steps_is_no_error():
    assert prompt_schedule("[a:b:1e999]", 10) == [(10, "a")]
    assert prompt_schedule("[a:b:-1e999]", 10) == [(10, "b")]


@given(PROMPT, st.integers(1, 30), st.none() | st.integers(1, 30), st.booleans())
def test_any_text_has_a_schedule(text, steps, hires_steps, old):
    schedule = prompt_schedule(text, steps, hires_steps, old)
    ends = [end for end, _ in schedule]
    assert ends == sorted(set(ends)) and ends[-1] == (steps if hires_steps is None or old else hires_steps)
    if not is_edited(text):
        assert schedule == [(ends[-1], text)]


@given(PROMPT)
def test_and_parts_join_to_the_text(text):
    assert all(isinstance(part, Part) for part in and_parts(text))
    assert len(and_parts(text)) >= 1


@pytest.mark.parametrize("text", [
    "[" * 10_000 + "a" + "]" * 10_000, "(" * 10_000, "[a:" * 10_000 + "b:0.5]" * 10_000, "[a|" * 10_000 + "]" * 10_000,
])
def test_deep_nesting(text):
    assert prompt_schedule(text, 4)


@pytest.mark.parametrize("piece", ["[", "(a ", "]", "a, ", ":", " ", "[a:b:3] ", "[a|b]", "[a:", "\\(", ": 1", " AND ", "x :1.5 AND "])
def test_a_long_text_is_no_trouble(piece):
    text = (piece * LONG)[:LONG]
    assert prompt_schedule(text, 20)[-1][0] == 20
    assert and_parts(text)


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(schedule)
    assert result.attempted and not result.failed
