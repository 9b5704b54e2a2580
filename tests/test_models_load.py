"""Loading, against what the web UI computes with the same file (family h_rounding), and whole: nothing left over, nothing empty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import maker

from nbsd.errors import ModelError, Stopped, WrongFamilyError
from nbsd.models import families, load
from nbsd.models.keys import DROPS, TEXT, UNET, VAE
from nbsd.models.load import load_checkpoint, load_vae
from nbsd.models.packed import Packed, available, plain_weight
from nbsd.models.weights import open_weights

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data" / "fidelity"
TINY = DATA / "models" / "tiny-sd1.safetensors"
TINY_VAE = DATA / "models" / "tiny-vae.vae.pt"
CLOSE = 1e-5        # absolute; the single parts' tolerance


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(TINY)


@pytest.fixture(scope="module")
def recorded():
    return load_file(DATA / "h_rounding.safetensors")


@pytest.fixture
def tensors():
    return load_file(TINY)


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's tensors in their plain order, whether they are packed or not."""
    return {name: plain_weight(weight) for name, weight in module.state_dict().items()}


def suits(convolution: torch.nn.Conv2d) -> bool:
    return convolution.in_channels % 64 == 0 and convolution.out_channels % 64 == 0


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    left, right = weights_of(one), weights_of(other)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def saved(path: Path, tensors: dict) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


# The web UI's numbers


@pytest.mark.parametrize("case", ["h007", "h009"])
@torch.no_grad()
def test_the_unet_answers_as_the_web_uis_does_also_where_the_size_is_no_multiple_of_64(tiny, recorded, case):
    got = tiny.unet(recorded[f"{case}/x"], recorded[f"{case}/t"], recorded[f"{case}/context"]).sample
    assert (got - recorded[f"{case}/eps"]).abs().max() < CLOSE


@torch.no_grad()
def test_the_vae_decodes_as_the_web_uis_does(tiny, recorded):
    got = tiny.vae.decode(recorded["h004/latent"] / tiny.family.latent_scale).sample
    assert (got - recorded["h004/decoded"]).abs().max() < CLOSE


@torch.no_grad()
def test_the_vae_encodes_as_the_web_uis_does(tiny, recorded):
    got = tiny.vae.encode(recorded["h005/image"] * 2 - 1).latent_dist
    assert (got.mean * tiny.family.latent_scale - recorded["h005/latent_mean"]).abs().max() < CLOSE
    assert (got.logvar - recorded["h005/logvar"]).abs().max() < CLOSE


# What comes out


def test_what_a_checkpoint_says_of_itself(tiny):
    assert (tiny.name, tiny.path, tiny.family, tiny.prediction) == ("tiny-sd1", TINY, families.SD1, "epsilon")
    assert (tiny.hash, tiny.vae_name, tiny.vae_hash) == ("78e7fcdcdf", None, None)
    assert (tiny.alphas_cumprod.shape, tiny.alphas_cumprod.dtype) == ((1000,), torch.float32)


def test_the_modules_are_ready_and_packed(tiny):
    for module in (tiny.unet, tiny.vae, tiny.text_encoder):
        assert not module.training
        assert not any(weight.requires_grad or weight.is_meta or weight.dtype != torch.float32 for weight in module.parameters())
    assert not isinstance(tiny.vae.encoder.conv_in, Packed)         # group norms behind plain ones are more precise
    for module in (tiny.unet, tiny.vae.decoder, tiny.text_encoder):
        layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear) or (isinstance(part, torch.nn.Conv2d) and suits(part))]
        assert layers
        assert all(isinstance(layer, Packed) and layer.weight.is_mkldnn for layer in layers) or not available()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_weights_come_in_the_precision_asked_for(tiny, dtype):
    half = load_checkpoint(TINY, dtype=dtype)
    assert {weight.dtype for part in (half.unet, half.text_encoder) for weight in part.parameters()} == {dtype}
    assert {weight.dtype for weight in half.vae.parameters()} == {torch.float32}
    wanted = weights_of(tiny.unet)
    assert all(torch.equal(weight, wanted[name].to(dtype)) for name, weight in weights_of(half.unet).items())
    assert half.alphas_cumprod.dtype == torch.float32


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_ckpt_is_the_same_model(tiny, tensors, tmp_path, new):
    torch.save({"state_dict": tensors, "global_step": 1}, tmp_path / "tiny.ckpt", _use_new_zipfile_serialization=new)
    got = load_checkpoint(tmp_path / "tiny.ckpt")
    assert same(got.unet, tiny.unet)
    assert same(got.vae, tiny.vae)
    assert same(got.text_encoder, tiny.text_encoder)
    assert torch.equal(got.alphas_cumprod, tiny.alphas_cumprod)


def test_float32_and_bfloat16_files_are_read_too(tiny, tensors, tmp_path):
    wide = load_checkpoint(saved(tmp_path / "f32.safetensors", {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}))
    assert same(wide.unet, tiny.unet)
    brief = load_checkpoint(saved(tmp_path / "bf16.safetensors", {k: t.bfloat16() if k.startswith(UNET) else t for k, t in tensors.items()}))
    assert torch.equal(plain_weight(brief.unet.conv_in.weight), tensors[UNET + "input_blocks.0.0.weight"].bfloat16().float())


def test_progress_counts_every_byte_once_and_may_stop(tensors):
    told: list[tuple[int, int]] = []
    load_checkpoint(TINY, on_progress=lambda *numbers: told.append(numbers))
    used = sum(t.nbytes for k, t in tensors.items() if k.startswith((UNET, VAE, TEXT)) and not k.endswith("position_ids"))
    assert told[-1] == (used, used)
    assert {total for _, total in told} == {used}
    assert [done for done, _ in told] == sorted(done for done, _ in told)

    def stop(done: int, _total: int) -> None:
        if done > 1_000_000:
            raise Stopped

    with pytest.raises(Stopped):
        load_checkpoint(TINY, on_progress=stop)


def test_a_model_can_be_read_as_a_v_prediction_model():
    assert load_checkpoint(TINY, prediction="v_prediction").prediction == "v_prediction"
    with pytest.raises(ModelError, match="predicts 'x0': use one of epsilon, v_prediction"):
        load_checkpoint(TINY, prediction="x0")


# The noise schedule and the position numbers


def test_without_a_schedule_in_the_file_it_is_sd_1s(tiny, tensors, tmp_path):
    got = load_checkpoint(saved(tmp_path / "a.safetensors", {k: t for k, t in tensors.items() if k.startswith((UNET, VAE, TEXT))}))
    assert torch.equal(got.alphas_cumprod, tiny.alphas_cumprod)
    first, last = got.alphas_cumprod[[0, -1]].double().tolist()
    assert first == pytest.approx(1 - 0.00085, rel=1e-6)
    assert ((1 - last) / last) ** 0.5 == pytest.approx(14.614643, rel=1e-6)     # the largest sigma, as the web UI has it


def test_a_schedule_in_the_file_is_used(tensors, tmp_path):
    tensors["alphas_cumprod"] = torch.linspace(0.9, 0.1, 1000).half()
    got = load_checkpoint(saved(tmp_path / "a.safetensors", tensors)).alphas_cumprod
    assert torch.equal(got, tensors["alphas_cumprod"].float())
    tensors["alphas_cumprod"] = torch.ones(999)
    with pytest.raises(ModelError, match=r"alphas_cumprod of shape \[999\]"):
        load_checkpoint(saved(tmp_path / "b.safetensors", tensors))


def test_position_numbers_that_a_merge_broke_are_used_as_the_web_ui_uses_them(tensors, tmp_path):
    key = TEXT + "text_model.embeddings.position_ids"

    def positions(numbers: torch.Tensor) -> list[int]:
        encoder = load_checkpoint(saved(tmp_path / "a.safetensors", {**tensors, key: numbers})).text_encoder
        return next(part.position_ids for part in encoder.modules() if "position_ids" in part._buffers).tolist()[0]

    numbers = torch.arange(77.0)[None]
    assert positions(numbers) == list(range(77))
    numbers[0, 41] = 40.99
    assert positions(numbers)[40:43] == [40, 40, 42]
    numbers[0, 0] = 77
    with pytest.raises(ModelError, match="in an impossible way"):
        positions(numbers)


# VAEs


def test_another_vae_takes_the_place_of_the_models_own(tiny, tensors, tmp_path):
    got = load_checkpoint(TINY, vae=TINY_VAE)
    assert (got.vae_name, got.vae_hash) == ("tiny-vae.vae.pt", "50f3ff3583")
    assert same(got.unet, tiny.unet)
    assert not same(got.vae, tiny.vae)
    weights = torch.load(TINY_VAE, weights_only=True)["state_dict"]
    assert torch.equal(plain_weight(got.vae.encoder.conv_in.weight), weights["encoder.conv_in.weight"].float())
    # The same one in the other spellings, and a whole checkpoint as the source of a VAE.
    prefixed = saved(tmp_path / "p.safetensors", {VAE + key: tensor for key, tensor in weights.items() if tensor.ndim})
    assert same(load_vae(prefixed, families.SD1, "cpu", torch.float32), got.vae)
    bare = saved(tmp_path / "b.safetensors", {key: tensor for key, tensor in weights.items() if not key.startswith(("loss", "model_ema"))})
    assert same(load_vae(bare, families.SD1, "cpu", torch.float32), got.vae)
    assert same(load_vae(TINY, families.SD1, "cpu", torch.float32), tiny.vae)


def test_what_has_no_vae_is_no_vae(tensors, tmp_path):
    bare = saved(tmp_path / "bare.safetensors", {k: t for k, t in tensors.items() if not k.startswith(VAE)})
    with pytest.raises(ModelError, match=r"'bare\.safetensors' has no VAE in it: pick a VAE file"):
        load_checkpoint(bare)
    assert load_checkpoint(bare, vae=TINY_VAE).vae_name == "tiny-vae.vae.pt"
    lora = saved(tmp_path / "lora.safetensors", {"lora_unet_mid.lora_down.weight": torch.ones(2, 2)})
    with pytest.raises(WrongFamilyError, match="chosen as VAE and is of another kind .LoRA."):
        load_checkpoint(TINY, vae=lora)
    strange = saved(tmp_path / "strange.safetensors", {"a": torch.ones(2, 2)})
    with pytest.raises(WrongFamilyError, match="of no kind that nbsd knows"):
        load_checkpoint(TINY, vae=strange)


# Nothing left over, nothing empty


def test_every_drop_has_its_reason_and_useless_tensors_do_no_harm(tiny, tensors, tmp_path):
    assert all(drop.reason for drop in DROPS)
    more = {
        "model_ema.decay": torch.ones(1), "model_ema.diffusion_modelinput_blocks00weight": torch.ones(3), "lvlb_weights": torch.ones(1000),
        "logvar": torch.ones(1000), "first_stage_model.loss.logvar": torch.ones(1), TEXT + "text_projection.weight": torch.ones(48, 48),
        TEXT + "vision_model.embeddings.class_embedding": torch.ones(8), "cond_stage_model.logit_scale": torch.ones(1),
        "denoiser.sigmas": torch.ones(1000), "embedding_manager.x": torch.ones(1), "scale_factor": torch.ones(1),
    }  # fmt: skip
    got = load_checkpoint(saved(tmp_path / "a.safetensors", {**tensors, **more}))
    assert same(got.unet, tiny.unet)
    assert same(got.text_encoder, tiny.text_encoder)


def test_text_encoders_of_older_files_lack_a_part_of_their_names(tiny, tensors, tmp_path):
    older = {key.replace("transformer.text_model.", "transformer."): tensor for key, tensor in tensors.items()}
    assert same(load_checkpoint(saved(tmp_path / "a.safetensors", older)).text_encoder, tiny.text_encoder)


def test_the_vaes_attention_may_be_stored_as_the_linear_layers_it_is(tiny, tensors, tmp_path):
    linear = {key: tensor[:, :, 0, 0] if ".mid.attn_1." in key and tensor.ndim == 4 else tensor for key, tensor in tensors.items()}
    assert same(load_checkpoint(saved(tmp_path / "a.safetensors", linear)).vae, tiny.vae)


CHANGES = {
    "strangers": (lambda t: t | {f"other.{n}": torch.ones(1) for n in range(5)}, r"5 tensors that have no place in a model of SD 1, e\.g\. other\.0, other\.1, other\.2:"),
    "a stranger in the UNet": (lambda t: t | {UNET + "label_emb.0.0.weight": torch.ones(1)}, r"1 tensors that have no place in the UNet.*label_emb"),
    "a stranger in a block": (lambda t: t | {UNET + "input_blocks.1.1.transformer_blocks.0.attn3.to_k.weight": torch.ones(1)}, "1 tensors .* in the UNet.*attn3"),
    "a stranger in the VAE": (lambda t: t | {VAE + "encoder.extra": torch.ones(1)}, "1 tensors that have no place in the VAE"),
    "a stranger in the text encoder": (lambda t: t | {TEXT + "text_model.more.weight": torch.ones(1)}, "1 tensors .* the text encoder"),
    "one missing": (lambda t: without(t, UNET + "out.2.bias"), r"lacks 1 tensors of the UNet, e\.g\. conv_out\.bias"),
    "a layer missing": (lambda t: without(t, "text_model.encoder.layers.5."), "tensors that have no place in the text encoder|lacks"),
    "the first missing": (lambda t: without(t, UNET + "input_blocks.0.0.bias"), "lacks 1 tensors of the UNet"),
    "the VAE's middle missing": (lambda t: without(t, VAE + "decoder.mid."), "lacks 26 tensors of the VAE"),
    "the VAE's start missing": (lambda t: without(t, VAE + "encoder.conv_in"), "cannot be used: .*encoder.conv_in.weight is missing"),
    "another shape": (lambda t: t | {UNET + "out.2.bias": torch.ones(5)}, r"1 tensors of unexpected shape in the UNet, e\.g\. .*out\.2\.bias \[5\]"),
    "a width that no norm takes": (lambda t: t | {UNET + "input_blocks.1.0.out_layers.3.weight": torch.ones(33, 32, 3, 3)}, "widths .33, 64"),
    "a size of 0": (lambda t: t | {UNET + "input_blocks.0.0.weight": torch.ones(0, 4, 3, 3)}, r"has the shape \[0, 4, 3, 3\]"),
    "another rank": (lambda t: t | {TEXT + "text_model.embeddings.token_embedding.weight": torch.ones(48)}, r"has the shape \[48\]"),
    "whole numbers": (lambda t: {k: v.to(torch.int8) if k.startswith(UNET) else v for k, v in t.items()}, "weights of type I8 .686 tensors, e.g.*float16"),
    "bytes": (lambda t: t | {TEXT + "text_model.final_layer_norm.bias": torch.ones(48, dtype=torch.uint8)}, "weights of type U8 .1 tensors"),
    "another text width": (lambda t: {k: v[:, :32].contiguous() if "attn2.to_k" in k or "attn2.to_v" in k else v for k, v in t.items()}, "its UNet wants texts 32 wide, its text encoder makes 48"),
}  # fmt: skip


def without(tensors: dict, part: str) -> dict:
    return {key: tensor for key, tensor in tensors.items() if part not in key}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_does_not_fit_is_refused_with_examples_before_it_is_read(tensors, tmp_path, name, monkeypatch):
    change, says = CHANGES[name]
    path = saved(tmp_path / "model.safetensors", change(tensors))
    monkeypatch.setattr(load, "fill_all", lambda *_: pytest.fail("tensors were read"))
    with pytest.raises(ModelError, match=says) as caught:
        load_checkpoint(path)
    assert "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_ends_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(TINY.read_bytes())
    real = load.fill_all

    def cut(*arguments):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        return real(*arguments)

    monkeypatch.setattr(load, "fill_all", cut)
    with pytest.raises(ModelError, match="ended while it was read"):
        load_checkpoint(path)


# Other widths


def test_the_maker_of_checkpoints_makes_the_keys_that_real_ones_have():
    make = maker()
    keys = set(make.own_rows()) | set(make.fixed_tensors())
    assert keys == set(open_weights(TINY).tensors)


@pytest.mark.parametrize("widths, context, vae, heads", [
    ((32, 32, 64, 64), 64, (32, 32, 32, 64), 1), ((64, 32, 32, 128), 192, (64, 64, 32, 32), 3), ((32, 64, 32, 32), 20, (32, 32, 64, 32), 4),
])  # fmt: skip
@torch.no_grad()
def test_a_model_of_any_width_is_read_by_its_shapes(tmp_path, widths, context, vae, heads):
    make = maker()
    texts = (make.TextSizes("cond_stage_model.transformer.text_model", context, 3, words=50),)
    sizes = make.Sizes(texts, widths, (1, 1, 1, 0), 1, context, linear=False, vae=vae)
    path = tmp_path / "a.safetensors"
    make.write(path, make.own_rows(sizes), torch.float16, sizes)
    model = load_checkpoint(path)
    assert model.unet.config.block_out_channels == widths
    assert model.vae.config.block_out_channels == vae
    config = model.text_encoder.config
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (context, heads, 3)
    text = model.text_encoder(torch.zeros(1, 77, dtype=torch.int64)).last_hidden_state
    latent = model.unet(torch.randn(1, 4, 16, 16), torch.tensor([1.0]), text).sample
    assert model.vae.decode(latent).sample.shape == (1, 3, 128, 128)
    assert latent.isfinite().all()


# Weight of import


def test_finding_out_what_a_file_is_needs_no_torch():
    code = (
        "import sys; from nbsd.models import detect, hashes, store, torchfile; from nbsd.models.weights import open_weights;"
        f"detect.checkpoint_family(open_weights({str(TINY)!r})); detect.kind_of(open_weights({str(TINY_VAE)!r}));"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
