"""models/lora.py: each way of saying a change, worked out by hand for a weight of 4 x 4; every naming finds its layer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nbsd.errors import ModelError
from nbsd.models.lora import (
    ENDINGS,
    Layer,
    Lora,
    fit,
    kohya_name,
    ldm_name,
    left_family,
    places,
    read_lora,
    split_key,
)
from nbsd.models.patch import patched

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
FLAT = torch.zeros(4, 4)
EYE = torch.eye(4)
WEIGHT = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1)


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1)


def number(value: float) -> Tensor:
    return torch.tensor(value)


TWO_UP, TWO_DOWN = torch.cat([column(1, 0, 0, 0), column(0, 1, 0, 0)], 1), torch.cat([row(1, 2, 3, 4), row(0, 0, 0, 10)])
TWO = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 10], [0, 0, 0, 0], [0, 0, 0, 0]])
TURN = torch.tensor([[0.0, 1], [-1, 0]])
QUARTER = torch.stack([torch.tensor([[0.0, 1], [0, 0]]), torch.zeros(2, 2)])     # kept as half of what is skew-symmetric
TURNED = torch.stack([-WEIGHT[1], WEIGHT[0], *WEIGHT[2:]])
EIGHTH = 2**0.5 - 1     # tan(pi / 8): half of an eighth of a turn
PARTLY = torch.stack([(WEIGHT[0] - WEIGHT[1]) * 0.5**0.5, (WEIGHT[0] + WEIGHT[1]) * 0.5**0.5, *WEIGHT[2:]])

ACROSS = torch.stack([WEIGHT[:, 1], -WEIGHT[:, 0], WEIGHT[:, 2], WEIGHT[:, 3]], 1)      # peft turns inputs
HALF_BACK = torch.tensor([[[0.0, -1], [1, 0]], [[0, 0], [0, 0]]])       # of peft's BOFT, whose halves are taken

# name: (the tensors, the weight before, what is added)
BY_HAND = {
    "LoRA of rank 1": ({"up": column(1, 2, 0, 0), "down": row(3, 0, 0, 4)}, FLAT,
                       torch.tensor([[3.0, 0, 0, 4], [6, 0, 0, 8], [0, 0, 0, 0], [0, 0, 0, 0]])),
    "an absent alpha is the rank": ({"up": TWO_UP, "down": TWO_DOWN}, FLAT, TWO),
    "alpha over rank": ({"up": TWO_UP, "down": TWO_DOWN, "alpha": number(1.0)}, FLAT, TWO / 2),
    "a scale of its own": ({"up": TWO_UP, "down": TWO_DOWN, "alpha": number(1.0), "scale": number(3.0)}, FLAT, TWO * 3),
    "a 1x1 convolution": ({"up": TWO_UP[..., None, None], "down": TWO_DOWN[..., None, None]}, FLAT[..., None, None], TWO[..., None, None]),
    "a linear file for a 1x1 convolution": ({"up": TWO_UP, "down": TWO_DOWN}, FLAT[..., None, None], TWO[..., None, None]),
    "LoHa": ({"hada_w1_a": column(1, 2, 3, 4), "hada_w1_b": row(1, 1, 1, 1), "hada_w2_a": column(1, 1, 1, 1), "hada_w2_b": row(1, 0, 0, 5),
              "alpha": number(2.0)}, FLAT, 2 * torch.tensor([[1.0, 0, 0, 5], [2, 0, 0, 10], [3, 0, 0, 15], [4, 0, 0, 20]])),
    "LoKr": ({"lokr_w1": torch.tensor([[1.0, 0], [0, 2]]), "lokr_w2": torch.tensor([[1.0, 2], [3, 4]]), "alpha": number(8.0)}, FLAT,
             torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 0], [0, 0, 2, 4], [0, 0, 6, 8]])),
    "LoKr with a product": ({"lokr_w1": torch.tensor([[1.0, 0], [0, 2]]), "lokr_w2_a": column(1, 3), "lokr_w2_b": row(1, 2),
                             "alpha": number(0.5)}, FLAT,
                            0.5 * torch.tensor([[1.0, 2, 0, 0], [3, 6, 0, 0], [0, 0, 2, 4], [0, 0, 6, 12]])),
    "IA3 by output": ({"factor": torch.tensor([1.0, 0, 0, -1])}, WEIGHT,
                      torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0], [-13, -14, -15, -16]])),
    "IA3 by input": ({"factor": torch.tensor([1.0, 0, 0, 0]), "on_input": torch.tensor(True)}, WEIGHT,
                     torch.tensor([[1.0, 0, 0, 0], [5, 0, 0, 0], [9, 0, 0, 0], [13, 0, 0, 0]])),
    # a quarter turn of the first two outputs, each way that files say it; q = [[0, 1], [-1, 0]] is Cayley's of one
    "OFT": ({"oft_blocks": QUARTER}, WEIGHT, TURNED - WEIGHT),
    "OFT, held to an eighth of a turn": ({"oft_blocks": QUARTER, "alpha": number(2**0.5 * EIGHTH / 4)}, WEIGHT, PARTLY - WEIGHT),
    "OFT, not held": ({"oft_blocks": QUARTER, "alpha": number(0.0)}, WEIGHT, TURNED - WEIGHT),
    "OFT of old, the turns themselves": ({"oft_diag": torch.stack([TURN, torch.eye(2)]), "alpha": number(9.0)}, WEIGHT, TURNED - WEIGHT),
    "OFT with new lengths": ({"oft_blocks": QUARTER, "rescale": column(2, 1, 1, 1)}, WEIGHT, column(2, 1, 1, 1) * TURNED - WEIGHT),
    # its matrices are not transposed; the second round deals the outputs out as 0, 2, 1, 3
    "BOFT, first round": ({"oft_blocks": torch.stack([QUARTER, 0 * QUARTER])}, WEIGHT, torch.stack([WEIGHT[1], -WEIGHT[0], *WEIGHT[2:]]) - WEIGHT),
    "BOFT, second round": ({"oft_blocks": torch.stack([0 * QUARTER, QUARTER])}, WEIGHT,
                           torch.stack([WEIGHT[2], WEIGHT[1], -WEIGHT[0], WEIGHT[3]]) - WEIGHT),
    "peft's OFT": ({"oft_R": column(-1, 0), "terms": torch.tensor(0)}, WEIGHT, ACROSS - WEIGHT),
    "peft's OFT, by a series of two": ({"oft_R": column(0.5, 0), "terms": torch.tensor(2)}, WEIGHT,
                                       torch.stack([WEIGHT[:, 1], -WEIGHT[:, 0], FLAT[0], FLAT[0]], 1)),
    # with q^2 = -1: 1 + 2 q - 2 - 2 q + 1
    "peft's OFT, by a series of five": ({"oft_R": column(1, 0)}, WEIGHT, torch.stack([-WEIGHT[:, 0], -WEIGHT[:, 1], FLAT[0], FLAT[0]], 1)),
    "peft's OFT, one for all blocks": ({"oft_R": column(-1), "terms": torch.tensor(0)}, WEIGHT,
                                       torch.stack([WEIGHT[:, 1], -WEIGHT[:, 0], WEIGHT[:, 3], -WEIGHT[:, 2]], 1) - WEIGHT),
    "peft's BOFT": ({"boft_R": HALF_BACK[None], "boft_s": column(2, 1, 1, 1)}, WEIGHT, column(2, 1, 1, 1) * ACROSS - WEIGHT),
    "peft's BOFT, second round": ({"boft_R": torch.stack([0 * HALF_BACK, HALF_BACK])}, WEIGHT,
                                  torch.stack([WEIGHT[:, 2], WEIGHT[:, 1], -WEIGHT[:, 0], WEIGHT[:, 3]], 1) - WEIGHT),
    # 2 e0 e3^T, and the weight's second column in the first
    "GLoRA": ({"b2": column(2, 0, 0, 0), "b1": row(0, 0, 0, 1), "a2": column(0, 1, 0, 0), "a1": row(1, 0, 0, 0), "alpha": number(5.0)}, WEIGHT,
              torch.tensor([[2.0, 0, 0, 2], [6, 0, 0, 0], [10, 0, 0, 0], [14, 0, 0, 0]])),
    "the change itself": ({"diff": WEIGHT}, FLAT, WEIGHT),
    # diag(2, 3, 1, 1) + e0 e0^T has columns of lengths 3, 3, 1, 1; they become 6, 3, 5, 1
    "DoRA by input": ({"up": column(1, 0, 0, 0), "down": row(1, 0, 0, 0), "dora": row(6, 3, 5, 1)}, torch.diag(torch.tensor([2.0, 3, 1, 1])),
                      torch.diag(torch.tensor([4.0, 0, 4, 0]))),
    # rows (1, 1, 0, 0), (0, 1, 0, 0), ...: the first has the length sqrt 2
    "DoRA by output": ({"up": column(1, 0, 0, 0), "down": row(0, 1, 0, 0), "dora": torch.tensor([2 * 2**0.5, 1, 1, 1])}, EYE,
                       torch.tensor([[1.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])),
}


@pytest.mark.parametrize("given, weight, want", BY_HAND.values(), ids=BY_HAND)
def test_worked_out_by_hand(given, weight, want):
    torch.testing.assert_close(Layer(given).change(weight), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(Layer(given).change(weight, strength=-0.5), want * -0.5, rtol=1e-6, atol=1e-6)
    assert Layer(given).fits(module_of(weight))


def module_of(weight: Tensor) -> nn.Module:
    return nn.Linear(4, 4) if weight.ndim == 2 else nn.Conv2d(4, 4, weight.shape[-1])


@pytest.mark.parametrize("given, weight, want", BY_HAND.values(), ids=BY_HAND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_kind_leaves_the_weight_bit_for_bit_as_it_was(given, weight, want, dtype):
    module = module_of(weight).to(dtype)
    before = {name: one.detach().clone() for name, one in module.named_parameters()}
    with patched(module, {"weight": [partial(Layer(given).change, strength=0.7)] * 2}):
        assert not torch.equal(module.weight, before["weight"])
    assert all(torch.equal(one, before[name]) for name, one in module.named_parameters())


@pytest.mark.parametrize("given, weight, want", BY_HAND.values(), ids=BY_HAND)
def test_half_precision_files_give_the_same(given, weight, want):
    given = {role: one.half() if one.is_floating_point() else one for role, one in given.items()}
    torch.testing.assert_close(Layer(given).change(weight), want, rtol=2e-3, atol=2e-3)


def test_a_3x3_convolution_by_hand():
    down = torch.zeros(1, 4, 3, 3)
    down[0, 2, 1, 1], down[0, 2, 0, 2] = 5, 7
    change = Layer({"up": column(0, 1, 0, 2)[..., None, None], "down": down}).change(torch.zeros(4, 4, 3, 3))
    want = torch.zeros(4, 4, 3, 3)
    want[1, 2, 1, 1], want[1, 2, 0, 2], want[3, 2, 1, 1], want[3, 2, 0, 2] = 5, 7, 10, 14
    assert torch.equal(change, want)


def test_tucker_decompositions_are_sums_over_both_ranks():
    torch.manual_seed(0)
    core, a, b = torch.randn(2, 3, 3, 3), torch.randn(4, 2), torch.randn(3, 5)
    want = torch.zeros(4, 5, 3, 3)
    for r in range(2):
        for s in range(3):
            want += core[r, s] * a[:, r, None, None, None] * b[s, None, :, None, None]
    locon = Layer({"up": a[..., None, None], "mid": core, "down": b[..., None, None]})
    torch.testing.assert_close(locon.change(torch.zeros_like(want)), want)
    loha = Layer({"hada_t1": core, "hada_w1_a": a.T, "hada_w1_b": b, "hada_t2": core, "hada_w2_a": a.T, "hada_w2_b": b})
    torch.testing.assert_close(loha.change(torch.zeros_like(want)), want * want)
    lokr = Layer({"lokr_w1": torch.tensor([[1.0, 2.0]]), "lokr_t2": core, "lokr_w2_a": a.T, "lokr_w2_b": b})
    torch.testing.assert_close(lokr.change(torch.zeros(4, 10, 3, 3)), torch.cat([want, 2 * want], 1))


def test_fewer_ranks_may_be_asked_for():
    given = {"up": TWO_UP, "down": TWO_DOWN, "alpha": number(2.0)}
    assert torch.equal(Layer(given).change(FLAT, ranks=1), torch.cat([TWO[:1], FLAT[1:]]))


def test_a_bias_is_changed_too():
    assert torch.equal(Layer({"bias": torch.tensor([1.0, 2, 3, 4])}).bias_change(torch.zeros(4), 2.0), torch.tensor([2.0, 4, 6, 8]))


FITS = [
    ({"up": TWO_UP, "down": TWO_DOWN}, nn.Linear(4, 4), True),
    ({"up": TWO_UP, "down": TWO_DOWN}, nn.Conv2d(4, 4, 1), True),
    ({"up": TWO_UP, "down": TWO_DOWN}, nn.Conv2d(4, 4, 3), False),
    ({"up": TWO_UP, "down": TWO_DOWN}, nn.Linear(5, 4), False),
    ({"up": TWO_UP, "down": TWO_DOWN}, nn.Linear(2, 8), False),
    ({"up": TWO_UP, "down": TWO_DOWN[:1]}, nn.Linear(4, 4), False),
    ({"diff": torch.ones(4), "bias": torch.ones(4)}, nn.LayerNorm(4), True),
    ({"diff": torch.ones(4, 4), "bias": torch.ones(4)}, nn.Linear(4, 4, bias=False), False),
    ({"bias": torch.ones(4)}, nn.Linear(4, 4), True),
    ({"bias": torch.ones(5)}, nn.Linear(4, 4), False),
    ({"oft_R": torch.ones(2, 1)}, nn.Linear(4, 5), True),
    ({"oft_R": torch.ones(3, 1)}, nn.Linear(4, 5), False),
    ({"oft_R": torch.ones(6, 15)}, nn.Conv2d(4, 5, 3), True),
    ({"boft_R": torch.ones(2, 2, 2, 2), "boft_s": torch.ones(5, 1)}, nn.Linear(4, 5), True),
    ({"boft_R": torch.ones(2, 2, 2, 2), "boft_s": torch.ones(4, 1)}, nn.Linear(4, 5), False),
    ({"factor": torch.ones(4)}, nn.Linear(3, 4), True),
    ({"factor": torch.ones(4)}, nn.Linear(4, 3), False),
]


@pytest.mark.parametrize("given, module, fits", FITS, ids=[f"{'+'.join(given)} {module}" for given, module, _ in FITS])
def test_what_fits_is_seen_by_the_shapes(given, module, fits):
    assert Layer(given).fits(module) is fits


SPELLINGS = [
    ("lora_unet_mid_block_resnets_0_conv1.lora_down.weight", "lora_unet_mid_block_resnets_0_conv1", "down"),
    ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "lora_te_text_model_encoder_layers_0_mlp_fc1", "alpha"),
    ("lora_unet_conv_in.diff_b", "lora_unet_conv_in", "bias"),
    ("lora_unet_conv_in.oft_blocks", "lora_unet_conv_in", "oft_blocks"),
    ("oft_unet_conv_in.oft_blocks", "lora_unet_conv_in", "oft_blocks"),
    ("lora_unet_conv_in.a1.weight", "lora_unet_conv_in", "a1"),
    ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "lora_te2_text_model_encoder_layers_0_mlp_fc1", "up"),
    ("text_encoder_2.text_model.encoder.layers.3.mlp.fc1.lora_linear_layer.down.weight", "lora_te2_text_model_encoder_layers_3_mlp_fc1", "down"),
    ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "lora_unet_mid_block_attentions_0_proj_in", "down"),
    ("unet.mid_block.attentions.0.proj_in.lora.up.weight", "lora_unet_mid_block_attentions_0_proj_in", "up"),
    ("text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.up.weight",
     "lora_te_text_model_encoder_layers_3_self_attn_q_proj", "up"),
    ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
     "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", "down"),
    ("mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
     "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "up"),
    ("base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.default.weight",
     "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "up"),
    ("base_model.model.down_blocks.0.attentions.0.proj_in.oft_R.weight", "lora_unet_down_blocks_0_attentions_0_proj_in", "oft_R"),
    ("base_model.model.conv_in.boft_R", "lora_unet_conv_in", "boft_R"),
    ("base_model.model.text_model.encoder.layers.0.mlp.fc1.boft_s", "lora_te_text_model_encoder_layers_0_mlp_fc1", "boft_s"),
    ("base_model.model.unet.conv_in.lora_magnitude_vector", "lora_unet_conv_in", "dora"),
    ("diffusion_model.middle_block.1.proj_in.lora_up.weight", "lora_unet_middle_block_1_proj_in", "up"),
]


@pytest.mark.parametrize("key, name, role", SPELLINGS, ids=[key for key, _, _ in SPELLINGS])
def test_every_spelling_of_a_key(key, name, role):
    found = split_key(key)
    assert found is not None and (kohya_name(found[0]), found[1]) == (name, role)


def test_an_embedding_that_travels_along_is_no_layer():
    assert split_key("bundle_emb.ink.string_to_param.*") is None


def test_every_ending_is_found_behind_every_prefix():
    for ending, role in ENDINGS.items():
        for name in ("lora_unet_conv_in", "unet.conv_in", "base_model.model.unet.conv_in"):
            found = split_key(f"{name}.{ending}")
            assert found is not None and (kohya_name(found[0]), found[1]) == ("lora_unet_conv_in", role), ending


@pytest.fixture(scope="module")
def tiny():
    from nbsd.models.load import load_checkpoint

    return load_checkpoint(MODELS / "tiny-sd1.safetensors")


@pytest.mark.parametrize("file, layers", [("tiny-lora", 264), ("tiny-locon", 66)])
def test_the_recorded_files_fit_whole(tiny, file, layers):
    matched, left = fit(read_lora(MODELS / f"{file}.safetensors"), places(tiny.unet, tiny.text_encoder))
    assert (len(matched), left) == (layers, [])
    assert len({(place.part, place.name) for place, _ in matched}) == layers


def test_every_layer_of_the_unet_has_the_name_that_the_original_code_gives_it(tiny):
    with_weights = {name: module for name, module in tiny.unet.named_modules() if isinstance(getattr(module, "weight", None), Tensor)}
    stored = {key.removeprefix("model.diffusion_model.").rpartition(".")[0] for key in load_file(MODELS / "tiny-sd1.safetensors")
              if key.startswith("model.diffusion_model.")}
    assert {ldm_name(name, 2) for name in with_weights} == stored


@pytest.fixture(scope="module")
def as_kohya(tiny):
    return fit(read_lora(MODELS / "tiny-lora.safetensors"), places(tiny.unet, tiny.text_encoder))[0]


def respelled(place, role: str, style: str) -> str:
    if style == "processors" and (place.part == "te" or ".ff." in place.name or ".attn" not in place.name):
        style = "peft"      # these files had attention only
    dotted = "unet." + place.name if place.part == "unet" else "text_encoder.text_model." + place.name.removeprefix("text_model.")
    if style == "ldm":
        plain = "lora_unet_" + ldm_name(place.name, 2) if place.part == "unet" else "lora_te_text_model_" + place.name.removeprefix("text_model.")
        return f"{plain.replace('.', '_')}.{ {'up': 'lora_up.weight', 'down': 'lora_down.weight', 'alpha': 'alpha'}[role] }"
    if style == "processors":
        if role == "alpha":
            return f"{dotted}.alpha"
        block, _, layer = dotted.removesuffix(".0").rpartition(".")
        return f"{block}.processor.{layer}_lora.{role}.weight"
    return f"{dotted}.{ {'up': 'lora_B.weight', 'down': 'lora_A.weight', 'alpha': 'alpha'}[role] }"


@pytest.mark.parametrize("style", ["peft", "ldm", "processors"])
def test_other_namings_of_one_file_are_the_same_file(tiny, as_kohya, tmp_path, style):
    save_file({respelled(place, role, style): one.clone() for place, layer in as_kohya for role, one in layer.given.items()},
              tmp_path / "other.safetensors")
    matched, left = fit(read_lora(tmp_path / "other.safetensors"), places(tiny.unet, tiny.text_encoder))
    assert left == []
    known = {place.name: layer for place, layer in matched}
    assert known.keys() == {place.name for place, _ in as_kohya}
    for place, layer in as_kohya[::40]:
        assert torch.equal(known[place.name].change(place.module.weight), layer.change(place.module.weight))


def test_a_file_of_diffusers_first_naming_is_a_lora(tmp_path):
    block = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora"
    save_file({f"{block}.up.weight": TWO_UP.clone(), f"{block}.down.weight": TWO_DOWN.clone()}, tmp_path / "ink.safetensors")
    (layer,) = read_lora(tmp_path / "ink.safetensors").layers.values()
    assert torch.equal(layer.change(FLAT), TWO)


@pytest.mark.parametrize(("settings", "scale", "terms"), [
    ({}, 1.0, 5),
    ({"lora_alpha": 8, "r": 2}, 4.0, 5),
    ({"lora_alpha": 8, "r": 2, "use_rslora": True}, 8 / 2**0.5, 5),
    ({"lora_alpha": "8", "num_cayley_neumann_terms": 7}, 1.0, 7),
    ({"lora_alpha": 2, "r": 2, "use_cayley_neumann": False}, 1.0, 0),
])  # fmt: skip
def test_what_only_pefts_settings_say_is_read_from_them(tmp_path, settings, scale, terms):
    tensors = {"conv_in.lora_A.weight": TWO_DOWN, "conv_in.lora_B.weight": TWO_UP, "conv_out.oft_R.weight": column(1, 0)}
    save_file({f"base_model.model.{key}": one.clone() for key, one in tensors.items()}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    layers = read_lora(tmp_path / "adapter_model.safetensors").layers
    assert layers["lora_unet_conv_in"].scale == pytest.approx(scale) and int(layers["lora_unet_conv_out"].given["terms"]) == terms
    torch.testing.assert_close(layers["lora_unet_conv_in"].change(FLAT), TWO * scale)


def test_a_file_in_pickle_format_is_the_same_file(tmp_path):
    tensors = load_file(MODELS / "tiny-locon.safetensors")
    torch.save({"state_dict": tensors}, tmp_path / "locon.pt")
    assert read_lora(tmp_path / "locon.pt").layers.keys() == read_lora(MODELS / "tiny-locon.safetensors").layers.keys()


REFUSED = {
    "a checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1), "cond_stage_model.transformer.x": torch.zeros(1)},
                     "'bad.safetensors' is no LoRA \\(checkpoint\\)"),
    "halves only": ({"lora_unet_conv_in.lora_up.weight": torch.zeros(2, 2)}, "of a kind that nbsd does not know"),
    "quantised": ({"lora_unet_conv_in.lora_up.weight": torch.zeros(2, 2, dtype=torch.int8)}, "quantised LoRAs are not supported"),
}


@pytest.mark.parametrize("tensors, message", REFUSED.values(), ids=REFUSED)
def test_what_is_no_lora_is_refused_in_a_sentence(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match=message):
        read_lora(tmp_path / "bad.safetensors")


def test_layers_that_are_left_say_whose_they_are():
    two = Layer({"up": torch.zeros(8, 2), "down": torch.zeros(2, 8)})
    wide = Layer({"up": torch.zeros(8, 2), "down": torch.zeros(2, 2048)})
    lora = Lora(Path("a"), "", {"lora_te2_x": two, "lora_unet_x_attn2_to_k": wide, "lora_unet_y": two})
    assert left_family(lora, ["lora_te2_x"]) == "SDXL"
    assert left_family(lora, ["lora_unet_y", "lora_unet_x_attn2_to_k"]) == "SDXL"
    assert left_family(lora, ["lora_unet_y"]) == ""
