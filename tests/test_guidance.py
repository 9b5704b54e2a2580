"""Guidance: which text is asked when, in how many calls, and what is made of the answers. The UNet here says its context back."""

from __future__ import annotations

import pytest
import torch

from nbsd.sampling.guidance import Guidance, Part, Text, stretch
from nbsd.sampling.parametrize import parametrization
from nbsd.testing import sd1_table

HOW = parametrization(sd1_table(), kind="timesteps")    # answers are the predictions themselves
WIDTH = 3
EMPTY = torch.full((77, WIDTH), 0.5)
SIGMA = torch.tensor(5.0)


def context(value: float, chunks: int = 1) -> torch.Tensor:
    return torch.full((77 * chunks, WIDTH), float(value))


def always(value: float, chunks: int = 1) -> list[Text]:
    return [Text(20, context(value, chunks))]


class Echo:
    """A UNet that predicts the mean of its context; keeps the contexts of each call."""

    def __init__(self) -> None:
        self.contexts: list[torch.Tensor] = []

    def __call__(self, x, t, context):
        assert len(x) == len(t) == len(context)
        self.contexts.append(context)
        return context.mean((1, 2))[:, None, None, None].expand_as(x)

    @property
    def batches(self) -> list[int]:
        return [len(context) for context in self.contexts]

    @property
    def lengths(self) -> list[int]:
        return [context.shape[1] for context in self.contexts]


def guide(positive, negative, unet=None, **rules):
    rules = {"cfg_scale": 7.0, "planned_calls": 20, "empty": EMPTY, **rules}
    return Guidance(unet or Echo(), HOW, positive, negative, **rules)


def ask(guidance, pictures=1, at=SIGMA):
    """The answers of one call, one number a picture."""
    answer = guidance(torch.zeros(pictures, 4, 2, 2), at)
    assert all((one == one.flatten()[0]).all() for one in answer)
    return [round(float(one.flatten()[0]), 4) for one in answer]


def test_one_text_against_the_negative():
    unet = Echo()
    assert ask(guide([[Part(always(3))]], [always(1)], unet)) == [1 + 7 * (3 - 1)]
    assert unet.batches == [2]


def test_scale_1_is_computed_too():
    unet = Echo()
    assert ask(guide([[Part(always(3))]], [always(1)], unet, cfg_scale=1.0)) == [3]
    assert unet.batches == [2]


def test_parts_of_an_and_are_added_up_by_weight():
    unet, parts = Echo(), [Part(always(3), 0.5), Part(always(2), -1.0)]
    assert ask(guide([parts], [always(1)], unet)) == [1 + 7 * 0.5 * 2 - 7 * 1]
    assert unet.batches == [3]


def test_each_picture_has_its_own_parts():
    unet = Echo()
    positive = [[Part(always(3))], [Part(always(4), 0.5), Part(always(6), 2.0)]]
    assert ask(guide(positive, [always(1), always(2)], unet), pictures=2) == [15, 2 + 7 * (0.5 * 2 + 2 * 4)]
    assert unet.batches == [5]


def test_a_text_changes_after_the_call_that_its_end_names():
    # the web UI: "[a:b:0.5]" at 10 steps is [[5, a], [10, b]], and makes six calls of a, four of b
    timeline = [Text(5, context(1)), Text(10, context(2))]
    guidance = guide([[Part(timeline)]], [always(0)], cfg_scale=1.0)
    assert [ask(guidance)[0] for _ in range(10)] == [1] * 6 + [2] * 4


def test_after_the_last_end_the_first_text_comes_back_as_in_the_web_ui():
    timeline = [Text(1, context(1)), Text(2, context(2))]
    assert [stretch(timeline, call) for call in range(5)] == [0, 0, 1, 0, 0]


def test_the_negative_has_a_timeline_too():
    guidance = guide([[Part(always(0))]], [[Text(0, context(1)), Text(9, context(2))]], cfg_scale=0.0)
    assert [ask(guidance)[0] for _ in range(3)] == [1, 2, 2]


def test_contexts_are_put_together_only_when_a_text_changes():
    unet = Echo()
    guidance = guide([[Part([Text(1, context(1)), Text(10, context(2))])]], [always(0)], unet)
    for _ in range(4):
        ask(guidance)
    assert unet.contexts[0] is unet.contexts[1] and unet.contexts[2] is unet.contexts[3]


def test_texts_of_several_lengths_are_asked_apart():
    unet = Echo()
    assert ask(guide([[Part(always(3, 2))]], [always(1)], unet)) == [15]
    assert (unet.batches, unet.lengths) == ([1, 1], [154, 77])


def test_many_parts_apart_are_asked_in_slices_of_two_batches_as_in_the_web_ui():
    unet, parts = Echo(), [Part(always(value, 2)) for value in (2, 3, 4)]
    assert ask(guide([parts], [always(1)], unet)) == [1 + 7 * (1 + 2 + 3)]
    assert unet.batches == [2, 1, 1]


def test_shorter_parts_are_lengthened_by_their_last_vector():
    short = torch.cat([torch.zeros(76, WIDTH), torch.ones(1, WIDTH)])
    unet = Echo()
    ask(guide([[Part([Text(20, short)]), Part(always(3, 2))]], [always(1)], unet))
    assert torch.equal(unet.contexts[0][0], torch.cat([short, torch.ones(77, WIDTH)]))


@pytest.mark.parametrize("chunks, negative_chunks", [(2, 1), (1, 2), (1, 3)])
def test_pad_conds_fills_up_with_the_empty_prompt(chunks, negative_chunks):
    unet = Echo()
    guidance = guide([[Part(always(3, chunks))]], [always(1, negative_chunks)], unet, pad_conds="on")
    ask(guidance)
    longest = 77 * max(chunks, negative_chunks)
    assert unet.lengths == [longest] and guidance.used == {"Pad conds"}
    shorter = unet.contexts[0][0 if chunks < negative_chunks else 1]
    assert torch.equal(shorter[77:], torch.full((longest - 77, WIDTH), 0.5))


@pytest.mark.parametrize("negative_chunks", [1, 3])
def test_pad_conds_v0_repeats_or_cuts_the_negative(negative_chunks):
    unet = Echo()
    guidance = guide([[Part(always(3, 2))]], [always(1, negative_chunks)], unet, pad_conds="v0")
    ask(guidance)
    assert guidance.used == {"Pad conds v0"}
    assert torch.equal(unet.contexts[0][1], context(1, 2))


@pytest.mark.parametrize("pad_conds", ["on", "v0"])
def test_padding_that_was_not_needed_is_not_told(pad_conds):
    guidance = guide([[Part(always(3))]], [always(1)], pad_conds=pad_conds)
    ask(guidance)
    assert guidance.used == set()


def test_skip_early_cfg_leaves_the_negative_out_at_first():
    unet = Echo()
    guidance = guide([[Part(always(3))]], [always(1)], unet, skip_early_cfg=0.1)
    assert [ask(guidance)[0] for _ in range(5)] == [3, 3, 3, 15, 15]     # calls 0 to 2 of 20: up to a share of 0.1
    assert unet.batches == [1, 1, 1, 2, 2] and guidance.used == {"Skip Early CFG"}


@pytest.mark.parametrize("all_steps, want", [(False, [15, 3, 15, 3]), (True, [3, 3, 3, 3])])
def test_ngms_leaves_the_negative_out_below_a_sigma(all_steps, want):
    guidance = guide([[Part(always(3))]], [always(1)], ngms=4.0, ngms_all_steps=all_steps)
    assert [ask(guidance, at=torch.tensor(3.0))[0] for _ in range(4)] == want
    assert guidance.used == ({"NGMS", "NGMS all steps"} if all_steps else {"NGMS"})


def test_ngms_does_nothing_above_its_sigma():
    guidance = guide([[Part(always(3))]], [always(1)], ngms=4.0, ngms_all_steps=True)
    assert [ask(guidance, at=torch.tensor(4.0))[0] for _ in range(3)] == [15] * 3
    assert guidance.used == set()


def test_without_the_negative_the_other_parts_are_added_to_the_first_by_weight_alone():
    parts = [Part(always(3), 0.5), Part(always(5), 2.0)]
    guidance = guide([parts, [Part(always(9), 0.5)]], [always(1), always(1)], ngms=9.0, ngms_all_steps=True)
    assert ask(guidance, pictures=2) == [3 + 2 * (5 - 3), 9]


def test_the_unguided_answer_can_be_asked_for():
    guidance = guide([[Part(always(3))]], [always(1)])
    with pytest.raises(RuntimeError):
        guidance.uncond()
    ask(guidance)
    assert guidance.uncond().unique().tolist() == [1]


def test_k_samplers_are_guided_in_x0():
    how = parametrization(sd1_table())
    guidance = Guidance(Echo(), how, [[Part(always(3))]], [always(1)], cfg_scale=7.0, planned_calls=20)
    x, sigma = torch.ones(1, 4, 2, 2), torch.tensor(2.0)
    assert torch.allclose(guidance(x, sigma), 1 - 2.0 * torch.tensor(15.0) * torch.ones_like(x))


def test_no_call_reads_a_number_back_from_the_device():
    # see test_samplers: "meta" has no numbers to read
    parts, negative = [Part([Text(20, context(1).to("meta"))])] * 2, [Text(20, context(1).to("meta"))]
    guidance = Guidance(lambda x, t, c: x, parametrization(sd1_table()), [parts], [negative], cfg_scale=7.0, planned_calls=9, ngms=4.0)
    x = torch.zeros(1, 4, 2, 2, device="meta")
    for sigma in (9.0, 3.0, 1.0):
        assert guidance(x, torch.tensor(sigma)).is_meta
