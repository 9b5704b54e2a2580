"""From the names of tensors in a single-file checkpoint to those of diffusers' and transformers' modules.

Left: the layout of CompVis/stable-diffusion, which every single-file checkpoint has. Right: the modules' own. A rule is a pattern
and what stands in its place; the first that fits wins. A name that fits none is an error, and so is a place that stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import NamedTuple

from nbsd.errors import ModelError
from nbsd.models.weights import ITEM_SIZES, Stored

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


class Drop(NamedTuple):
    """Tensors that are left out, and why."""

    pattern: str        # matched at the start of the key
    reason: str


# Of a whole checkpoint.
DROPS: tuple[Drop, ...] = (
    Drop(r"model_ema\.", "the running average of the weights, for going on with the training; the weights themselves are used"),
    Drop(r"betas$|alphas_cumprod_prev$|sqrt_|log_one_minus_alphas_cumprod$|posterior_|lvlb_weights$|logvar$", "follow from alphas_cumprod"),
    Drop(r"alphas_cumprod$", "read apart: it is no weight of a module"),
    Drop(r"denoiser\.", "the noise schedule as another trainer keeps it; follows from alphas_cumprod"),
    Drop(r"scale_factor$", "a constant of the family"),
    Drop(r"first_stage_model\.(loss|model_ema)\.", "the VAE's training"),
    Drop(r"cond_stage_model\.transformer\.(vision_model|visual_projection)\.", "CLIP's eye; pictures are not looked at"),
    Drop(r"cond_stage_model\.((transformer|model)\.)?(logit_scale|text_projection)", "compares texts with pictures; not used by SD 1 and 2"),
    Drop(r"conditioner\.embedders\.\d+\.((transformer|model)\.)?logit_scale$", "compares texts with pictures"),
    Drop(r"conditioner\.embedders\.0\.(transformer\.)?text_projection", "of SDXL's first text encoder; only the second's is used"),
    Drop(r"(cond_stage_model|conditioner\.embedders\.\d+)\.transformer\.(text_model\.)?embeddings\.position_ids$", "read apart: no weights"),
    Drop(r"(cond_stage_model|conditioner\.embedders\.\d+)\.model\.attn_mask$", "a constant"),
    Drop(r"(v_pred|ztsnr)$", "say how the model was trained; read apart"),
    Drop(r"embedding_manager\.", "an embedding that was in training"),
)
# Of a text encoder's file in transformers' layout.
TEXT_DROPS: tuple[Drop, ...] = (
    Drop(r"(text_model\.)?embeddings\.position_ids$", "numbers from 0 on, no weights"),
    Drop(r"(vision_model|visual_projection)\.|logit_scale$", "CLIP's eye; pictures are not looked at"),
)
# Of a VAE file.
VAE_DROPS: tuple[Drop, ...] = (
    Drop(r"(loss|model_ema)\.", "the VAE's training"),
    Drop(r"(first_stage_model\.)?(loss|model_ema)\.", "the VAE's training"),
)


class Rule(NamedTuple):
    pattern: str                                    # of the whole key, without its prefix
    place: str | Callable[[re.Match[str]], str]     # as re.Match.expand takes it


SAME = Rule(r"(.+)", r"\1")


# Inside a ResNet block of the UNet, inside one of the VAE, inside the VAE's attention: ours and the module's.
UNET_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
WB = r"\.(weight|bias)"
RESNET = "(" + "|".join(re.escape(name) for name in UNET_RESNET) + ")" + WB


def unet_rules(layers: int) -> tuple[Rule, ...]:
    """Rules for a UNet with so many ResNet blocks a level; input blocks count through all levels, and output blocks too."""

    def down(rest: Callable[[re.Match[str]], str], part: str) -> Callable[[re.Match[str]], str]:
        def place(found: re.Match[str]) -> str:
            level, block = divmod(int(found[1]) - 1, layers + 1)
            return f"down_blocks.{level}.{part.format(block=block)}.{rest(found)}"

        return place

    def up(rest: Callable[[re.Match[str]], str], part: str) -> Callable[[re.Match[str]], str]:
        def place(found: re.Match[str]) -> str:
            level, block = divmod(int(found[1]), layers + 1)
            return f"up_blocks.{level}.{part.format(block=block)}.{rest(found)}"

        return place

    def resnet(found: re.Match[str]) -> str:
        return f"{UNET_RESNET[found[2]]}.{found[3]}"

    def same(found: re.Match[str]) -> str:
        return found[2]

    attention = r"((?:norm|proj_in|proj_out|transformer_blocks)\..+)"
    return (
        Rule(rf"time_embed\.0{WB}", r"time_embedding.linear_1.\1"),
        Rule(rf"time_embed\.2{WB}", r"time_embedding.linear_2.\1"),
        Rule(rf"input_blocks\.0\.0{WB}", r"conv_in.\1"),
        Rule(rf"out\.0{WB}", r"conv_norm_out.\1"),
        Rule(rf"out\.2{WB}", r"conv_out.\1"),
        Rule(rf"middle_block\.0\.{RESNET}", lambda found: f"mid_block.resnets.0.{UNET_RESNET[found[1]]}.{found[2]}"),
        Rule(rf"middle_block\.1\.{attention}", r"mid_block.attentions.0.\1"),
        Rule(rf"middle_block\.2\.{RESNET}", lambda found: f"mid_block.resnets.1.{UNET_RESNET[found[1]]}.{found[2]}"),
        Rule(r"input_blocks\.(\d+)\.0\.op\.((?:weight|bias))", down(same, "downsamplers.0.conv")),
        Rule(rf"input_blocks\.(\d+)\.0\.{RESNET}", down(resnet, "resnets.{block}")),
        Rule(rf"input_blocks\.(\d+)\.1\.{attention}", down(same, "attentions.{block}")),
        Rule(rf"output_blocks\.(\d+)\.0\.{RESNET}", up(resnet, "resnets.{block}")),
        Rule(rf"output_blocks\.(\d+)\.1\.{attention}", up(same, "attentions.{block}")),
        Rule(r"output_blocks\.(\d+)\.[12]\.conv\.((?:weight|bias))", up(same, "upsamplers.0.conv")),
        Rule(rf"label_emb\.0\.([02]){WB}", lambda found: f"add_embedding.linear_{1 + int(found[1]) // 2}.{found[2]}"),
    )


def vae_rules(levels: int) -> tuple[Rule, ...]:
    """Rules for a VAE of so many levels; its decoder counts them from the other end than diffusers'."""
    inside = rf"(norm1|conv1|norm2|conv2|nin_shortcut){WB}"

    def resnet(name: str) -> str:
        return "conv_shortcut" if name == "nin_shortcut" else name

    def up(found: re.Match[str]) -> str:
        return f"decoder.up_blocks.{levels - 1 - int(found[1])}."

    return (
        Rule(rf"(quant_conv|post_quant_conv|encoder\.conv_in|decoder\.conv_in|encoder\.conv_out|decoder\.conv_out){WB}", r"\1.\2"),
        Rule(rf"(encoder|decoder)\.norm_out{WB}", r"\1.conv_norm_out.\2"),
        Rule(
            rf"(encoder|decoder)\.mid\.block_([12])\.{inside}",
            lambda found: f"{found[1]}.mid_block.resnets.{int(found[2]) - 1}.{resnet(found[3])}.{found[4]}",
        ),
        Rule(
            rf"(encoder|decoder)\.mid\.attn_1\.(norm|q|k|v|proj_out){WB}",
            lambda found: f"{found[1]}.mid_block.attentions.0.{VAE_ATTENTION[found[2]]}.{found[3]}",
        ),
        Rule(
            rf"encoder\.down\.(\d+)\.block\.(\d+)\.{inside}",
            lambda found: f"encoder.down_blocks.{found[1]}.resnets.{found[2]}.{resnet(found[3])}.{found[4]}",
        ),
        Rule(rf"encoder\.down\.(\d+)\.downsample\.conv{WB}", r"encoder.down_blocks.\1.downsamplers.0.conv.\2"),
        Rule(rf"decoder\.up\.(\d+)\.block\.(\d+)\.{inside}", lambda found: f"{up(found)}resnets.{found[2]}.{resnet(found[3])}.{found[4]}"),
        Rule(rf"decoder\.up\.(\d+)\.upsample\.conv{WB}", lambda found: f"{up(found)}upsamplers.0.conv.{found[2]}"),
    )


# VAEs that diffusers wrote before 0.15 call the parts of their attention so.
OLD_VAE_RULES: tuple[Rule, ...] = (
    Rule(rf"(.+\.attentions\.0\.)(query|key|value){WB}", lambda found: f"{found[1]}to_{found[2][0]}.{found[3]}"),
    Rule(rf"(.+\.attentions\.0\.)proj_attn{WB}", r"\1to_out.0.\2"),
)

TEXT_RULES: tuple[Rule, ...] = (
    Rule(r"(text_model\..+)", r"\1"),
    # Checkpoints trained with transformers before 4.21 lack the prefix; the web UI adds it too.
    Rule(r"((?:embeddings|encoder|final_layer_norm)\..+)", r"text_model.\1"),
)

# OpenCLIP's text tower (mlfoundations/open_clip, model.py), once `parted` has taken its attention's one matrix apart.
OPEN_CLIP_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj",
    "attn.q_proj": "self_attn.q_proj", "attn.k_proj": "self_attn.k_proj", "attn.v_proj": "self_attn.v_proj",
}  # fmt: skip
OPEN_CLIP_RULES: tuple[Rule, ...] = (
    Rule(r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    Rule(r"token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    Rule(rf"ln_final{WB}", r"text_model.final_layer_norm.\1"),
    Rule(r"text_projection", "text_projection.weight"),
    Rule(
        rf"transformer\.resblocks\.(\d+)\.({'|'.join(re.escape(name) for name in OPEN_CLIP_BLOCK)}){WB}",
        lambda found: f"text_model.encoder.layers.{found[1]}.{OPEN_CLIP_BLOCK[found[2]]}.{found[3]}",
    ),
)


def parted(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """OpenCLIP's tensors as those that transformers has: the matrix of queries, keys and values in three, the projection turned.

    Nothing is read: what comes back are other views of the same bytes.
    """
    found: dict[str, Stored] = {}
    for key, stored in tensors.items():
        if key.endswith("text_projection") and len(stored.shape) == 2:      # open_clip multiplies from the left
            found[key] = replace(stored, shape=stored.shape[::-1], stride=(stored.stride or (stored.shape[1], 1))[::-1])
        elif part := re.fullmatch(r"(.+\.attn\.)in_proj_(weight|bias)", key):
            third = stored.shape[0] // 3 if stored.shape else 0
            step = stored.stride[0] if stored.stride else prod(stored.shape[1:])
            for place, name in enumerate("qkv"):
                start = stored.start + place * third * step * ITEM_SIZES[stored.dtype]
                found[f"{part[1]}{name}_proj.{part[2]}"] = replace(stored, shape=(third, *stored.shape[1:]), start=start)
        else:
            found[key] = stored
    return found


# How the running averages of a training are named: LitEma in ldm (modules/ema.py) leaves the dots out.
_AVERAGED = re.compile(
    r"model_ema\.diffusion_model(?:(input_blocks|output_blocks)(\d+)([0-2])|(middle_block)([0-2])|(time_embed|label_emb0|out)(?=\d))(.+)"
)


def averaged(key: str) -> str | None:
    """The name of the weight that a running average belongs to; None where the key is none.

    >>> averaged("model_ema.diffusion_modelinput_blocks110in_layers0weight")
    'model.diffusion_model.input_blocks.11.0.in_layers.0.weight'
    """
    if not (found := _AVERAGED.fullmatch(key)):
        return None
    start = ".".join(part for part in found.groups()[:-1] if part).replace("label_emb0", "label_emb.0")
    rest = re.sub(r"(weight|bias)$", r".\1", found[7])
    for name, dotted in (("ffnet0proj", "ff.net.0.proj"), ("ffnet2", "ff.net.2")):
        rest = rest.replace(name, dotted)
    rest = re.sub(r"(in_layers|out_layers|emb_layers|to_out)(\d)", r"\1.\2", rest)
    rest = re.sub(r"transformer_blocks(\d+?)(attn[12]|ff|norm[123])", r"transformer_blocks.\1.\2", rest)
    rest = re.sub(r"(attn[12])(to_)", r"\1.\2", rest)
    return f"{UNET}{start}.{rest.lstrip('.')}"


def kept(keys: Iterable[str], drops: tuple[Drop, ...] = DROPS) -> list[str]:
    """The keys that no rule drops."""
    pattern = re.compile("|".join(f"(?:{drop.pattern})" for drop in drops))
    return [key for key in keys if not pattern.match(key)]


def renamed(keys: Iterable[str], prefix: str, rules: tuple[Rule, ...]) -> tuple[dict[str, str], list[str]]:
    """Each key's place by the first rule that fits, as place -> key; and the keys that fit none."""
    compiled = [(re.compile(rule.pattern), rule.place) for rule in rules]
    places: dict[str, str] = {}
    strangers = []
    for key in keys:
        for pattern, place in compiled:
            if found := pattern.fullmatch(key, len(prefix)):
                name = found.expand(place) if isinstance(place, str) else place(found)
                if name in places:
                    strangers.append(key)
                places.setdefault(name, key)
                break
        else:
            strangers.append(key)
    return places, strangers


def check_complete(file: str, part: str, places: Mapping[str, str], strangers: Collection[str], wanted: Collection[str]) -> None:
    """Raise ModelError that names three examples where a tensor has no place, or a place no tensor."""
    strangers = [*strangers, *(key for place, key in places.items() if place not in wanted)]
    if strangers:
        raise ModelError(
            f"'{file}' has {len(strangers)} tensors that have no place in {part}, e.g. {', '.join(sorted(strangers)[:3])}: "
            "it is of another layout than nbsd knows; choose another version of the model."
        )
    if empty := sorted(set(wanted) - set(places)):
        raise ModelError(
            f"'{file}' lacks {len(empty)} tensors of {part}, e.g. {', '.join(empty[:3])}: it is incomplete; choose another version of the model."
        )
