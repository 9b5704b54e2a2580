"""What a file is: by its bytes and its tensors, and each refusal in one sentence that says what it is and what to do."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbsd.errors import ModelError, UnknownModelError, WrongFamilyError
from nbsd.models import detect, families
from nbsd.models.detect import UNET, checkpoint_family, family_of, kind_of
from nbsd.models.weights import open_weights

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
TINY = MODELS / "tiny-sd1.safetensors"
KEY_ATTENTION = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def framed(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: int = 0, end: int = 8, shape: object = (2,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape if isinstance(shape, str) else list(shape), "data_offsets": [start, end]}


def written(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F16", size: int = 2) -> Path:
    """A safetensors file of zeros."""
    header, at = {}, 0
    for key, shape in shapes.items():
        length = size * torch.Size(shape).numel()
        header[key] = entry(at, at + length, shape, dtype)
        at += length
    path.write_bytes(framed(header, bytes(at)))
    return path


# Files that are no model files at all

NO_MODEL_FILES = {
    "empty.safetensors": (b"", "is empty"),
    "pointer.safetensors": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4265146304\n", r"Git LFS pointer .*4265146304 bytes"
    ),
    "half-a-pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid size", "Git LFS pointer"),
    "page.safetensors": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "is a web page"),
    "page.ckpt": (b"\xef\xbb\xbf\n  <HTML lang=en>", "is a web page"),
    "denied.safetensors": (b'{"error":"Unauthorized","message":"The creator of this asset requires you to be logged in"}', "error message.*Unauth"),
    "gated.safetensors": (b"Access to model a/b is restricted.", "error message of the site"),
    "packed.safetensors": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z archive"),
    "packed.ckpt": (b"Rar!\x1a\x07" + bytes(99), "RAR archive"),
    "packed.pt": (b"\x1f\x8b\x08" + bytes(99), "gzip archive"),
    "picture.safetensors": (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG picture"),
    "quantised.safetensors": (b"GGUF\x03" + bytes(99), "GGUF"),
    "text.ckpt": (b"hello, this is no model", "neither safetensors nor a torch checkpoint"),
    "zeros.safetensors": (bytes(1000), "damaged: its header is no JSON"),
    "short.safetensors": (b"\x10\0\0", "neither safetensors"),
    "noise.safetensors": (bytes(range(7, 251)) * 4, "neither safetensors"),
    "half-a-zip.ckpt": (b"PK\x03\x04" + bytes(50), "cut off or damaged"),
    "half-a-pickle.ckpt": (b"\x80\x02}", "damaged"),
}


@pytest.mark.parametrize("name", NO_MODEL_FILES)
def test_what_is_no_model_file_is_said_in_one_sentence(tmp_path, name):
    content, says = NO_MODEL_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        open_weights(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_no_torch_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.safetensors", "w") as archive:
        archive.writestr("model/readme.txt", "x")
    with pytest.raises(ModelError, match=r"zip archive and no torch file .*readme\.txt"):
        open_weights(tmp_path / "a.safetensors")


def test_a_folder_a_missing_file_and_a_pipe(tmp_path):
    (tmp_path / "anything-v3.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a folder"):
        open_weights(tmp_path)
    with pytest.raises(ModelError, match=r"no file 'anything-v4\.ckpt' in .*Did you mean 'anything-v3\.safetensors'"):
        open_weights(tmp_path / "anything-v4.ckpt")
    with pytest.raises(ModelError, match="the folder .* does not exist"):
        open_weights(tmp_path / "none" / "a.ckpt")
    with pytest.raises(ModelError, match="cannot be read"):
        open_weights(tmp_path / ("long" * 200))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="a device or a pipe"):
        open_weights(tmp_path / "pipe")


# Headers that do not fit the file

LIES = {
    "cut off in the tensors": (framed({"a": entry()}, bytes(7)), "cut off: its header promises"),
    "cut off in the header": (framed({"a": entry()})[:20], "cut off: its header alone"),
    "more than it says": (framed({"a": entry()}, bytes(9)), "1 bytes more than its header says"),
    "beyond the file": (framed({"a": entry(0, 2**62, (2**60,))}, bytes(8)), "cut off"),
    "beyond all numbers": (framed({"a": entry(0, 2**80, (2**78,))}, bytes(8)), "cut off"),
    "an absurd header": ((2**60).to_bytes(8, "little") + b"{}", "claims a header of"),
    "a long header": ((200_000_000).to_bytes(8, "little") + b"{}", "claims a header of"),
    "overlapping": (framed({"a": entry(), "b": entry(4, 12)}, bytes(12)), "b overlaps a"),
    "the same place twice": (framed({"a": entry(), "b": entry()}, bytes(8)), "overlaps"),
    "a hole": (framed({"a": entry(), "b": entry(12, 20)}, bytes(20)), "leaves a hole"),
    "backwards": (framed({"a": entry(8, 0)}, bytes(8)), "shape"),
    "a negative offset": (framed({"a": entry(-8, 0)}, bytes(8)), "whole numbers"),
    "a negative size": (framed({"a": entry(shape=(-2, -1))}, bytes(8)), "whole numbers"),
    "another size": (framed({"a": entry(shape=(3,))}, bytes(8)), "its shape"),
    "sizes that are texts": (framed({"a": entry(shape=("2",))}, bytes(8)), "whole numbers"),
    "sizes that are fractions": (framed({"a": entry(shape=(2.0,))}, bytes(8)), "whole numbers"),
    "sizes that are true": (framed({"a": entry(shape=(True, 2))}, bytes(8)), "whole numbers"),
    "an unknown type": (framed({"a": entry(dtype="F4")}, bytes(8)), "type 'F4'"),
    "a type that is none": (framed({"a": entry(dtype=None)}, bytes(8)), "type 'None'"),
    "no offsets": (framed({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "incomplete"),
    "a list": (framed([1, 2]), "no table of tensors|no model file"),
    "no JSON": (framed(b"{a: 1}"), "no JSON"),
    "no text": (framed(b"{\xff\xfe}"), "no JSON"),
    "a name twice": (framed(b'{"a": 1, "a": 2}'), "twice"),
    "depth": (framed(b'{"a":' + b"[" * 100_000), "no JSON"),
    "metadata that is a number": (framed({"__metadata__": 3}), "__metadata__"),
    "a number with ten thousand digits": (framed(b'{"a": ' + b"9" * 10_000 + b"}"), "damaged"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(tmp_path, name):
    content, says = LIES[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        open_weights(path)
    assert "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_headers_that_are_right_pass(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(framed({"__metadata__": {"x": "y"}, "b": entry(8, 16), "a": entry(), "none": entry(16, 16, (0, 3))}, bytes(16)))
    weights = open_weights(path)
    assert weights.shapes == {"a": (2,), "b": (2,), "none": (0, 3)}
    assert weights.metadata == {"x": "y"}


@pytest.mark.parametrize("low", [b"PK", b"\x1f\x8b", b"\x80\x02", b"\x80\x04", b"7z", b"<!"])
def test_a_header_whose_length_looks_like_another_files_start(tmp_path, low):
    """The length's two low bytes can be any: in one file of 65,536 they are those of a zip archive."""
    header = json.dumps({"a": entry()}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(framed(header + b" " * (int.from_bytes(low, "little") - len(header)), bytes(8)))
    assert path.read_bytes()[:2] == low
    assert open_weights(path).shapes == {"a": (2,)}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999999])
def test_the_tiny_model_cut_off_anywhere(tmp_path, share):
    whole = TINY.read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:max(1, int(len(whole) * share))])
    with pytest.raises(ModelError):
        open_weights(tmp_path / "a.safetensors")


# Kinds and families

ATTN2 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SD = {UNET + "input_blocks.0.0.weight": (32, 4, 3, 3), UNET + KEY_ATTENTION: (32, 48), UNET + "middle_block.1.proj_in.weight": (32, 32, 1, 1),
      UNET + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (32, 48)}
XL = {UNET + "input_blocks.0.0.weight": (32, 4, 3, 3), UNET + "label_emb.0.0.weight": (128, 96), "conditioner.embedders.0.x": (1,)}
CLIP = {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (9, 48)}
OTHERS = {
    "lora-1": ({f"{ATTN2}.lora_down.weight": (4, 768), f"{ATTN2}.lora_up.weight": (320, 4)}, "lora", "a LoRA for SD 1, not a model.*<lora:lora-1:1>"),
    "lora-2": ({f"{ATTN2}.lora_down.weight": (4, 1024)}, "lora", "a LoRA for SD 2"),
    "lora-xl": ({f"{ATTN2}.lora_down.weight": (4, 2048)}, "lora", "a LoRA for SDXL"),
    "lora-te": ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": ()}, "lora", "a LoRA for SDXL"),
    "lora-te-1": ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": ()}, "lora", "is a LoRA, not a model"),    # SD 1's or SDXL's
    "lora-up-first": ({f"{ATTN2}.lora_up.weight": (320, 4), f"{ATTN2}.lora_down.weight": (4, 768)}, "lora", "a LoRA for SD 1"),
    "lora-rank-768": ({f"{ATTN2}.lora_up.weight": (320, 768), f"{ATTN2}.lora_down.weight": (768, 2048)}, "lora", "a LoRA for SDXL, "),
    "lora-te-2": ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1024)}, "lora", "a LoRA for SD 2"),
    "lora-sd3": ({"lora_unet_joint_blocks_0_context_block_mlp_fc1.lora_down.weight": (4, 1536)}, "lora", "a LoRA for SD 3"),
    "loha-1": ({f"{ATTN2}.hada_w1_a": (320, 4), f"{ATTN2}.hada_w1_b": (4, 768)}, "lora", "a LoRA for SD 1"),
    "oft": ({"oft_unet_mid_block_attentions_0_proj_in.oft_blocks": (4, 8, 8)}, "lora", "is a LoRA, not a model"),
    "lora-flux": ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 3072)}, "lora", "a LoRA for Flux"),
    "lora-peft": ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)}, "lora", "a LoRA for SD 1"),
    "loha": ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (8, 8)}, "lora", "is a LoRA, not a model"),
    "vae": ({"encoder.conv_in.weight": (32, 3, 3, 3), "decoder.up.0.block.0.conv1.weight": (32, 32, 3, 3)}, "vae", "a VAE alone"),
    "vae-2": ({"first_stage_model.decoder.conv_in.weight": (32, 4, 3, 3)}, "vae", "a VAE alone"),
    "vae-3": ({"decoder.up_blocks.0.resnets.0.conv1.weight": (32, 32, 3, 3)}, "vae", "a VAE alone"),
    "embed": ({"emb_params": (2, 768)}, "embedding", "an embedding, not a model.*name, embed,"),
    "embed-xl": ({"clip_g": (2, 1280), "clip_l": (2, 768)}, "embedding", "an embedding"),
    "control": ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "controlnet", "a ControlNet"),
    "control-2": ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), "down_blocks.0.x": (1,)}, "controlnet", "a ControlNet"),
    "upscaler": ({"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}, "upscaler", "an upscaler"),
    "part": ({"down_blocks.0.resnets.0.conv1.weight": (32, 32, 3, 3)}, "part", "one part of a model"),
    "text": ({"text_model.embeddings.token_embedding.weight": (9, 768)}, "text encoder", "a text encoder alone"),
    "averages": ({"model_ema.diffusion_modelinput_blocks00weight": (1,), **CLIP}, "averages", "running averages"),
    "depth": ({**SD, **CLIP, "depth_model.x": (1,)}, "checkpoint", "family SD 2 depth,"),
    "unclip": ({**SD, **CLIP, UNET + "label_emb.0.0.weight": (9, 9)}, "checkpoint", "family SD 2 unCLIP,"),
    "upscaler-4": ({**SD, **CLIP, UNET + "label_emb.weight": (1000, 9)}, "checkpoint", "family SD x4 upscaler,"),
    "alt": ({**SD, "cond_stage_model.roberta.x": (1,)}, "checkpoint", "family AltDiffusion,"),
    "distilled": (XL, "checkpoint", "family distilled SDXL"),
    "playground": ({**XL, UNET + "middle_block.1.norm.weight": (9,), "edm_mean": (1,)}, "checkpoint", "family Playground v2.5,"),
    "sd3": ({UNET + "joint_blocks.0.context_block.attn.proj.weight": (1,)}, "unet", "family SD 3,"),
    "sd3-bare": ({"joint_blocks.0.context_block.attn.proj.weight": (1,)}, "unet", "family SD 3,"),
    "flux": ({"double_blocks.0.img_attn.proj.weight": (1,)}, "unet", "family Flux,"),
    "chroma": ({"distilled_guidance_layer.in_proj.bias": (1,), "double_blocks.0.x": (1,)}, "unet", "family Chroma,"),
    "pixart": ({"t_block.1.weight": (1,), "blocks.0.x": (1,)}, "unet", "family PixArt,"),
    "aura": ({UNET + "double_layers.0.attn.w2q.weight": (1,)}, "unet", "family AuraFlow,"),
    "lumina": ({"cap_embedder.0.weight": (1,)}, "unet", "family Lumina,"),
    "wan": ({"head.modulation": (1,)}, "unet", "family Wan,"),
    "qwen": ({"transformer_blocks.0.img_mlp.net.0.proj.weight": (1,)}, "unet", "family Qwen-Image,"),
    "hunyuan": ({"txt_in.individual_token_refiner.blocks.0.x": (1,)}, "unet", "family Hunyuan,"),
    "video": ({**SD, UNET + "input_blocks.1.0.time_stack.x": (1,), "conditioner.embedders.0.x": (1,)}, "checkpoint", "family Stable Video"),
    "cascade": ({"down_blocks.0.0.channelwise.0.weight": (1,)}, "unet", "family Stable Cascade,"),
    "five": ({**SD, **CLIP, UNET + "input_blocks.0.0.weight": (32, 5, 3, 3)}, "checkpoint", "its UNet reads 5 channels"),
    "flat": ({**SD, **CLIP, UNET + "input_blocks.0.0.weight": (32,)}, "checkpoint", "for SD 1: .*input_blocks.0.0.weight with 4 dimensions where it has 1"),
    "strange": ({"layer.one": (1,), "layer.two": (2,)}, "unknown", "of no known model family.*for SD 1.*has 2 tensors, e.g. layer.one, layer.two"),
    "nothing": ({}, "unknown", "of no known model family.*0 tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_sd_1_model_is_refused_by_its_name(tmp_path, name):
    shapes, kind, says = OTHERS[name]
    weights = open_weights(written(tmp_path / f"{name}.safetensors", shapes))
    assert kind_of(weights) == kind
    with pytest.raises((UnknownModelError, WrongFamilyError), match=says) as caught:
        checkpoint_family(weights)
    text = str(caught.value)
    assert text.startswith(f"'{name}.safetensors'")
    assert "\n" not in text


def test_the_tiny_model_is_of_sd_1_and_no_other_row_takes_it():
    weights = open_weights(TINY)
    assert kind_of(weights) == detect.CHECKPOINT
    assert checkpoint_family(weights) is families.SD1
    fits = [row.family for row in detect.ROWS if not any(detect.why_not(weights.shapes, fact) for fact in row.facts)]
    assert fits == [families.SD1]


def test_without_the_text_models_prefix_it_is_still_sd_1():
    shapes = {key.replace("transformer.text_model.", "transformer."): shape for key, shape in open_weights(TINY).shapes.items()}
    assert family_of(shapes) is families.SD1


@pytest.mark.parametrize("name, kind", [("tiny-vae.vae.pt", "vae"), ("tiny-embed.pt", "embedding"), ("tiny-neg.safetensors", "embedding")])
def test_kinds_of_the_web_uis_files(name, kind):
    assert kind_of(open_weights(MODELS / name)) == kind


@pytest.mark.parametrize("modules", [
    {48: ({"linear.0.weight": torch.ones(2, 2)}, {"linear.0.weight": torch.ones(2, 2)}), "step": 10, "name": "h"},
    {320: ({"linear1.weight": torch.ones(2, 2)}, {"linear1.weight": torch.ones(2, 2)})},
])  # fmt: skip
def test_a_hypernetwork_is_known_by_its_table_of_widths(tmp_path, modules):
    torch.save(modules, tmp_path / "h.pt")
    weights = open_weights(tmp_path / "h.pt")
    assert kind_of(weights) == detect.HYPERNETWORK
    with pytest.raises(WrongFamilyError, match="<hypernet:h:1>"):
        checkpoint_family(weights)


def test_every_kind_that_a_file_can_be_has_its_sentence():
    assert {kind.name for kind in detect.KINDS} | {detect.HYPERNETWORK} == set(detect.NOT_A_MODEL) | {detect.CHECKPOINT}


# Any bytes at all


@example(b"\x0c\0\0\0\0\0\0\0 {\"\\n\":null}")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=100).map(lambda data: b"PK\x03\x04" + data),
    st.binary(max_size=100).map(lambda data: b"\x80\x02" + data),
    st.builds(framed, st.binary(max_size=60).map(lambda data: b"{" + data), st.binary(max_size=20)),
    st.builds(framed, st.dictionaries(st.text(max_size=3), st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
        lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"dtype": inner, "shape": inner, "data_offsets": inner}),
    ), max_size=3), st.binary(max_size=20)),
    st.builds(framed, st.dictionaries(st.text(max_size=3), st.builds(
        entry, st.integers(-1, 20), st.integers(-1, 20), st.lists(st.integers(-1, 5), max_size=3), st.sampled_from(["F32", "U8", "F16", "X"]),
    ), max_size=4), st.binary(max_size=20)),
))  # fmt: skip
def test_any_bytes_are_a_model_file_or_a_sentence(tmp_path, content):
    path = tmp_path / "any.safetensors"
    path.write_bytes(content)
    try:
        weights = open_weights(path)
        assert all(stored.start + stored.nbytes <= len(content) for stored in weights.tensors.values())
        checkpoint_family(weights)
    except ModelError as error:
        assert "any.safetensors" in str(error)
        assert "\n" not in str(error)
