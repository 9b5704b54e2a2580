"""prompt/weights.py: emphasis in the web UI's spelling, exactly as recorded, and in NovelAI's."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.errors import RecipeError
from nbsd.prompt import weights
from nbsd.prompt.weights import DIALECTS, Span, from_novelai, parse_novelai, parse_weights, to_novelai

LONG = 100_000     # characters; what cost more than linear time would hang here. Its speed is measured by bench/parsers.py
CASES = json.loads((Path(__file__).parent / "data/fidelity/a_prompts.json").read_text(encoding="utf-8"))["cases"]
WEBUI = st.lists(st.sampled_from([
    "(", ")", "[", "]", ":1.3)", ":-1)", ": .5 )", ":1.2.3)", ":", "\\", "\\(", " BREAK ", "a", "b ", "é", "\n",
]))
NOVELAI = st.lists(st.sampled_from(["{", "}", "[", "]", "1.5::", "::", "-.5::", "a", "b ", "2023", ".", "-", "(", ")", "\\", ":", "\n"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_recorded(case):
    assert [list(span) for span in parse_weights(case["prompt"])] == case["parse_prompt_attention"]


@pytest.mark.parametrize(("text", "spans"), [
    ("(a [b) c]", [("a ", 1.1), ("b", 1.1 * (1 / 1.1)), (" c", 1 / 1.1)]),             # brackets of two kinds may cross
    ("(a:1.2.3) b", [("a:1.2.3", 1.1), (" b", 1.0)]),                                   # no number: the web UI stops with an error
    ("(b BREAK c:0)", [("bBREAKc", 0.0)]),                                              # weights are merged even across BREAK
    ("xBREAK BREAKx", [("xBREAK BREAKx", 1.0)]),                                        # BREAK is a word
    ("a\n BREAK \nb", [("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]),
    ("(a:0.909090909090909090)b]", [("a", 0.9090909090909091), ("b]", 1.0)]),           # round, though it weighs like a square one
])
def test_oddities(text, spans):
    assert parse_weights(text) == [Span(*span) for span in spans]


@given(WEBUI)
def test_the_text_survives(pieces):
    """Only brackets, their numbers, escapes and blanks around BREAK are taken away."""
    text = "".join(pieces)
    got = "".join(span.text for span in parse_weights(text))
    assert [c for c in got if c in "abé"] == [c for c in text if c in "abé"]
    assert all(math.isfinite(span.weight) for span in parse_weights(text))


@given(st.text())
def test_any_text_is_read(text):
    for parse in DIALECTS.values():
        assert parse(text)
    assert parse_novelai(from_novelai(text)) is not None


TREES = st.recursive(
    st.sampled_from(["a", "b"]),
    lambda inner: st.tuples(st.sampled_from(["(", "[", 0.3, 1.07, -1.9]), st.lists(inner, min_size=1, max_size=4)), max_leaves=30)


def spelled(tree):
    if isinstance(tree, str):
        return tree
    kind, inner = tree
    text = "".join(map(spelled, inner))
    return f"[{text}]" if kind == "[" else f"({text})" if kind == "(" else f"({text}:{kind})"


def weighted(tree):
    """Letters and their weights, each multiplied from the inside out."""
    if isinstance(tree, str):
        return [(tree, 1.0)]
    kind, inner = tree
    factor = {"(": 1.1, "[": 1 / 1.1}.get(kind, kind)
    return [(letter, weight * factor) for child in inner for letter, weight in weighted(child)]


@given(st.lists(TREES))
def test_nested_brackets(trees):
    spans = parse_weights("".join(map(spelled, trees)))
    assert [(letter, span.weight) for span in spans for letter in span.text] == [pair for tree in trees for pair in weighted(tree)]


def test_deep_nesting_multiplies_innermost_first():
    weight = 1.0
    for factor in (1.3, *[1.1] * 200, *[1 / 1.1] * 100):
        weight *= factor
    assert parse_weights("[" * 100 + "(" * 200 + "(a:1.3)" + ")" * 200 + "]" * 100) == [Span("a", weight)]


@pytest.mark.parametrize("piece", [
    "(", "(a ", "[", "([a ", ") ", "a, ", ": 1", "\\", " ", "a BREAK ", "(a:1.1), ", "{", "{a ", "1.5::a ", "1", ".",
])
@pytest.mark.parametrize("parse", DIALECTS.values(), ids=DIALECTS)
def test_a_long_text_is_no_trouble(parse, piece):
    assert parse((piece * LONG)[:LONG])


@pytest.mark.parametrize(("novelai", "webui"), [
    ("{masterpiece}", "(masterpiece:1.05)"),
    ("{{masterpiece}}", "(masterpiece:1.1025)"),
    ("[masterpiece]", "(masterpiece:0.952)"),
    ("[[masterpiece]]", "(masterpiece:0.907)"),
    ("1.5::rain, fog::, sun", "(rain, fog:1.5), sun"),
    ("2.::rain::, -.5::sun", "(rain:2), (sun:-0.5)"),
    ("1.2.3::rain", "1.2.3::rain"),
    ("{a [b] c}", "(a :1.05)b( c:1.05)"),
    ("sword (weapon)", r"sword \(weapon\)"),
    ("plain, text: 1.5", "plain, text: 1.5"),
    ("open {to the end", "open (to the end:1.05)"),
    ("stray} closing]", r"stray} closing\]"),
])
def test_from_novelai(novelai, webui):
    assert from_novelai(novelai) == webui
    assert [(span.text, pytest.approx(span.weight, abs=6e-4)) for span in parse_novelai(novelai)] == list(map(tuple, parse_weights(webui)))


@pytest.mark.parametrize(("webui", "novelai"), [
    ("(masterpiece:1.05)", "{masterpiece}"),
    ("(masterpiece:0.907)", "[[masterpiece]]"),
    ("((cat)), [dog]", "1.21::cat::, 0.909::dog::"),
    ("(year 2023:1.3)", "1.3::year 2023 ::"),                   # "2023::" would begin a weight of its own
    ("take 5(cat:1.3)", "take 5 1.3::cat::"),
    (r"sword \(weapon\)", "sword (weapon)"),
    ("{curly}", "(curly)"),                                     # NovelAI has no escapes
    ("a BREAK b", "a b"),
    ("(a:-0.5)", "-0.5::a::"),
])
def test_to_novelai(webui, novelai):
    assert to_novelai(webui) == novelai


@pytest.mark.parametrize("text", ["[a:b:0.5]", "[a|b]", "a AND b"])
def test_what_novelai_has_no_words_for(text):
    with pytest.raises(RecipeError, match=r"no \[a:b:0\.5\]"):
        to_novelai(text)


def test_products_are_exact():
    assert parse_novelai("{{{{a}}}}") == [Span("a", 1.05 * 1.05 * 1.05 * 1.05)]
    assert parse_novelai("[{1.5::a::}]") == [Span("a", 1.5 * 1.05 * (1 / 1.05))]


@given(NOVELAI)
def test_converting_keeps_words_and_weights(pieces):
    """Up to the digits that are written: four above 1, three below."""
    spans = parse_novelai("".join(pieces))
    if all(abs(span.weight) < 1000 for span in spans):
        want = [(character, round(span.weight, 4 if span.weight > 1 else 3)) for span in spans for character in span.text]
        got = [(character, span.weight) for span in parse_weights(from_novelai("".join(pieces))) for character in span.text]
        assert got == want


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(weights)
    assert result.attempted and not result.failed
