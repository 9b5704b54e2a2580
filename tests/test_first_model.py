"""The first model's training: what must hold before an hour of computing is spent on it. The model itself is measured by evaluate.py."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from nbsd.conditioning.tokens import Vocabulary, chunk
from nbsd.models.keys import (
    TEXT,
    TEXT_RULES,
    UNET,
    VAE,
    check_complete,
    renamed,
    unet_rules,
    vae_rules,
)
from nbsd.prompt.weights import Span
from tools.first_model import export, networks
from tools.first_model.captions import EVERY, Captions
from tools.first_model.half import HalfVae, grow, start
from tools.first_model.latents import rescale
from tools.first_model.state import Plan
from tools.first_model.tags import QUALITIES, caption, draw_tags, words
from tools.first_model.train import Networks, noisy, one_step


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions()


@pytest.fixture(scope="module")
def grown() -> tuple[HalfVae, torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    pictures = torch.nn.functional.interpolate(torch.rand(4, 3, 16, 16) * 2 - 1, scale_factor=8)
    half = HalfVae()
    start(half, torch.nn.functional.avg_pool2d(pictures, 2))
    return half.eval(), grow(half, pictures).eval(), pictures


def test_captions_have_the_tokens_that_prompts_have(captions: Captions) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        text = caption(draw_tags(rng), rng)
        assert captions.row(text, rng) == chunk([Span(text, 1.0)], Vocabulary())[0].tokens


def test_every_word_of_a_caption_is_known(captions: Captions) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        assert set(caption(draw_tags(rng), rng, drop=0).split(", ")) <= set(EVERY)


def test_tags_that_cannot_be_seen_are_not_said() -> None:
    tags = [draw_tags(random.Random(seed)) for seed in range(300)]
    assert all(one.eye_colour not in words(one) for one in tags if one.eyes == "closed eyes")
    assert {one.quality for one in tags} == set(QUALITIES)


def test_foreign_words_are_thrown_in_and_no_tag_is_lost(captions: Captions) -> None:
    text = "1girl, blue hair, smile, kimono, flowers, hat"
    plain, noised = captions.row(text, random.Random(1)), captions.row(text, random.Random(1), noise=4)
    foreign = [token for token in noised if token not in captions.used]
    assert 0 < len(foreign) <= 4
    assert [token for token in noised if token in captions.used][:20] == plain[:20]


def test_the_grown_encoder_is_the_half_one(grown) -> None:
    half, vae, pictures = grown
    with torch.no_grad():
        mean, _ = half.moments(torch.nn.functional.avg_pool2d(pictures, 2))
        torch.testing.assert_close(vae.encode(pictures).latent_dist.mean, mean, atol=1e-4, rtol=1e-4)


def test_the_grown_decoder_gives_the_half_ones_answer_away_from_the_frame(grown) -> None:
    half, vae, pictures = grown
    with torch.no_grad():
        mean, _ = half.moments(torch.nn.functional.avg_pool2d(pictures, 2))
        small = torch.nn.functional.interpolate(half.decode(mean), scale_factor=2)
        full = vae.decode(mean).sample
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert (full - small)[inside].abs().mean() < 0.1 * small.std()


def test_rescaled_latents_give_the_same_pictures(grown) -> None:
    _, vae, pictures = grown
    with torch.no_grad():
        mean = vae.encode(pictures).latent_dist.mean
        before = vae.decode(mean).sample
        state = {key: tensor.clone() for key, tensor in vae.state_dict().items()}
        shift, std = mean.mean((0, 2, 3)), mean.std((0, 2, 3))
        rescale(vae, shift, std)
        scaled = vae.encode(pictures).latent_dist.mean
        after = vae.decode(scaled).sample
        vae.load_state_dict(state)
    want = (mean - shift.view(1, 4, 1, 1)) / std.view(1, 4, 1, 1) / networks.LATENT_SCALE
    torch.testing.assert_close(scaled, want, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_the_file_has_the_web_uis_names_and_fits(grown) -> None:
    model = Networks()
    found = dict(export.tensors(model, grown[1].state_dict()))
    parts = (
        (UNET, unet_rules(networks.UNET_LAYERS), model.unet),
        (VAE, vae_rules(len(networks.VAE_WIDTHS)), grown[1]),
        (TEXT, TEXT_RULES, model.text),
    )
    for prefix, rules, module in parts:
        places, strangers = renamed([key for key in found if key.startswith(prefix)], prefix, rules)
        own = {name: tensor for name, tensor in module.state_dict().items() if "position_ids" not in name}
        if prefix == TEXT:      # transformers 5 dropped the prefix
            own = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in own.items()}
        check_complete("first.safetensors", prefix, places, strangers, own)
        assert all(torch.equal(found[key].reshape(own[place].shape), own[place]) for place, key in places.items())
    assert sum(tensor.numel() for tensor in found.values()) * 2 < 16e6


def test_the_first_layer_sees_the_word_before(captions: Captions) -> None:
    text = networks.make_text_encoder()
    networks.start_text_encoder(text, captions.used)
    inner = getattr(text, "text_model", text)
    row = torch.tensor([captions.row("1girl, blue hair, twintails, red eyes, smile", random.Random(0))])
    with torch.no_grad():
        layer = inner.encoder.layers[0]
        h = layer.layer_norm1(inner.embeddings(input_ids=row))
        head = networks.TEXT_WIDTH // networks.TEXT_HEADS
        q, k = (part(h).view(77, networks.TEXT_HEADS, head) for part in (layer.self_attn.q_proj, layer.self_attn.k_proj))
    for back in (1, 2):
        scores = (q[:, back - 1] @ k[:, back - 1].T / head**0.5).masked_fill(torch.ones(77, 77).triu(1).bool(), -1e9)
        assert scores.argmax(1)[2:].tolist() == [at - back for at in range(2, 77)]      # no far place looks alike


def test_noise_weights_and_times() -> None:
    table = networks.alphas_cumprod().float()
    latents = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    x, noise, t, weight = noisy(latents, table, torch.Generator().manual_seed(1))
    assert t.tolist() == sorted(t.tolist()) and t[0] < 16 and t[-1] >= 984        # spread over all times
    a = table[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(x, a.sqrt() * latents + (1 - a).sqrt() * noise)
    assert weight.max() == 50 and weight[0] < 0.1       # hardly any noise: nearly nothing to learn
    assert weight[:34].max() < 5 < weight[45]


def test_a_step_depends_on_its_number_only(captions: Captions) -> None:
    latents = torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    tags, table, found = [draw_tags(random.Random(seed)) for seed in range(16)], networks.alphas_cumprod().float(), []
    for run in range(2):
        torch.manual_seed(3)
        model = Networks()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        torch.manual_seed(run)       # must not matter
        found.append([one_step(model, optimizer, latents, tags, captions, table, step, 4) for step in (5, 6)])
    assert found[0] == found[1]


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Plan(1000, warmup=100)
    assert plan.rate(0) == 0.01 and plan.rate(99) == 1.0
    assert plan.rate(550) == pytest.approx(0.51)
    assert plan.rate(1000) == plan.rate(5000) == pytest.approx(0.02)


def test_pictures_are_drawn_from_tags_and_seed() -> None:
    pytest.importorskip("skia", reason="drawing needs skia-python")
    from tools.first_model.dataset import picture_of
    from tools.first_model.draw import draw

    tags = draw_tags(random.Random(4), "best")
    assert picture_of(7).shape == (128, 128, 3)
    assert (draw(tags, 1) == draw(tags, 1)).all()
    assert abs(draw(tags, 1).astype(int) - draw(tags, 2)).mean() > 3
