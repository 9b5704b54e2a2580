"""From a recipe's prompts to what the UNet reads: one context per text, with the denoiser call until which it holds."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from nbsd.conditioning.encode import Embeddings, encode_texts
from nbsd.conditioning.tokens import Vocabulary
from nbsd.names import SAMPLER_FACTS
from nbsd.prompt.networks import split_networks, strip_comments
from nbsd.prompt.schedule import and_parts, prompt_schedule
from nbsd.recipe import Recipe
from nbsd.sampling.guidance import Part, Text

REMEMBERED = 16     # encoded schedules kept, so that only the changed prompt of the next picture is encoded


class Texts:
    """Encodes the prompts of recipes with one text encoder."""

    def __init__(self, text_encoder: nn.Module, vocabulary: Vocabulary, embeddings: Embeddings | None = None) -> None:
        self._encoder, self.vocabulary, self.embeddings = text_encoder, vocabulary, embeddings
        self._known: OrderedDict[tuple[object, ...], tuple[Text, ...]] = OrderedDict()

    def positive(self, recipe: Recipe) -> tuple[Part, ...]:
        """The parts of the prompt, each with its weight; one part where the prompt has no AND."""
        text = split_networks(strip_comments(recipe.prompt))[0]
        if recipe.dialect != "webui":
            return (Part(self.timeline(text, recipe), 1.0),)
        return tuple(Part(self.timeline(part.text, recipe), part.weight) for part in and_parts(text))

    def negative(self, recipe: Recipe) -> tuple[Text, ...]:
        """The negative prompt; AND is plain text there."""
        return self.timeline(strip_comments(recipe.negative_prompt), recipe)

    def empty(self, recipe: Recipe) -> Tensor:
        """The context [77, width] of the empty prompt."""
        return self.timeline("", recipe)[0].context

    def forget(self) -> None:
        """Encode everything anew from here on."""
        self._known.clear()

    def timeline(self, text: str, recipe: Recipe) -> tuple[Text, ...]:
        """The stretches of a text's schedule, encoded together."""
        calls = recipe.steps * (2 if SAMPLER_FACTS[recipe.sampler].second_order else 1)
        timed = [(calls, text)]
        if recipe.dialect == "webui":      # NovelAI's language has no prompt editing: its [ ] only weaken
            timed = prompt_schedule(text, calls, old_timelines=recipe.old_prompt_timelines)
        how = {
            "clip_skip": recipe.clip_skip, "emphasis": recipe.emphasis, "backtrack": recipe.comma_backtrack,
            "old_emphasis": recipe.old_emphasis, "dialect": recipe.dialect,
        }
        key = (tuple(timed), *how.values())
        if key not in self._known:
            # all texts of one schedule are encoded together: the web UI's emphasis rescales by the mean of the whole tensor
            with torch.inference_mode():
                contexts = encode_texts([one for _, one in timed], self._encoder, self.vocabulary, embeddings=self.embeddings, **how)
            self._known[key] = tuple(Text(until, context) for (until, _), context in zip(timed, contexts, strict=True))
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]
