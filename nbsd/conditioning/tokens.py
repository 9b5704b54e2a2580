"""Text to CLIP tokens, and tokens to chunks of 75, as the web UI makes them. Needs no torch."""

from __future__ import annotations

import gzip
import html
from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import ftfy
import regex  # type: ignore[import-untyped]
from tokenizers.models import BPE

from nbsd.errors import RecipeError

CHUNK = 75              # tokens in a chunk, without start and end
START, END = 49406, 49407
BACKTRACK = 20          # the web UI's comma_padding_backtrack

NONE = 0                # what OpenCLIP fills a text up with, behind its end

_MARKERS = {"<|startoftext|>": START, "<|endoftext|>": END}
_OPEN_MARKERS = {"<start_of_text>": START, "<end_of_text>": END}       # mlfoundations/open_clip, tokenizer.py
_MARKER = regex.compile(r"(<\|startoftext\|>|<\|endoftext\|>)")
# CLIP's words (openai/CLIP, clip/simple_tokenizer.py): English endings, runs of letters, single digits, runs of the rest.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORD = regex.compile(rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}", regex.IGNORECASE)
_OPEN_WORD = regex.compile(rf"<start_of_text>|<end_of_text>|{_WORDS}", regex.IGNORECASE)
# One bracket of the web UI's old emphasis: what it multiplies the weight by, and what it divides it by.
_OLD_BRACKETS = {"(": (1.1, 1.0), ")": (1.0, 1.1), "[": (1.0, 1.1), "]": (1.1, 1.0)}


class Fix(NamedTuple):
    """Where an embedding's vectors stand in a chunk."""

    offset: int         # place of the first one among the 75 (0 is the token after the start token)
    embedding: str      # its name
    vectors: int        # how many


class Chunk(NamedTuple):
    """What the text encoder reads at once."""

    tokens: list[int]           # [77]: start, 75 tokens, end
    multipliers: list[float]    # [77]: the weight of each
    fixes: list[Fix]
    length: int                 # of the 75, as the web UI counts: all of a chunk that was closed, else those that are text


class Vocabulary:
    """CLIP's byte-pair vocabulary of 49,408 tokens, from a file in this package. Cheap to make a second time."""

    def __init__(self) -> None:
        self.ids, self._pairs = _vocabulary()
        self.comma = self.ids[",</w>"]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text of any length, without start and end.

        They are those of the web UI, which uses transformers' slow CLIPTokenizer (4.30.2) with ftfy: mojibake, full-width
        letters and punctuation, curly quotes and HTML entities are mended first, and markers written out count as such.
        """
        found: list[int] = []
        for part in _MARKER.split(text):
            found += [_MARKERS[part]] if part in _MARKERS else self._plain(part)
        return found

    def _plain(self, text: str) -> list[int]:
        found: list[int] = []
        for word in _WORD.findall(ftfy.fix_text(text).strip().lower()):
            if word in _MARKERS:        # written in capitals, or made by the mending
                found.append(_MARKERS[word])
            else:
                found += _merge(word)
        return found

    @property
    def bracket_factors(self) -> dict[int, float]:
        """Tokens with brackets, and by how much each changes the weight under the old emphasis."""
        return _bracket_factors()


class OpenVocabulary(Vocabulary):
    """The same vocabulary as OpenCLIP uses it, for SD 2 and SDXL's second text encoder: other markers, HTML unescaped twice."""

    def encode(self, text: str) -> list[int]:
        found: list[int] = []
        for word in _OPEN_WORD.findall(html.unescape(html.unescape(ftfy.fix_text(text))).lower()):
            found += [_OPEN_MARKERS[word]] if word in _OPEN_MARKERS else _merge(word)
        return found


@cache
def _vocabulary() -> tuple[dict[str, int], BPE]:
    packed = (files("nbsd") / "models" / "data" / "clip_merges.txt.gz").read_bytes()
    merges = [(first, second) for first, second in map(str.split, gzip.decompress(packed).decode().splitlines())]
    letters = list(_byte_letters().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges), *_MARKERS]
    ids = {token: index for index, token in enumerate(tokens)}
    return ids, BPE(ids, merges, end_of_word_suffix="</w>")


@cache
def _byte_letters() -> dict[int, str]:
    """A visible letter for each byte, in the vocabulary's order (GPT-2's table): printable Latin-1 stands for itself."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


@lru_cache(maxsize=16384)
def _merge(word: str) -> tuple[int, ...]:
    letters = _byte_letters()
    return tuple(token.id for token in _vocabulary()[1].tokenize("".join(letters[byte] for byte in word.encode())))


@cache
def _bracket_factors() -> dict[int, float]:
    factors = {}
    for token, index in _vocabulary()[0].items():
        factor = 1.0
        for letter in token:
            up, down = _OLD_BRACKETS.get(letter, (1.0, 1.0))
            factor = factor * up / down     # divided, not multiplied by the inverse: the weights are equal to the last bit
        if factor != 1.0:
            factors[index] = factor
    return factors


@lru_cache(maxsize=4)
def _names_by_first_token(names: tuple[str, ...]) -> dict[int, list[tuple[list[int], str]]]:
    """Embeddings' names as tokens, under the first token of each; the longest first."""
    vocabulary = Vocabulary()
    table: dict[int, list[tuple[list[int], str]]] = {}
    for name in names:
        if tokens := vocabulary.encode(name):
            table.setdefault(tokens[0], []).append((tokens, name))
    for rows in table.values():
        rows.sort(key=lambda row: -len(row[0]))
    return table


class _Finder:
    """Tells which embedding's name begins at a place among the tokens."""

    def __init__(self, embeddings: Mapping[str, Sized] | None) -> None:
        self._embeddings = embeddings or {}
        self._table = _names_by_first_token(tuple(self._embeddings))

    def at(self, tokens: Sequence[int], place: int) -> tuple[str, int, int] | None:
        """Name, number of vectors and number of tokens of the longest name here; None where there is none."""
        for ids, name in self._table.get(tokens[place], ()):
            if tokens[place : place + len(ids)] == ids and (vectors := self._embeddings.get(name)) is not None:
                return name, len(vectors), len(ids)
        return None


class _Writer:
    """Fills one chunk after another."""

    def __init__(self) -> None:
        self.closed: list[Chunk] = []
        self._open([], [])

    def _open(self, tokens: list[int], weights: list[float]) -> None:
        self.tokens, self.weights = tokens, weights
        self.fixes: list[Fix] = []
        self.comma = -1         # place of the last comma; -1: none yet

    def close(self, keep: int = CHUNK, *, last: bool = False) -> None:
        """Pad and put away the open chunk; what lies behind its first `keep` tokens opens the next one."""
        self.closed.append(_chunk(self.tokens[:keep], self.weights[:keep], self.fixes, len(self.tokens) if last else CHUNK))
        # Embeddings stay with the closed chunk even where their tokens move on: the web UI moves tokens and weights only.
        self._open(self.tokens[keep:], self.weights[keep:])

    def add(self, token: int, weight: float) -> None:
        self.tokens.append(token)
        self.weights.append(weight)

    def add_embedding(self, name: str, vectors: int, weight: float) -> None:
        if vectors > CHUNK:
            raise RecipeError(f"the embedding {name!r} has {vectors} vectors, but a chunk holds {CHUNK}: take its name out of the prompt")
        if len(self.tokens) + vectors > CHUNK:
            self.close()
        self.fixes.append(Fix(len(self.tokens), name, vectors))
        self.tokens += [0] * vectors
        self.weights += [weight] * vectors

    def make_room(self, token: int, comma: int, backtrack: int) -> None:
        """Before `token` is written: note a comma; close a full chunk, at its last comma where that is near enough."""
        full = len(self.tokens) == CHUNK
        if token == comma:
            self.comma = len(self.tokens)
        elif backtrack and full and self.comma != -1 and len(self.tokens) - self.comma <= backtrack:
            self.close(keep=self.comma + 1)
        if len(self.tokens) == CHUNK:
            self.close()


def chunk(
    spans: Iterable[tuple[str, float]], vocabulary: Vocabulary, *, backtrack: int = BACKTRACK,
    embeddings: Mapping[str, Sized] | None = None,
) -> list[Chunk]:
    """The chunks of a weighted text, at least one.

    `spans`: texts with their weights; ("BREAK", -1) closes the chunk. `backtrack`: 0 to 74 tokens; text behind the last comma of
    a full chunk moves to the next one if that comma is no further back. `embeddings`: name -> vectors; only their number is used.
    """
    finder, writer = _Finder(embeddings), _Writer()
    for text, weight in spans:
        if text == "BREAK" and weight == -1:
            writer.close()
            continue
        tokens, place = vocabulary.encode(text), 0
        while place < len(tokens):
            writer.make_room(tokens[place], vocabulary.comma, backtrack)
            if found := finder.at(tokens, place):
                name, vectors, length = found
                writer.add_embedding(name, vectors, weight)
                place += length
            else:
                writer.add(tokens[place], weight)
                place += 1
    if writer.tokens or not writer.closed:
        writer.close(last=True)
    return writer.closed


def chunk_old(text: str, vocabulary: Vocabulary, *, weigh: bool = True, embeddings: Mapping[str, Sized] | None = None) -> Chunk:
    """The one chunk of a text under the web UI's old emphasis (its option "use_old_emphasis_implementation").

    Tokens with brackets change the weight of all that follows and are left out; there are no escapes and no numbers; what is
    beyond 75 tokens is cut off. `weigh` False leaves the brackets in the text.
    """
    finder = _Finder(embeddings)
    factors = vocabulary.bracket_factors if weigh else {}
    tokens, weights, fixes = list[int](), list[float](), list[Fix]()
    given, place, weight = vocabulary.encode(text), 0, 1.0
    while place < len(given):
        factor = factors.get(given[place])
        if factor is not None:
            weight *= factor
            place += 1
            continue
        name, vectors, length = finder.at(given, place) or (None, 1, 1)
        if name is not None:
            fixes.append(Fix(len(tokens), name, vectors))
        tokens += [given[place] if name is None else 0] * vectors
        weights += [weight] * vectors
        place += length
    # A name at place 75 puts its first vector over the end token, as in the web UI.
    return _chunk(tokens[:CHUNK], weights[:CHUNK], [fix for fix in fixes if fix.offset <= CHUNK], min(len(tokens), CHUNK))


def token_count(chunks: Sequence[Chunk]) -> int:
    """The number that the web UI shows at the prompt box."""
    return sum(one.length for one in chunks)


def _chunk(tokens: list[int], weights: list[float], fixes: list[Fix], length: int) -> Chunk:
    padding = CHUNK - len(tokens)
    return Chunk([START, *tokens, *[END] * padding, END], [1.0, *weights, *[1.0] * padding, 1.0], fixes, length)
