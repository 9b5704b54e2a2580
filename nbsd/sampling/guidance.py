"""Classifier-free guidance: many texts, one `Denoise`.

The answer is uncond + sum of weight * scale * (part - uncond), over the parts that AND joins; in x0 for the k-diffusion samplers, in
noise for the timestep samplers. Which text is asked when, what is padded and when the negative prompt is left out are the web UI's rules.
Models that edit a picture are guided by the picture too: unseen + image scale * (uncond - unseen) takes uncond's place at the front, where
unseen is the answer to the negative prompt without the picture (Brooks et al. 2023, arXiv:2211.09800, equation 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nbsd.sampling.parametrize import Parametrization

GuidedUnet = Callable[..., Tensor]
"""(x [N, 4 + k, h, w] float32, t [N] float32, context [N, 77 n, width]) -> prediction [N, 4, h, w], any float type. Where the texts have
a vector, a fourth argument: it [N, d]."""


class Text(NamedTuple):
    """One stretch of a prompt's timeline."""

    until: int          # number of the last model call (from 0) that uses it
    context: Tensor     # [77 k, width], on the UNet's device
    vector: Tensor | None = None    # [d]: what else the UNet is told, of the whole text and of the picture


Timeline = Sequence[Text]


class Part(NamedTuple):
    """What stands between two ANDs."""

    timeline: Timeline
    weight: float = 1.0


class Told(NamedTuple):
    """What the UNet reads besides the latents."""

    context: Tensor             # [N, length, width]
    vector: Tensor | None       # [N, d]

    def only(self, start: int, stop: int) -> Told:
        """Some of the N."""
        return Told(self.context[start:stop], None if self.vector is None else self.vector[start:stop])

    def and_then(self, other: Told) -> Told:
        """These, and the others behind them; contexts of one length."""
        vectors = [vector for vector in (self.vector, other.vector) if vector is not None]
        return Told(torch.cat([self.context, other.context]), torch.cat(vectors) if vectors else None)


class Batch(NamedTuple):
    """What is told in one model call."""

    parts: Told             # P
    uncond: Told            # B
    both: Told | None       # the two in one, where their lengths agree


class Guidance:
    """The guided model of one batch, as a `Denoise`. Counts its calls: make a new one for every run of a sampler."""

    def __init__(
        self,
        unet: GuidedUnet,
        how: Parametrization,
        positive: Sequence[Sequence[Part]],
        negative: Sequence[Timeline],
        *,
        cfg_scale: float,
        planned_calls: int,
        pad_conds: str = "off",
        empty: Tensor | None = None,
        skip_early_cfg: float = 0.0,
        ngms: float = 0.0,
        ngms_all_steps: bool = False,
        beside: Tensor | None = None,
        image_scale: float = 1.0,
    ) -> None:
        """`positive`: for each picture its AND parts. `negative`: for each picture its timeline.

        `cfg_scale`: already divided by the sampler's `cfg_divisor`. `planned_calls`: steps to run, twice that for second order samplers.
        `pad_conds`: "off"; "on" pads the shorter side with `empty` [77, width], the vectors of the empty prompt; "v0" repeats or
        cuts the negative. `skip_early_cfg`: share of the planned calls without negative prompt. `ngms`: below this sigma (time
        step, for the timestep samplers) every other call leaves it out, or every one (`ngms_all_steps`).
        `beside` [B or 1, k, h, w]: what the UNet reads behind the latents. `image_scale`: how closely the picture in it is followed;
        at 1 it is a part of the question like any other.
        """
        self._unet, self._how, self._scale, self._planned = unet, how, cfg_scale, planned_calls
        self._parts = [part for parts in positive for part in parts]
        self._owners = [picture for picture, parts in enumerate(positive) for _ in parts]
        self._negative = list(negative)
        self._pad_conds, self._empty = pad_conds, empty
        self._skip_early, self._ngms, self._ngms_all = skip_early_cfg, ngms, ngms_all_steps
        self._beside, self._image_scale = beside, image_scale
        self._chosen: tuple[int, ...] = ()
        self._batch: Batch | None = None
        self._uncond: Tensor | None = None
        self.calls = 0
        self.used: set[str] = set()     # rules that had an effect, by the infotext's key: "NGMS", "Skip Early CFG", "Pad conds", ...

    def __call__(self, x: Tensor, at: Tensor) -> Tensor:
        """The guided answer for x [B, 4, h, w] at a noise level, or at a time step for a timestep sampler."""
        texts, alone = self._texts(), self._leaves_out_negative(at)
        x_in, t = self._how.prepare(x, at)
        x_in, blind = self._with_beside(x_in)
        rows, rows_in = self._per_part(x), self._per_part(x_in)
        if alone:
            parts = self._how.finish(rows, at, self._ask(rows_in, t, texts.parts))
            first = [self._owners.index(picture) for picture in range(len(x))]
            uncond, scale = torch.cat([parts[i : i + 1] for i in first]), 1.0
        else:
            if texts.both is not None:
                predictions = self._ask(torch.cat([rows_in, x_in]), t, texts.both)
            else:
                slices = range(0, len(rows), 2 * len(x))
                asked = [self._ask(rows_in[i : i + 2 * len(x)], t, texts.parts.only(i, i + 2 * len(x))) for i in slices]
                predictions = torch.cat([*asked, self._ask(x_in, t, texts.uncond)])
            answers = self._how.finish(torch.cat([rows, x]), at, predictions)
            parts, uncond, scale = answers[: len(rows)], answers[len(rows) :], self._scale
        self.calls += 1
        unseen = uncond
        if blind is not None and not alone:
            unseen = self._how.finish(x, at, self._ask(blind, t, texts.uncond))
        self._uncond = unseen
        guided = unseen + self._image_scale * (uncond - unseen) if unseen is not uncond else uncond.clone()
        for row, (picture, part) in enumerate(zip(self._owners, self._parts, strict=True)):
            guided[picture] += (parts[row] - uncond[picture]) * (part.weight * scale)
        return guided

    def uncond(self) -> Tensor:
        """The unguided answer of the last call, which DDIM CFG++ steps along."""
        if self._uncond is None:
            raise RuntimeError("the model has not been asked yet")
        return self._uncond

    def _ask(self, x: Tensor, t: Tensor, told: Told) -> Tensor:
        times = torch.full((len(x),), float(t), device=x.device)
        said = (told.context,) if told.vector is None else told
        return self._unet(x, times, *said).to(x.dtype)

    def _with_beside(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The UNet's input, and the same without the picture to edit where that has a scale of its own."""
        if self._beside is None:
            return x, None
        behind = self._beside.expand(len(x), -1, -1, -1)
        return torch.cat([x, behind], dim=1), torch.cat([x, behind * 0], dim=1) if self._image_scale != 1 else None

    def _per_part(self, x: Tensor) -> Tensor:
        """x with each picture as often as it has parts."""
        if self._owners == list(range(len(x))):
            return x
        return torch.cat([x[picture : picture + 1] for picture in self._owners])

    def _leaves_out_negative(self, at: Tensor) -> bool:
        if self._skip_early and self.calls / self._planned <= self._skip_early:
            self.used.add("Skip Early CFG")
            return True
        if (self.calls % 2 or self._ngms_all) and self._ngms > 0 and at < self._ngms and self._image_scale == 1:
            self.used.update(("NGMS", "NGMS all steps") if self._ngms_all else ("NGMS",))
            return True
        return False

    def _texts(self) -> Batch:
        """The contexts of the call to come; put together anew only when a timeline moves on."""
        timelines = [part.timeline for part in self._parts] + self._negative
        chosen = tuple(stretch(timeline, self.calls) for timeline in timelines)
        if self._batch is None or chosen != self._chosen:
            now = [timeline[i] for timeline, i in zip(timelines, chosen, strict=True)]
            sides = now[: len(self._parts)], now[len(self._parts) :]
            padded = self._padded(*(together([text.context for text in side]) for side in sides))
            parts, uncond = (Told(context, vectors(side)) for context, side in zip(padded, sides, strict=True))
            both = parts.and_then(uncond) if parts.context.shape[1] == uncond.context.shape[1] else None
            self._chosen, self._batch = chosen, Batch(parts, uncond, both)
        return self._batch

    def _padded(self, parts: Tensor, uncond: Tensor) -> tuple[Tensor, Tensor]:
        missing = parts.shape[1] - uncond.shape[1]
        if not missing or self._pad_conds == "off":
            return parts, uncond
        if self._pad_conds == "v0":
            self.used.add("Pad conds v0")
            return parts, lengthened(uncond, parts.shape[1])[:, : parts.shape[1]]
        if self._empty is None:
            raise ValueError("pad_conds 'on' needs the vectors of the empty prompt")
        self.used.add("Pad conds")
        filler = self._empty.repeat(abs(missing) // len(self._empty), 1)
        if missing > 0:
            return parts, torch.cat([uncond, filler.expand(len(uncond), -1, -1)], dim=1)
        return torch.cat([parts, filler.expand(len(parts), -1, -1)], dim=1), uncond


def stretch(timeline: Timeline, call: int) -> int:
    """Which text of a timeline a call uses: the first whose end it has not passed; after the last end the *first*, as in the web UI."""
    return next((i for i, text in enumerate(timeline) if call <= text.until), 0)


def together(contexts: Sequence[Tensor]) -> Tensor:
    """Contexts of several lengths as one tensor; the last vector of the shorter ones is repeated."""
    longest = max(len(context) for context in contexts)
    return torch.cat([lengthened(context[None], longest) for context in contexts])


def vectors(texts: Sequence[Text]) -> Tensor | None:
    """The texts' vectors [N, d]; None where they have none."""
    found = [text.vector for text in texts if text.vector is not None]
    return torch.stack(found) if found else None


def lengthened(context: Tensor, length: int) -> Tensor:
    """[N, at least length, width]: the last vector is repeated where it is shorter."""
    missing = length - context.shape[1]
    return torch.cat([context, context[:, -1:].expand(-1, missing, -1)], dim=1) if missing > 0 else context
