"""From the names of tensors in a single-file checkpoint to those of diffusers' and transformers' modules.

Left: the layout of CompVis/stable-diffusion, which every single-file checkpoint has. Right: the modules' own. A rule is a pattern
and what stands in its place; the first that fits wins. A name that fits none is an error, and so is a place that stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from nbsd.errors import ModelError

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
    Drop(r"cond_stage_model\.(transformer\.)?(logit_scale|text_projection)", "compares texts with pictures; not used by SD 1"),
    Drop(r"cond_stage_model\.transformer\.(text_model\.)?embeddings\.position_ids$", "read apart: they are no weights"),
    Drop(r"embedding_manager\.", "an embedding that was in training"),
)
# Of a VAE file.
VAE_DROPS: tuple[Drop, ...] = (
    Drop(r"(loss|model_ema)\.", "the VAE's training"),
    Drop(r"(first_stage_model\.)?(loss|model_ema)\.", "the VAE's training"),
)


class Rule(NamedTuple):
    pattern: str                                    # of the whole key, without its prefix
    place: str | Callable[[re.Match[str]], str]     # as re.Match.expand takes it


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


TEXT_RULES: tuple[Rule, ...] = (
    Rule(r"(text_model\..+)", r"\1"),
    # Checkpoints trained with transformers before 4.21 lack the prefix; the web UI adds it too.
    Rule(r"((?:embeddings|encoder|final_layer_norm)\..+)", r"text_model.\1"),
)


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
