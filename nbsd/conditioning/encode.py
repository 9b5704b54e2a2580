"""Texts to the vectors that the UNet reads (the web UI's "cond")."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nbsd.conditioning.tokens import (
    BACKTRACK,
    END,
    NONE,
    Chunk,
    Fix,
    Vocabulary,
    chunk,
    chunk_old,
)
from nbsd.errors import RecipeError, WrongFamilyError
from nbsd.prompt.weights import DIALECTS, Span

AT_ONCE = 16    # chunks that the text encoder reads in one call; a longer prompt takes more calls, not more memory

Embeddings = Mapping[str, Tensor]   # name -> [n, width]


@dataclass(frozen=True)
class Encoder:
    """A text encoder, and which of its numbers the UNet reads."""

    module: nn.Module               # transformers' CLIPTextModel; CLIPTextModelWithProjection where `pooled`
    vocabulary: Vocabulary
    open_clip: bool = False         # fills texts up with another token behind their end, and knows no old emphasis
    layer: int = 0                  # the n-th from the end, whatever clip skip says; 0: as clip skip says
    norm: bool = True               # whether that goes through the final layer norm
    pooled: bool = False            # whether its one projected vector of the text is used too
    vectors: str = ""               # which of an embedding's vectors are for it, where there are several encoders


class Encoded(NamedTuple):
    """Texts as vectors, float32."""

    context: Tensor                 # [texts, 77 n, width], the encoders' side by side
    pooled: Tensor | None           # [texts, width], of the first chunk


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


def encode_texts(texts: Sequence[str], text_encoder: nn.Module, vocabulary: Vocabulary, **how: Any) -> Tensor:
    """The vectors [len(texts), 77 n, width] that the only text encoder of an SD 1 model makes; the rest as for `encode`."""
    return encode(texts, [Encoder(text_encoder, vocabulary)], **how).context


@torch.no_grad()
def encode(
    texts: Sequence[str], encoders: Sequence[Encoder], *, clip_skip: int = 1, emphasis: str = "Original",
    backtrack: int = BACKTRACK, old_emphasis: bool = False, dialect: str = "webui", embeddings: Embeddings | None = None,
) -> Encoded:
    """The texts' vectors on the text encoders' device, 77 n of them; n: chunks of the longest text.

    Texts belong together: under "Original" the mean is taken over one chunk of all of them, for each encoder by itself, and shorter
    ones are filled up with empty chunks. The web UI gives all texts of one prompt's schedule at once.

    `clip_skip`: 1 = last layer; n takes the n-th from the end; both go through the final layer norm. Encoders with a layer of their
    own take no notice of it. `emphasis`: a name in EMPHASIS. `backtrack`: 0 to 74 tokens. `dialect`: a name in prompt.weights.DIALECTS.
    `embeddings`: textual-inversion vectors by name; for encoders with `vectors`, an `embeddings.Embeddings`. Prompts may be of any
    length; time and result grow with it.

    Raises RecipeError for an unknown name or layer, WrongFamilyError for an embedding of another width.
    """
    if old_emphasis and any(encoder.open_clip for encoder in encoders):
        raise RecipeError("the old emphasis is of SD 1 only, and this model reads its texts with OpenCLIP: switch it off")
    how: dict[str, Any] = {"emphasis": emphasis, "backtrack": backtrack, "old_emphasis": old_emphasis, "dialect": dialect}
    own = [_vectors_for(encoder, embeddings) for encoder in encoders]
    tables = [
        [chunk_text(text, encoder.vocabulary, embeddings=mine, **how) for text in texts] for encoder, mine in zip(encoders, own, strict=True)
    ]
    count = max((len(row) for rows in tables for row in rows), default=0)
    contexts, pooled = [], []
    for encoder, mine, rows in zip(encoders, own, tables, strict=True):
        empty = chunk([], encoder.vocabulary)[0]
        columns = [[row[i] if i < len(row) else empty for row in rows] for i in range(count)]
        known = _vectors([one for column in columns for one in column], encoder, clip_skip, mine or {})
        contexts.append(torch.cat([_weighted(column, known, emphasis) for column in columns], dim=1))
        if encoder.pooled:
            pooled.append(torch.stack([known[_key(one)][1] for one in columns[0]]))  # type: ignore[misc]
    return Encoded(torch.cat(contexts, dim=-1), torch.cat(pooled, dim=-1) if pooled else None)


def _vectors_for(encoder: Encoder, embeddings: Any) -> Embeddings | None:
    return embeddings.of(encoder.vectors) if encoder.vectors and embeddings else embeddings


def _weighted(column: Sequence[Chunk], known: Mapping[_Key, _Answer], emphasis: str) -> Tensor:
    """One chunk of all texts [texts, 77, width], with its weights."""
    plain = torch.stack([known[_key(one)][0] for one in column])
    weights = torch.tensor([one.multipliers for one in column], device=plain.device)
    return EMPHASIS[emphasis].apply(plain, weights.unsqueeze(-1))


_Key = tuple[tuple[int, ...], tuple[Fix, ...]]
_Answer = tuple[Tensor, "Tensor | None"]    # a chunk's vectors [77, width], and its pooled one


def _key(one: Chunk) -> _Key:
    return tuple(one.tokens), tuple(one.fixes)


def _vectors(chunks: Sequence[Chunk], encoder: Encoder, clip_skip: int, embeddings: Embeddings) -> dict[_Key, _Answer]:
    """The unweighted vectors of each chunk. Equal chunks are encoded once: a schedule repeats its texts at every step."""
    unique = list({_key(one): one for one in chunks}.values())
    found: dict[_Key, _Answer] = {}
    for start in range(0, len(unique), AT_ONCE):
        batch = unique[start : start + AT_ONCE]
        with inserted([one.fixes for one in batch], encoder.module, embeddings):
            vectors, pooled = _encode([_filled_up(one.tokens, encoder) for one in batch], encoder, clip_skip)
        found |= {_key(one): (vectors[i], pooled[i] if pooled is not None else None) for i, one in enumerate(batch)}
    return found


def _filled_up(tokens: list[int], encoder: Encoder) -> list[int]:
    """A chunk's tokens as the encoder was trained with them behind the text's end."""
    if not encoder.open_clip:
        return tokens
    end = tokens.index(END) + 1
    return tokens[:end] + [NONE] * (len(tokens) - end)


def _encode(tokens: list[list[int]], encoder: Encoder, clip_skip: int) -> tuple[Tensor, Tensor | None]:
    """One call of the text encoder: [B][77] tokens to [B, 77, width] float32, and the pooled vectors [B, width]."""
    device = next(encoder.module.parameters()).device
    layer = encoder.layer or clip_skip
    out = encoder.module(input_ids=torch.tensor(tokens, device=device), output_hidden_states=layer > 1)
    pooled = out.text_embeds.float() if encoder.pooled else None
    if layer <= 1:
        return out.last_hidden_state.float(), pooled
    layers = len(out.hidden_states) - 1     # the first one is what goes into layer 1
    if layer > layers:
        raise RecipeError(f"clip skip is {layer}, but the model's text encoder has {layers} layers: use 1 to {layers}")
    hidden = out.hidden_states[-layer]
    if encoder.norm:
        # transformers has a text_model between up to 5.0, and none in 5.15
        norm: Any = getattr(encoder.module, "text_model", encoder.module).final_layer_norm
        hidden = norm(hidden)
    return hidden.float(), pooled


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
