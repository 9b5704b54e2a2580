"""The families of models. A family's facts stand here; how a file of it is recognised stands in `detect.py`."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN_END, TOKEN_NONE = 49407, 0    # CLIP's end of text; what OpenCLIP fills a text up with (open_clip, tokenizer.py)


@dataclass(frozen=True)
class TextPart:
    """A text encoder of a family: where it lies in a single file, and which of its numbers the UNet reads."""

    prefix: str                     # of its keys in a single-file checkpoint
    folder: str = "text_encoder"    # in diffusers' layout
    loras: tuple[str, ...] = ("lora_te", "lora_te1")    # what stands before its layers' names in LoRAs; some SD 1 files say te1
    open_clip: bool = False         # OpenCLIP's layout and activation; else OpenAI's
    layer: int = 0                  # the n-th from the end, whatever clip skip says; 0: as clip skip says
    norm: bool = True               # whether that goes through the final layer norm
    pooled: bool = False            # whether its one projected vector of the text is read too
    vectors: str = ""               # the key of its vectors in an embedding for several encoders
    layers: int = 0                 # that the real one has; one less: the file's maker cut off the last, which `layer` 2 never reads


@dataclass(frozen=True)
class Family:
    """What all models of one kind have in common."""

    name: str
    text: tuple[TextPart, ...] = ()     # the order in which their vectors stand side by side
    latent_scale: float = 1.0           # latents are the VAE's numbers times this
    latent_channels: int = 4
    prediction: str = "epsilon"         # unless the file or the user says otherwise
    prediction_asked: bool = False      # v-prediction models have the same tensors: the UNet has to be asked
    unet_heads: int | None = None       # attention heads on every level of the UNet; None: heads are HEAD_WIDTH wide
    numbers: tuple[str, ...] = ()       # what the UNet is told of the picture besides the pooled text, each as a sine embedding
    aligned: str = "SD 1"               # whose published table the schedule Align Your Steps takes: `sampling.schedules.ALIGNED_SIGMAS`
    zero_empty_negative: bool = False   # an empty negative prompt is all zeros, not the vectors of an empty text
    supported: bool = True


# The noise schedule of Stable Diffusion 1: `linear_start` and `linear_end` in CompVis/stable-diffusion,
# configs/stable-diffusion/v1-inference.yaml; the square roots of the betas are evenly spaced. SD 2 and SDXL have the same.
TIMESTEPS, LINEAR_START, LINEAR_END = 1000, 0.00085, 0.012

# Width of an attention head in the UNets of SD 2 and SDXL: num_head_channels in their configs (Stability-AI/stablediffusion and
# generative-models). A level that this does not divide, in models made for tests, has heads of 32, the norms' number of groups.
HEAD_WIDTH, NARROW_HEAD = 64, 32

# scale_factor in the same files; the same numbers in diffusers' AutoencoderKL (scaling_factor).
SD_SCALE, SDXL_SCALE = 0.18215, 0.13025

SD1 = Family("SD 1", (TextPart("cond_stage_model.transformer."),), SD_SCALE, unet_heads=8)
# The penultimate layer with the final norm: FrozenOpenCLIPEmbedder, layer "penultimate", in v2-inference.yaml. Clip skip does
# nothing here and in SDXL: the web UI takes the layer from the model's config.
SD2 = Family(
    "SD 2",
    (TextPart("cond_stage_model.model.", open_clip=True, layer=2, layers=24),),
    SD_SCALE, prediction_asked=True,
)  # fmt: skip
# Stability-AI/generative-models, configs/inference/sd_xl_base.yaml and sd_xl_refiner.yaml: the embedders in their order. The web UI
# tells the UNet the size of the picture as both the original's and the target's, and no crop; the refiner gets a score instead.
_CLIP_L = TextPart("conditioner.embedders.0.transformer.", loras=("lora_te1", "lora_te"), layer=2, norm=False, vectors="clip_l")
_CLIP_G = TextPart(
    "conditioner.embedders.1.model.", "text_encoder_2", ("lora_te2",), open_clip=True, layer=2, norm=False, pooled=True, vectors="clip_g",
)  # fmt: skip
SDXL = Family(
    "SDXL", (_CLIP_L, _CLIP_G), SDXL_SCALE, numbers=("height", "width", "top", "left", "height", "width"), aligned="SDXL",
    zero_empty_negative=True,
)
_REFINER_TEXT = TextPart(
    "conditioner.embedders.0.model.", "text_encoder_2", ("lora_te2",), open_clip=True, layer=2, norm=False, pooled=True,
)  # fmt: skip
SDXL_REFINER = Family(
    "SDXL refiner", (_REFINER_TEXT,), SDXL_SCALE, numbers=("height", "width", "top", "left", "score"), aligned="SDXL",
    zero_empty_negative=True,
)
USED: tuple[Family, ...] = (SD1, SD2, SDXL, SDXL_REFINER)

# What the score of a picture is said to be, to the refiner: the web UI's options sdxl_refiner_high/low_aesthetic_score.
HIGH_SCORE, LOW_SCORE = 6.0, 2.5

# Channels that the UNet reads, and what a model that reads so many is for: the latent alone; with an edited picture's latent
# beside it; with a mask and a masked picture's latent.
LATENT = 4      # channels of a latent
PLAIN, EDITING, INPAINTING = "", "editing", "inpainting"
PURPOSES: dict[int, str] = {LATENT: PLAIN, 2 * LATENT: EDITING, 2 * LATENT + 1: INPAINTING}


def _known(name: str) -> Family:
    """Known, so that a refusal can name it; nbsd cannot make pictures with it."""
    return Family(name, supported=False)


SD2_DEPTH, SD2_UNCLIP, SD_UPSCALER = _known("SD 2 depth"), _known("SD 2 unCLIP"), _known("SD x4 upscaler")
ALT_DIFFUSION, SSD, PLAYGROUND = _known("AltDiffusion"), _known("distilled SDXL (SSD-1B, Segmind Vega)"), _known("Playground v2.5")
SD3, FLUX, VIDEO, CASCADE = _known("SD 3"), _known("Flux"), _known("Stable Video Diffusion"), _known("Stable Cascade")
PIXART, AURA, LUMINA, CHROMA, SANA = _known("PixArt"), _known("AuraFlow"), _known("Lumina"), _known("Chroma"), _known("Sana")
HUNYUAN, KANDINSKY, WAN, QWEN, LTX = _known("Hunyuan"), _known("Kandinsky"), _known("Wan"), _known("Qwen-Image"), _known("LTX-Video")
