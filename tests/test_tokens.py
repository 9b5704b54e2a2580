"""Text to tokens, tokens to chunks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.conditioning.tokens import (
    CHUNK,
    END,
    START,
    Fix,
    Vocabulary,
    chunk,
    chunk_old,
    token_count,
)
from nbsd.errors import RecipeError

VOCABULARY = Vocabulary()
CAT, COMMA, DOG = 2368, 267, 1929

# (text, tokens) as transformers 4.30.2's slow CLIPTokenizer with ftfy 6.3.1 gave them, loaded with CLIP's own settings
TABLE = json.loads((Path(__file__).parent / "data" / "clip_tokens.json").read_text(encoding="utf-8"))


def cats(count: int) -> str:
    return " ".join(["cat"] * count)


def text_of(one) -> list[int]:
    """A chunk's tokens without start, end and padding."""
    tokens = one.tokens[1:-1]
    while tokens and tokens[-1] == END:
        tokens.pop()
    return tokens


def test_the_vocabulary_is_clips():
    assert len(VOCABULARY.ids) == 49408
    assert sorted(VOCABULARY.ids.values()) == list(range(49408))
    assert VOCABULARY.ids["<|startoftext|>"] == START
    assert VOCABULARY.ids["<|endoftext|>"] == END
    assert VOCABULARY.encode("cat, dog") == [CAT, COMMA, DOG]


@pytest.mark.parametrize(("text", "tokens"), TABLE, ids=[ascii(text)[:40] for text, _ in TABLE])
def test_tokens_are_those_of_the_slow_tokenizer(text, tokens):
    assert VOCABULARY.encode(text) == tokens


def test_ten_thousand_words_are_no_trouble():
    words = [f"word{n} {'beautiful' if n % 3 else '美しい'}," for n in range(5000)]
    chunks = chunk([(" ".join(words), 1.0)], VOCABULARY)
    assert len(chunks) > 200


def test_one_endless_word_is_no_trouble():
    assert len(VOCABULARY.encode("ab1cd" * 20_000)) > 50_000
    assert len(VOCABULARY.encode("lorem" * 20_000)) > 10_000


def test_tokens_need_neither_torch_nor_transformers():
    code = "import sys, nbsd.conditioning.tokens as t; t.Vocabulary().encode('a'); print({'torch', 'transformers'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_no_text_is_one_empty_chunk():
    (one,) = chunk([("", 1.0)], VOCABULARY)
    assert one.tokens == [START, *[END] * 76]
    assert one.multipliers == [1.0] * 77
    assert token_count([one]) == 0
    assert chunk([], VOCABULARY) == [one]


@pytest.mark.parametrize(
    ("text", "backtrack", "lengths", "count"),
    [
        (cats(75), 20, [75], 75),
        (cats(76), 20, [75, 1], 76),
        (cats(70) + ", " + cats(10), 20, [71, 10], 85),         # what follows the comma moves
        (cats(70) + ", " + cats(10), 0, [75, 6], 81),           # no backtrack
        (cats(70) + ", " + cats(10), 4, [75, 6], 81),           # the comma lies 5 back
        (cats(70) + ", " + cats(10), 5, [71, 10], 85),
        (cats(55) + ", " + cats(30), 20, [56, 30], 105),        # exactly 20 back
        (cats(54) + ", " + cats(30), 20, [75, 10], 85),         # 21 back
        (cats(70) + ", " + cats(4) + ", cat", 20, [75, 2], 77),  # the next token is a comma: nothing moves
        (cats(74) + ", " + cats(2), 20, [75, 2], 77),           # the comma is the last one: nothing to move
        (cats(70) + ", " + cats(79), 20, [71, 75, 4], 154),     # a comma counts for its own chunk only
    ],
)
def test_a_full_chunk_breaks_at_its_last_comma(text, backtrack, lengths, count):
    chunks = chunk([(text, 1.0)], VOCABULARY, backtrack=backtrack)
    assert [len(text_of(one)) for one in chunks] == lengths
    assert token_count(chunks) == count


def test_weights_move_with_their_tokens():
    chunks = chunk([(cats(70) + ",", 1.0), (cats(4), 1.5), (cats(2), 0.5)], VOCABULARY)
    assert chunks[0].multipliers[72:] == [1.0] * 5
    assert chunks[1].multipliers[:8] == [1.0, 1.5, 1.5, 1.5, 1.5, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("spans", "lengths", "count"),
    [
        ([("cat", 1.0), ("BREAK", -1.0), ("dog", 1.0)], [1, 1], 76),
        ([("", 1.0), ("BREAK", -1.0), ("dog", 1.0)], [0, 1], 76),
        ([("cat", 1.0), ("BREAK", -1.0), ("", 1.0)], [1], 75),                      # nothing follows: no empty chunk
        ([("cat", 1.0), ("BREAK", -1.0), ("BREAK", -1.0), ("dog", 1.0)], [1, 0, 1], 151),
        ([("BREAK", 1.0)], [1], 1),                                                 # a word like any other
    ],
)
def test_break_closes_the_chunk(spans, lengths, count):
    chunks = chunk(spans, VOCABULARY)
    assert [len(text_of(one)) for one in chunks] == lengths
    assert token_count(chunks) == count


FIVE = {"tiny-embed": [None] * 3, "tiny": [None], "tiny-embed two": [None] * 5}


def test_the_longest_name_wins_and_case_does_not_matter():
    (one,) = chunk([("TINY-EMBED two, tiny-embed, tiny tinyx", 1.0)], VOCABULARY, embeddings=FIVE)
    assert one.fixes == [Fix(0, "tiny-embed two", 5), Fix(6, "tiny-embed", 3), Fix(10, "tiny", 1)]
    assert one.tokens[1:12] == [0] * 5 + [COMMA] + [0] * 3 + [COMMA, 0]
    assert token_count([one]) == 11 + len(VOCABULARY.encode("tinyx"))


def test_a_name_is_found_within_one_span_only():
    (one,) = chunk([("tiny-", 1.0), ("embed", 1.2)], VOCABULARY, embeddings={"tiny-embed": [None]})
    assert one.fixes == []


def test_an_embedding_that_does_not_fit_moves_whole():
    first, second = chunk([(cats(73) + " tiny-embed cat", 1.3)], VOCABULARY, embeddings=FIVE)
    assert first.fixes == []
    assert len(text_of(first)) == 73
    assert second.fixes == [Fix(0, "tiny-embed", 3)]
    assert second.tokens[1:5] == [0, 0, 0, CAT]
    assert second.multipliers[1:5] == [1.3] * 4
    assert token_count([first, second]) == 79


def test_an_embedding_that_just_fits_stays():
    (one,) = chunk([(cats(72) + " tiny-embed", 1.0)], VOCABULARY, embeddings=FIVE)
    assert one.fixes == [Fix(72, "tiny-embed", 3)]


def test_an_embedding_behind_the_comma_stays_in_its_chunk_when_its_tokens_move():
    # the web UI moves tokens and weights, but not where an embedding's vectors stand
    first, second = chunk([(cats(70) + ", tiny-embed cat cat", 1.0)], VOCABULARY, embeddings=FIVE)
    assert first.fixes == [Fix(71, "tiny-embed", 3)]
    assert text_of(first) == [CAT] * 70 + [COMMA]
    assert second.fixes == []
    assert second.tokens[1:6] == [0, 0, 0, CAT, CAT]


def test_an_embedding_larger_than_a_chunk_is_refused():
    with pytest.raises(RecipeError, match="'huge' has 76 vectors"):
        chunk([("a huge cat", 1.0)], VOCABULARY, embeddings={"huge": [None] * 76})
    chunks = chunk([("a huge cat", 1.0)], VOCABULARY, embeddings={"huge": [None] * 75})
    assert [one.fixes for one in chunks] == [[], [Fix(0, "huge", 75)], []]


def test_a_name_without_tokens_is_never_found():
    (one,) = chunk([("cat", 1.0)], VOCABULARY, embeddings={" ": [None]})
    assert text_of(one) == [CAT]


def test_old_emphasis_counts_brackets_in_tokens():
    one = chunk_old("cat ((cat)) [cat] cat (cat", VOCABULARY)
    assert text_of(one) == [CAT] * 5
    assert one.multipliers[1:6] == pytest.approx([1, 1.21, 1 / 1.1, 1, 1.1], abs=1e-15)
    plain = chunk_old("cat ((cat))", VOCABULARY, weigh=False)
    assert len(text_of(plain)) == 4
    assert set(plain.multipliers) == {1.0}


def test_old_emphasis_keeps_brackets_that_cancel():
    cancel = [index for token, index in VOCABULARY.ids.items() if token == "()</w>"]
    assert cancel
    assert text_of(chunk_old("cat () cat", VOCABULARY)) == [CAT, *cancel, CAT]


def test_old_emphasis_cuts_off_what_is_beyond_75():
    one = chunk_old(cats(74) + " tiny-embed (cat)", VOCABULARY, embeddings=FIVE)
    assert len(one.tokens) == len(one.multipliers) == 77
    assert one.tokens[74:] == [CAT, 0, END]
    assert one.fixes == [Fix(74, "tiny-embed", 3)]
    assert chunk_old(cats(76) + " tiny-embed", VOCABULARY, embeddings=FIVE).fixes == []


@given(st.text(max_size=200))
def test_any_text_has_tokens(text):
    assert all(0 <= token < 49408 for token in VOCABULARY.encode(text))


@given(
    st.lists(st.tuples(st.text(alphabet="cat, dog-tiny embed()!", max_size=120), st.floats(-2, 2)), max_size=6),
    st.integers(0, 74),
)
def test_chunks_hold_every_token_once_and_in_order(spans, backtrack):
    chunks = chunk(spans, VOCABULARY, backtrack=backtrack)
    assert all(len(one.tokens) == len(one.multipliers) == CHUNK + 2 for one in chunks)
    given = [(token, weight) for text, weight in spans for token in VOCABULARY.encode(text)]
    got = [(t, m) for one in chunks for t, m in zip(one.tokens, one.multipliers, strict=True) if t not in (START, END)]
    assert got == given
