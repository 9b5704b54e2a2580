"""The first model's training: what must hold before an hour of computing is spent on it. The model itself is measured by evaluate.py."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
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
from tools.first_model import curves, export, networks, text
from tools.first_model.captions import EVERY, Captions
from tools.first_model.half import HalfVae, grow, start
from tools.first_model.latents import rescale
from tools.first_model.muon import orthogonal
from tools.first_model.state import Plan
from tools.first_model.tags import QUALITIES, caption, draw_tags, words
from tools.first_model.train import Networks, Trainer, fresh, noisy


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
        said = caption(draw_tags(rng), rng)
        assert captions.row(said, rng) == chunk([Span(said, 1.0)], Vocabulary())[0].tokens


def test_every_word_of_a_caption_is_known(captions: Captions) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        assert set(caption(draw_tags(rng), rng, drop=0).split(", ")) <= set(EVERY)


def test_tags_that_cannot_be_seen_are_not_said() -> None:
    tags = [draw_tags(random.Random(seed)) for seed in range(300)]
    assert all(one.eye_colour not in words(one) for one in tags if one.eyes == "closed eyes")
    assert {one.quality for one in tags} == set(QUALITIES)


def test_foreign_words_are_thrown_in_and_no_tag_is_lost(captions: Captions) -> None:
    said = "1girl, blue hair, smile, kimono, flowers, hat"
    plain, noised = captions.row(said, random.Random(1)), captions.row(said, random.Random(1), noise=4)
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
    assert sum(tensor.numel() for tensor in found.values()) * 2 < 15.95e6      # and some 60 kB of names


def test_the_first_layer_sees_the_word_before(captions: Captions) -> None:
    encoder = networks.make_text_encoder()
    networks.start_text_encoder(encoder, captions.used)
    inner = getattr(encoder, "text_model", encoder)
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


def made(folder: Path, count: int = 16) -> Path:
    """A folder with random latents and the tags of no pictures."""
    latents = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.save(latents.half(), folder / "latents.pt")
    np.save(folder / "pictures.npy", np.zeros((1, 2, 2, 3), np.uint8))
    (folder / "tags.json").write_text(json.dumps([asdict(draw_tags(random.Random(seed))) for seed in range(count)]))
    return folder


def test_a_step_depends_on_its_number_only(tmp_path: Path) -> None:
    found = []
    for run in range(2):
        trainer = Trainer(made(tmp_path), batch=4, device="cpu")
        torch.manual_seed(run)       # must not matter
        trainer.step = 5
        found.append([trainer.one_step(1e-3) for _ in range(2)])
    assert found[0] == found[1]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    trainer = Trainer(made(tmp_path), batch=4, device="cpu")
    trainer.one_step(1e-3)
    trainer.save()
    unbroken = [trainer.one_step(1e-3) for _ in range(2)]
    resumed = Trainer(tmp_path, batch=4, device="cpu")
    assert resumed.step == 1
    assert [resumed.one_step(1e-3) for _ in range(2)] == unbroken


def test_the_unet_starts_by_giving_its_input_back() -> None:
    torch.manual_seed(0)
    unet = networks.make_unet()
    networks.start_unet(unet)
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = unet(x, torch.tensor([999, 500]), torch.zeros(2, 77, networks.TEXT_WIDTH)).sample
    assert (answer - x / x.square().mean((2, 3), keepdim=True).sqrt()).abs().mean() < 0.1


def test_orthogonal_brings_the_singular_values_near_one() -> None:
    for shape in ((2, 96, 864), (3, 768, 96)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert values.min() > 0.6 and values.max() < 1.3


def test_the_text_encoder_is_taught_where_each_tag_ends(captions: Captions) -> None:
    tokens, own, said = text.batch(captions, random.Random(0), 32)
    vocabulary = Vocabulary()
    last = {vocabulary.encode(word)[-1] for word in EVERY}
    assert set(tokens[own >= 0].tolist()) <= last
    for row, marked in zip(own, said, strict=True):
        assert {EVERY[int(i)] for i in row[row >= 0]} == {EVERY[i] for i in range(len(EVERY)) if marked[i]}
    assert 0 < (said.sum(1) == 0).sum() < 12         # some captions are empty, for guidance


def test_text_training_lowers_its_loss(tmp_path: Path) -> None:
    text.train(tmp_path, Plan(8, warmup=2), "cpu")
    state = torch.load(tmp_path / "text.pt", weights_only=True)
    assert state["step"] == 8
    before, after = Networks(), Networks()
    networks.start_text_encoder(before.text, Captions().used)
    after.load_state_dict(fresh(tmp_path).state_dict())
    assert not torch.equal(before.text.get_input_embeddings().weight, after.text.get_input_embeddings().weight)
    unused = torch.ones(networks.VOCABULARY, dtype=torch.bool)
    unused[Captions().used] = False
    assert not after.text.get_input_embeddings().weight[unused].any()       # rows that no caption uses stay zero


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Plan(1000, warmup=100)
    assert plan.rate(0) == 0.01 and plan.rate(99) == 1.0
    assert plan.rate(550) == pytest.approx(0.51)
    assert plan.rate(1000) == plan.rate(5000) == pytest.approx(0.02)
    assert Plan(1000, level=0.5).rate(500) == 1.0 and Plan(1000, level=0.5).rate(750) == pytest.approx(0.51)


def test_pictures_are_drawn_from_tags_and_seed() -> None:
    pytest.importorskip("skia", reason="drawing needs skia-python")
    from tools.first_model.dataset import picture_of
    from tools.first_model.draw import draw

    tags = draw_tags(random.Random(4), "best")
    assert picture_of(7).shape == (128, 128, 3)
    assert (draw(tags, 1) == draw(tags, 1)).all()
    assert abs(draw(tags, 1).astype(int) - draw(tags, 2)).mean() > 3


def test_a_step_that_was_run_twice_counts_as_it_was_last(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("50 loss 0.8 error 0.4\n100 loss 0.5 error 0.3\n100 loss 0.6 error 0.3\n150 loss 0.4 error 0.2\n")
    assert curves.losses(tmp_path / "train.log") == {50: 0.8, 100: 0.6, 150: 0.4}
    assert curves.draw_all(tmp_path).size == (3 * curves.WIDTH, curves.HEIGHT)
