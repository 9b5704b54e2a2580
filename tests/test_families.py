"""Every family: a tiny random model of it, saved as a single file, is known for what it is, loads as diffusers' and transformers' own
modules would, is told what its prompt and its picture's size are, and makes a picture.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import changed, short, sizes, their_texts, their_unet, their_vae, write

from nbsd.conditioning.encode import encode
from nbsd.conditioning.tokens import END, START, OpenVocabulary, Vocabulary
from nbsd.errors import ModelError, RecipeError, WrongFamilyError
from nbsd.models import detect, families
from nbsd.models.families import SD1, SD2, SDXL, SDXL_REFINER
from nbsd.models.load import ask, load_checkpoint
from nbsd.models.lora import places
from nbsd.models.packed import plain_weight
from nbsd.models.shown import family_words
from nbsd.models.store import Store
from nbsd.models.weights import open_weights
from nbsd.pipeline.compute import choose
from nbsd.pipeline.model import Model, load
from nbsd.pipeline.networks import Networks
from nbsd.pipeline.texts import encoders_of
from nbsd.recipe import Hires, Recipe

FAMILIES = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL, "refiner": SDXL_REFINER}
PROMPT = "a (red:1.3) cat, [blurry]"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {name: write(folder / f"{name}.safetensors", name) for name in FAMILIES}


@pytest.fixture(scope="module")
def loaded(files):
    return {name: load_checkpoint(path) for name, path in files.items()}


@pytest.fixture(scope="module")
def tensors(files):
    return {name: load_file(path) for name, path in files.items()}


# Known for what it is


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_known_and_every_other_family_refuses_it(files, name):
    weights = open_weights(files[name])
    assert detect.kind_of(weights) == detect.CHECKPOINT
    assert detect.checkpoint_family(weights) is FAMILIES[name]
    for family, facts, absent in detect.ROWS:
        misses = [miss for fact in facts if (miss := detect.why_not(weights.shapes, fact))] + [key for key in absent if key in weights.shapes]
        assert bool(misses) is (family is not FAMILIES[name]), family.name


def test_every_family_that_is_used_has_a_row_and_a_test():
    assert set(families.USED) == set(FAMILIES.values()) == {row.family for row in detect.ROWS if row.family.supported}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("other", FAMILIES)
def test_the_text_encoders_of_another_family_do_not_fit(files, name, other):
    if name == other:
        return
    with pytest.raises(WrongFamilyError, match="chosen as text encoder and holds none of|does not fit together"):
        load_checkpoint(files[name], text_encoder=files[other])


# The same modules


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_unet_is_diffusers_own(loaded, tensors, name):
    ours, unet = loaded[name].unet, their_unet(name, tensors[name])
    theirs, state = unet.state_dict(), ours.state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(plain_weight(state[key]), plain_weight(theirs[key])) for key in theirs)
    torch.manual_seed(1)
    x, t, context = torch.randn(2, 4, 16, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 77, unet.config.cross_attention_dim)
    more = {}
    if FAMILIES[name].numbers:
        more = {"added_cond_kwargs": {"text_embeds": torch.randn(2, 48), "time_ids": torch.randint(0, 2000, (2, len(FAMILIES[name].numbers)))}}
    assert torch.equal(ours(x, t, context, **more).sample, unet(x, t, context, **more).sample)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_vae_is_diffusers_own(loaded, tensors, name):
    ours, vae = loaded[name].vae, their_vae(tensors[name])
    latent = torch.randn(1, 4, 8, 8)
    assert torch.equal(ours.decode(latent).sample, vae.decode(latent).sample)
    assert ours.config.scaling_factor == FAMILIES[name].latent_scale == (0.13025 if name in ("sdxl", "refiner") else 0.18215)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_text_encoders_are_transformers_own(loaded, tensors, name):
    tokens = torch.tensor([[START, 320, 2368, END] + [0] * 73, [START, 320, END] + [END] * 74])
    for ours, model in zip(loaded[name].text_encoders, their_texts(name, tensors[name]), strict=True):
        got, want = ours(tokens, output_hidden_states=True), model(tokens, output_hidden_states=True)
        assert torch.equal(got.last_hidden_state, want.last_hidden_state)
        assert all(torch.equal(one, other) for one, other in zip(got.hidden_states, want.hidden_states, strict=True))
        if hasattr(want, "text_embeds"):
            assert torch.equal(got.text_embeds, want.text_embeds)


# What the UNet is told


def by_hand(models, tokens, family):
    """The vectors of one chunk without weights, and the pooled one, from transformers' models."""
    padded = [*tokens, *[0] * (77 - len(tokens))]
    ended = [*tokens, *[END] * (77 - len(tokens))]
    if family == "sd1":
        return models[0](torch.tensor([ended])).last_hidden_state, None
    if family == "sd2":
        inner = getattr(models[0], "text_model", models[0])
        return inner.final_layer_norm(models[0](torch.tensor([padded]), output_hidden_states=True).hidden_states[-2]), None
    big = models[-1](torch.tensor([padded]), output_hidden_states=True)
    sides = [models[0](torch.tensor([ended]), output_hidden_states=True).hidden_states[-2]] if family == "sdxl" else []
    return torch.cat([*sides, big.hidden_states[-2]], dim=-1), big.text_embeds


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_text_is_read_by_the_layers_that_the_web_ui_reads(loaded, tensors, name):
    got = encode(["a red cat"], encoders_of(loaded[name]))
    want, pooled = by_hand(their_texts(name, tensors[name]), [START, *Vocabulary().encode("a red cat"), END], name)
    assert torch.equal(got.context, want)
    assert (got.pooled is None) == (pooled is None)
    if pooled is not None:
        assert torch.equal(got.pooled, pooled)


@torch.no_grad()
def test_emphasis_is_of_each_text_encoder_by_itself_and_never_of_the_pooled_text(loaded, tensors):
    got = encode(["a (red:1.5) cat"], encoders_of(loaded["sdxl"]))
    tokens = Vocabulary().encode("a red cat")
    plain, pooled = by_hand(their_texts("sdxl", tensors["sdxl"]), [START, *tokens, END], "sdxl")
    weights = torch.ones(1, 77, 1)
    weights[0, 1 + tokens.index(Vocabulary().encode("red")[0])] = 1.5
    sides = [side * weights * (side.mean() / (side * weights).mean()) for side in plain.split([32, 64], dim=-1)]
    torch.testing.assert_close(got.context, torch.cat(sides, dim=-1))
    assert torch.equal(got.pooled, pooled)


@torch.no_grad()
def test_a_long_prompt_is_pooled_from_its_first_chunk(loaded):
    encoders = encoders_of(loaded["sdxl"])
    first, both = encode(["a cat"], encoders), encode(["a cat BREAK a dog"], encoders)
    assert both.context.shape == (1, 154, 96)
    torch.testing.assert_close(first.pooled, both.pooled)
    torch.testing.assert_close(first.context, both.context[:, :77])


def test_clip_skip_changes_sd_1_only(loaded):
    for name, checkpoint in loaded.items():
        one, two = (encode(["a cat"], encoders_of(checkpoint), clip_skip=skip).context for skip in (1, 2))
        assert torch.equal(one, two) is (name != "sd1")


def test_the_old_emphasis_is_refused_where_the_web_ui_has_none(loaded):
    with pytest.raises(RecipeError, match="old emphasis is of SD 1 only"):
        encode(["(a cat)"], encoders_of(loaded["sdxl"]), old_emphasis=True)


def test_openclip_has_markers_of_its_own_and_reads_html_twice():
    clip, open_clip = Vocabulary(), OpenVocabulary()
    assert open_clip.encode("a Cat,  red") == clip.encode("a Cat,  red")
    assert clip.encode("<|endoftext|>") == [END]
    assert len(open_clip.encode("<|endoftext|>")) > 1
    assert open_clip.encode("<END_OF_TEXT> cat") == [END, *clip.encode("cat")]
    assert open_clip.encode("&amp;amp; cat") == clip.encode("& cat")


def model(checkpoint) -> Model:
    return Model(checkpoint, choose("cpu"))


def test_sdxl_is_told_the_pictures_size_and_its_refiner_a_score(loaded):
    recipe = Recipe(prompt=PROMPT, negative_prompt="bad", width=128, height=64, steps=2)
    told = {}
    for name in ("sdxl", "refiner"):
        texts = model(loaded[name]).texts
        (part,) = texts.positive(recipe)
        told[name] = part.timeline[0].vector[48:].tolist(), texts.negative(recipe)[0].vector[48:].tolist()
    assert told["sdxl"] == ([64.0, 128, 0, 0, 64, 128], [64.0, 128, 0, 0, 64, 128])
    assert told["refiner"] == ([64.0, 128, 0, 0, 6.0], [64.0, 128, 0, 0, 2.5])
    texts = model(loaded["sdxl"]).texts
    assert texts.negative(recipe)[0].vector is not None
    assert texts.negative(replace(recipe, width=64))[0].vector[-1] == 64        # what was encoded for another size is not used again


def test_the_second_pass_of_sdxl_is_told_the_size_before_it_is_cut(loaded, monkeypatch):
    made, told = model(loaded["sdxl"]), []
    timeline = made.texts.timeline
    monkeypatch.setattr(made.texts, "timeline", lambda *args, **more: told.append(timeline(*args, **more)) or told[-1])
    (picture,) = made.generate(Recipe(prompt="a", steps=1, width=64, height=64, hires=Hires(width=128, height=64)))
    assert picture.image.size == (128, 64)
    assert [one[0].vector[48:].tolist() for one in told] == [[64, 64, 0, 0, 64, 64]] * 2 + [[128, 128, 0, 0, 128, 128]] * 2


def test_an_empty_negative_prompt_is_zeros_to_sdxl_only(loaded):
    recipe = Recipe(prompt="", negative_prompt="")
    for name, checkpoint in loaded.items():
        texts = model(checkpoint).texts
        (negative,) = texts.negative(recipe)
        zeros = not negative.context.any()
        assert zeros is (name in ("sdxl", "refiner")), name
        if zeros:
            assert not negative.vector[:48].any()
            assert negative.vector[48:].any()
        assert texts.positive(recipe)[0].timeline[0].context.any()      # the prompt is not: only the negative one
        assert texts.empty(recipe).any()


@torch.no_grad()
def test_the_unet_gets_what_diffusers_would_give_it(loaded, tensors):
    made, unet = model(loaded["sdxl"]), their_unet("sdxl", tensors["sdxl"])
    (part,) = made.texts.positive(Recipe(prompt="a cat", width=64, height=64))
    text = part.timeline[0]
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    numbers = torch.tensor([[64, 64, 0, 0, 64, 64]])
    want = unet(x, t, text.context[None], added_cond_kwargs={"text_embeds": text.vector[None, :48], "time_ids": numbers}).sample
    assert torch.equal(made.predict(x, t, text.context[None], text.vector[None]), want)


# Pictures


@pytest.mark.parametrize("name", FAMILIES)
def test_it_makes_a_picture_with_everything_a_prompt_can_say(loaded, name):
    recipe = Recipe(
        prompt="a cat AND [a dog:a mouse:0.5] :0.7", negative_prompt="bad", steps=3, width=64, height=64, pad_conds="on",
        sampler="Euler", schedule="Align Your Steps",
    )
    one, two = model(loaded[name]).generate(recipe, count=2, batch_size=2)
    assert one.image.size == (64, 64)
    assert len(one.image.getcolors(5000)) > 100
    levels = []
    (again,) = model(loaded[name]).generate(recipe.nth(1), on_step=lambda step: levels.append(round(float(step.sigma), 3)))
    assert levels == [14.615, 0.862 if "SDXL" in FAMILIES[name].name else 1.396, 0.029]     # the published table of its family
    assert max(abs(a - b) for a, b in zip(again.image.tobytes(), two.image.tobytes(), strict=True)) <= 1


def test_more_texts_than_one_call_takes_are_told_their_own_vectors(loaded):
    """Three parts of a prompt, one negative: the UNet is asked twice, and each part with its own vector."""
    seen = []
    made = model(loaded["sdxl"])
    real = made.checkpoint.unet.forward
    made.checkpoint.unet.forward = lambda *args, **more: seen.append(more["added_cond_kwargs"]["text_embeds"].clone()) or real(*args, **more)
    try:
        made.generate(Recipe(prompt="a cat AND a dog AND a mouse " + "long " * 90, negative_prompt="bad", steps=1, width=64, height=64))
    finally:
        del made.checkpoint.unet.forward
    told = torch.cat(seen)
    texts = [made.texts.timeline(text, Recipe(steps=1, width=64, height=64)) for text in ("a cat ", " a dog ")]
    assert len(told) == 4
    for at, text in enumerate(texts):
        assert torch.equal(told[at], text[0].vector[:48])


# How a model was trained


def test_a_file_says_that_it_predicts_v(tmp_path, files):
    assert load_checkpoint(files["sdxl"]).prediction == "epsilon"
    path = changed(write(tmp_path / "v.safetensors", "sdxl", texts=short("sdxl")), lambda table: table | {"v_pred": torch.tensor([])})
    got = load_checkpoint(path)
    assert (got.prediction, got.zero_terminal_snr) == ("v_prediction", False)
    assert load_checkpoint(path, prediction="epsilon").prediction == "epsilon"


def test_zero_terminal_snr_is_a_key_too(tmp_path):
    path = changed(write(tmp_path / "v.safetensors", "sdxl", torch.float16), lambda table: table | {"v_pred": torch.ones(1), "ztsnr": torch.ones(1)})
    got = load_checkpoint(path)
    assert got.zero_terminal_snr
    table, plain = model(got).table(Recipe()), model(load_checkpoint(path)).checkpoint.alphas_cumprod
    assert table.sigma_max == pytest.approx(4518.7, rel=1e-3)       # the web UI's last alpha, 4.9e-8
    assert plain[-1] > 1e-3
    assert model(got).table(Recipe(downcast_alphas=True)).sigma_max == pytest.approx(4518.7, rel=1e-3)      # as old texts say of every model
    assert model(got).generate(Recipe(prompt="a", steps=2, width=64, height=64))[0].image.getcolors(5000)


def test_the_trainers_note_and_the_settings_beside_the_file_are_read(tmp_path):
    half = load_file(write(tmp_path / "a.safetensors", "sd2", torch.float16, texts=short("sd2")))
    noted = tmp_path / "noted.safetensors"
    save_file(half, noted, metadata={"modelspec.prediction_type": "v"})
    assert load_checkpoint(noted).prediction == "v_prediction"
    plain = tmp_path / "plain.safetensors"
    save_file(half, plain)
    assert load_checkpoint(plain).prediction == "epsilon"
    settings = "model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    parameterization: \"v\"\n"
    plain.with_suffix(".yaml").write_text(settings)
    assert load_checkpoint(plain).prediction == "v_prediction"
    plain.with_suffix(".yaml").write_text(settings.replace('"v"', '"eps"'))
    assert load_checkpoint(plain).prediction == "epsilon"


class Answers:
    """A UNet that gives back its input times a number."""

    class config:
        in_channels, cross_attention_dim = 4, 64

    class conv_in:
        weight = torch.zeros(1)

    def __init__(self, times: float) -> None:
        self.times = times

    def __call__(self, x, t, context, return_dict):
        assert (x.shape, float(t), context.shape) == ((1, 4, 8, 8), 999.0, (1, 2, 64))
        assert (x == 0.5).all() and (context == 0.5).all()
        return (x * self.times,)


def test_an_sd_2_model_that_does_not_say_is_asked():
    assert ask(Answers(1.0)) == "epsilon"
    assert ask(Answers(-0.9)) == "epsilon"
    assert ask(Answers(-1.1)) == "v_prediction"


# Models for other work


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize(("channels", "purpose"), [(8, "editing"), (9, "inpainting")])
@torch.no_grad()
def test_unets_that_read_more_than_the_latent(tmp_path, monkeypatch, name, channels, purpose):
    monkeypatch.setattr("nbsd.models.load.ask", None)       # SD 2 for inpainting predicts noise
    path = write(tmp_path / "more.safetensors", name, channels=channels, texts=short(name))
    got = load_checkpoint(path)
    assert (got.family, got.purpose) == (FAMILIES[name], purpose)
    assert family_words(open_weights(path).shapes) == f"{FAMILIES[name].name} {purpose}"
    x, t, context = torch.randn(1, channels, 8, 8), torch.tensor([9.0]), torch.randn(1, 77, sizes(name).context)
    more = {"added_cond_kwargs": {"text_embeds": torch.randn(1, 48), "time_ids": torch.ones(1, 6)}} if name == "sdxl" else {}
    unet = their_unet(name, load_file(path), channels)
    assert torch.equal(got.unet(x, t, context, **more).sample, unet(x, t, context, **more).sample)


def test_another_number_of_channels_is_refused(tmp_path):
    with pytest.raises(ModelError, match="its UNet reads 5 channels .* nbsd knows models that read 4"):
        load_checkpoint(write(tmp_path / "five.safetensors", "sdxl", channels=5, texts=short("sdxl")))


# The public door


def test_load_and_generate_from_the_file_alone(files):
    made = load(files["sdxl"], device="cpu")
    assert repr(made) == "<nbsd model 'sdxl', SDXL, CPU, float32>"
    (picture,) = made.generate(Recipe(prompt="a cat", clip_skip=2, steps=1, width=64, height=64))
    assert "Model: sdxl" in picture.infotext


# LoRAs


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_has_the_names_that_loras_have_for_it(loaded, tensors, name):
    checkpoint = loaded[name]
    known = places(checkpoint.unet, checkpoint.text_encoders, 2, [part.loras for part in checkpoint.text_parts])
    stored = {key.rpartition(".")[0] for key in tensors[name] if key.startswith("model.diffusion_model.")}
    as_ldm = {"lora_unet_" + key.removeprefix("model.diffusion_model.").replace(".", "_") for key in stored}
    assert as_ldm <= known.keys()
    assert len({id(known[spelled].module) for spelled in as_ldm}) == len(as_ldm)
    for number, encoder in enumerate(checkpoint.text_encoders):
        for start in checkpoint.text_parts[number].loras:
            place = known[f"{start}_text_model_encoder_layers_1_mlp_fc1"]
            assert place.part == f"te{number}"
            assert place.module is dict(encoder.named_modules())[place.name]


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
def test_a_lora_changes_both_text_encoders_and_goes_without_a_trace(loaded, files, tmp_path, style):
    names = {
        "kohya": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", "lora_te1_text_model_encoder_layers_0_mlp_fc1",
                  "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        "diffusers": ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                      "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"),
    }[style]
    up, down = ("lora_up", "lora_down") if style == "kohya" else ("lora_B", "lora_A")
    torch.manual_seed(0)
    table = {}
    for name, (outputs, inputs) in zip(names, ((64, 96), (128, 32), (256, 64)), strict=True):
        table |= {f"{name}.{up}.weight": torch.randn(outputs, 2), f"{name}.{down}.weight": torch.randn(2, inputs)}
    save_file(table, tmp_path / "ink.safetensors")
    checkpoint = loaded["sdxl"]
    made = Model(checkpoint, choose("cpu"), networks=Networks(Store([tmp_path])))
    modules = (checkpoint.unet, *checkpoint.text_encoders)
    before = [{key: plain_weight(one).clone() for key, one in module.state_dict().items()} for module in modules]
    recipe = Recipe(prompt="a cat", steps=1, width=64, height=64)
    prepared = made.networks.prepare(checkpoint, replace(recipe, prompt="a cat <lora:ink:0.5>"), lambda _: None)
    with made.with_networks(prepared):
        now = [sum(not torch.equal(plain_weight(one), old[key]) for key, one in module.state_dict().items())
               for module, old in zip(modules, before, strict=True)]
    assert now == [1, 1, 1]
    for module, old in zip(modules, before, strict=True):
        assert all(torch.equal(plain_weight(one), old[key]) for key, one in module.state_dict().items())


# Embeddings


def test_an_embedding_of_sdxl_has_vectors_for_each_text_encoder(loaded, tmp_path):
    both = {"clip_l": torch.ones(2, 32), "clip_g": torch.full((2, 64), 2.0)}
    save_file(both, tmp_path / "ink.safetensors")
    save_file({"emb_params": torch.ones(2, 32)}, tmp_path / "old.safetensors")
    made = Model(loaded["sdxl"], choose("cpu"), [tmp_path])
    texts = made.texts
    got = encode(["a ink cat"], encoders_of(loaded["sdxl"]), embeddings=texts.embeddings).context
    plain = encode(["a ink cat"], encoders_of(loaded["sdxl"])).context
    assert not torch.equal(got[..., :32], plain[..., :32])
    assert not torch.equal(got[..., 32:], plain[..., 32:])
    assert torch.equal(texts.embeddings.of("clip_g")["ink"], both["clip_g"])
    encode(["old"], encoders_of(loaded["sdxl"]), embeddings=texts.embeddings)
    assert "this model has two" in texts.embeddings.left_out["old"]
    small = Model(loaded["sd1"], choose("cpu"), [tmp_path])
    encode(["ink"], encoders_of(loaded["sd1"]), embeddings=small.texts.embeddings)
    assert "is for SDXL" in small.texts.embeddings.left_out["ink"]
