"""Time of one picture, the whole road from recipe to RGB, against a bare diffusers pipeline on the same weights.

    python bench/image.py MODEL [--size 256] [--steps 6] [--runs 5] [--device cpu] [--dtype float32] [--json FILE]

Both run Euler with a negative prompt at CFG scale 7 in one process, in turn (A B A B ...), after one warm-up each.
MODEL is a checkpoint file of Stable Diffusion 1 (`python bench/make_checkpoint.py` writes one with random numbers).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import nbsd

PROMPT, NEGATIVE = "masterpiece, best quality, a cat sitting on a chair", "lowres, bad anatomy, worst quality"


def bare_pipeline(model: nbsd.pipeline.model.Model, size: int, steps: int) -> Callable[[], object]:
    """diffusers' StableDiffusionPipeline on the same file's modules, with plain weights as diffusers itself has them."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    from nbsd.conditioning.tokens import END, START
    from nbsd.models.packed import unpack

    compute = model.compute
    checkpoint = nbsd.load(model.checkpoint.path, device=str(compute.device), dtype=compute.weights).checkpoint
    for module in (checkpoint.unet, checkpoint.vae, checkpoint.text_encoder):
        unpack(module)
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=checkpoint.vae, text_encoder=checkpoint.text_encoder, tokenizer=None, unet=checkpoint.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)

    def embed(text: str) -> torch.Tensor:
        tokens = [START, *model.texts.vocabulary.encode(text)][:76]
        ids = torch.tensor([tokens + [END] * (77 - len(tokens))], device=compute.device)
        return checkpoint.text_encoder(ids)[0]

    def run() -> object:
        with torch.inference_mode():
            return pipeline(
                prompt_embeds=embed(PROMPT), negative_prompt_embeds=embed(NEGATIVE), width=size, height=size,
                num_inference_steps=steps, guidance_scale=7.0, generator=torch.Generator().manual_seed(1),
            ).images[0]

    return run


def nbsd_road(model: nbsd.pipeline.model.Model, size: int, steps: int) -> Callable[[], object]:
    recipe = nbsd.Recipe(prompt=PROMPT, negative_prompt=NEGATIVE, sampler="Euler", steps=steps, width=size, height=size, seed=1, rng="CPU")

    def run() -> object:
        model.texts.forget()        # so that the prompts are encoded in every run, as in the other road
        return model.generate(recipe)[0].image

    return run


def timed(run: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, default=256, help="pixels, width and height")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    model = nbsd.load(told.model, device=told.device, dtype=told.dtype)
    ours, theirs = nbsd_road(model, told.size, told.steps), bare_pipeline(model, told.size, told.steps)
    timed(ours, told.device), timed(theirs, told.device)
    pairs = [(timed(ours, told.device), timed(theirs, told.device)) for _ in range(told.runs)]
    ratios = sorted(a / b for a, b in pairs)
    found = {
        "device": model.compute.words, "machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "size": told.size, "steps": told.steps, "runs": told.runs,
        "nbsd_s": statistics.median(a for a, _ in pairs), "diffusers_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios), "ratio_least": ratios[0], "ratio_most": ratios[-1],
    }
    print("\n".join(f"{name:12} {value:.3f}" if isinstance(value, float) else f"{name:12} {value}" for name, value in found.items()))
    if told.json:
        told.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
