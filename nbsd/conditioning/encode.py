"""Texts to the vectors that the UNet reads (the web UI's "cond")."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nbsd.conditioning.tokens import BACKTRACK, Chunk, Fix, Vocabulary, chunk, chunk_old
from nbsd.errors import RecipeError, WrongFamilyError
from nbsd.prompt.weights import DIALECTS, Span

AT_ONCE = 16    # chunks that the text encoder reads in one call; a longer prompt takes more calls, not more memory

Embeddings = Mapping[str, Tensor]   # name -> [n, width]


class Emphasis(NamedTuple):
    """One of the web UI's emphasis modes."""

    parsed: bool                                    # whether brackets mean anything
    apply: Callable[[Tensor, Tensor], Tensor]       # (vectors [B, 77, width], weights [B, 77, 1]) -> vectors


def keep(vectors: Tensor, weights: Tensor) -> Tensor:
    """No weights."""
    return vectors


def multiply(vectors: Tensor, weights: Tensor) -> Tensor:
    """Each token's vector times its weight."""
    return vectors * weights


def multiply_keeping_mean(vectors: Tensor, weights: Tensor) -> Tensor:
    """The same, and then the whole tensor scaled so that its mean is as before."""
    weighted = vectors * weights
    return weighted * (vectors.mean() / weighted.mean())


EMPHASIS: dict[str, Emphasis] = {
    "Original": Emphasis(True, multiply_keeping_mean),
    "No norm": Emphasis(True, multiply),
    "Ignore": Emphasis(True, keep),
    "None": Emphasis(False, keep),
}


def chunk_text(
    text: str, vocabulary: Vocabulary, *, emphasis: str = "Original", backtrack: int = BACKTRACK, old_emphasis: bool = False,
    dialect: str = "webui", embeddings: Embeddings | None = None,
) -> list[Chunk]:
    """The chunks of a text with its weights parsed. The arguments are those of `encode_texts`, and so are the errors."""
    parsed = _row(EMPHASIS, emphasis, "emphasis mode").parsed
    parse = _row(DIALECTS, dialect, "prompt dialect")
    if old_emphasis:
        if dialect != "webui":
            raise RecipeError(f"the old emphasis knows the web UI's brackets only, not those of {dialect!r}: switch one of them off")
        return [chunk_old(text, vocabulary, weigh=parsed, embeddings=embeddings)]
    spans = parse(text) if parsed else [Span(text, 1.0)]
    return chunk(spans, vocabulary, backtrack=backtrack, embeddings=embeddings)


@torch.no_grad()
def encode_texts(
    texts: Sequence[str], text_encoder: nn.Module, vocabulary: Vocabulary, *, clip_skip: int = 1, emphasis: str = "Original",
    backtrack: int = BACKTRACK, old_emphasis: bool = False, dialect: str = "webui", embeddings: Embeddings | None = None,
) -> Tensor:
    """The texts' vectors [len(texts), 77 n, width], float32 on the text encoder's device; n: chunks of the longest text.

    Texts belong together: under "Original" the mean is taken over one chunk of all of them, and shorter ones are filled up
    with empty chunks. The web UI gives all texts of one prompt's schedule at once.

    `text_encoder`: transformers' CLIPTextModel. `clip_skip`: 1 = last layer; n takes the n-th from the end; both go through the
    final layer norm. `emphasis`: a name in EMPHASIS. `backtrack`: 0 to 74 tokens. `dialect`: a name in prompt.weights.DIALECTS.
    `embeddings`: textual-inversion vectors by name. Prompts may be of any length; time and result grow with it.

    Raises RecipeError for an unknown name or layer, WrongFamilyError for an embedding of another width.
    """
    how: dict[str, Any] = {
        "emphasis": emphasis, "backtrack": backtrack, "old_emphasis": old_emphasis, "dialect": dialect, "embeddings": embeddings,
    }
    rows = [chunk_text(text, vocabulary, **how) for text in texts]
    empty = chunk([], vocabulary)[0]
    columns = [[row[i] if i < len(row) else empty for row in rows] for i in range(max(map(len, rows), default=0))]
    vectors = _vectors([one for column in columns for one in column], text_encoder, clip_skip, embeddings or {})
    apply = EMPHASIS[emphasis].apply
    weighted = []
    for column in columns:
        plain = torch.stack([vectors[_key(one)] for one in column])
        weights = torch.tensor([one.multipliers for one in column], device=plain.device)
        weighted.append(apply(plain, weights.unsqueeze(-1)))
    return torch.cat(weighted, dim=1)


_Key = tuple[tuple[int, ...], tuple[Fix, ...]]


def _key(one: Chunk) -> _Key:
    return tuple(one.tokens), tuple(one.fixes)


def _vectors(chunks: Sequence[Chunk], text_encoder: nn.Module, clip_skip: int, embeddings: Embeddings) -> dict[_Key, Tensor]:
    """The unweighted vectors [77, width] of each chunk. Equal chunks are encoded once: a schedule repeats its texts at every step."""
    unique = list({_key(one): one for one in chunks}.values())
    found: dict[_Key, Tensor] = {}
    for start in range(0, len(unique), AT_ONCE):
        batch = unique[start : start + AT_ONCE]
        with inserted([one.fixes for one in batch], text_encoder, embeddings):
            encoded = _encode([one.tokens for one in batch], text_encoder, clip_skip)
        found |= {_key(one): vectors for one, vectors in zip(batch, encoded, strict=True)}
    return found


def _encode(tokens: list[list[int]], text_encoder: nn.Module, clip_skip: int) -> Tensor:
    """One call of the text encoder: [B][77] tokens to [B, 77, width] float32."""
    device = next(text_encoder.parameters()).device
    out = text_encoder(input_ids=torch.tensor(tokens, device=device), output_hidden_states=clip_skip > 1)
    if clip_skip <= 1:
        return out.last_hidden_state.float()
    layers = len(out.hidden_states) - 1     # the first one is what goes into layer 1
    if clip_skip > layers:
        raise RecipeError(f"clip skip is {clip_skip}, but the model's text encoder has {layers} layers: use 1 to {layers}")
    # transformers has a text_model between up to 5.0, and none in 5.15
    norm: Any = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    return norm(out.hidden_states[-clip_skip]).float()


@contextmanager
def inserted(fixes: Sequence[Sequence[Fix]], text_encoder: nn.Module, embeddings: Embeddings) -> Iterator[None]:
    """Within the block the text encoder reads embeddings' vectors in place of the tokens at `fixes`, a list for each row of the batch."""
    table: nn.Module = text_encoder.get_input_embeddings()  # type: ignore[operator]

    def put(_module: nn.Module, _args: object, output: Tensor) -> None:     # output: a copy of rows of the table, free to change
        for row, row_fixes in zip(output, fixes, strict=True):
            for fix in row_fixes:
                place = row[fix.offset + 1 : fix.offset + 1 + fix.vectors]      # row 0 is the start token
                place.copy_(_fitting(fix.embedding, embeddings[fix.embedding], row.shape[-1])[: len(place)])

    handle = table.register_forward_hook(put) if any(fixes) else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _fitting(name: str, vectors: Tensor, width: int) -> Tensor:
    if vectors.shape[-1] != width:
        raise WrongFamilyError(
            f"the embedding {name!r} has vectors of {vectors.shape[-1]} numbers, the model's text encoder takes {width}: "
            "take its name out of the prompt or choose a model of its family"
        )
    return vectors


def _row(table: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in table:
        raise RecipeError(f"no {what} is called {name!r}: use one of {', '.join(table)}")
    return table[name]
