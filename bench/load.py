"""Peak memory and time of loading a checkpoint to float16: nbsd against diffusers' `from_single_file`, in one run.

    python bench/load.py CHECKPOINT.safetensors [--rounds 3]

Each load is a fresh process, the two take turns, and the file lies in the system's cache (it is read once before). diffusers asks the
network for its configs; here it gets a folder with those that nbsd reads from the file, so that both load with the network off.
Times are from the process's first line to the loaded model, imports included, and of the load alone. Memory is VmHWM, in 10^9 bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

LOADERS = ("nbsd", "diffusers")
LIMIT = 0.8     # 10^9 bytes that a load may need beside the weights


def load_nbsd(path: str, _configs: str) -> tuple[Any, float]:
    import torch

    from nbsd.models.load import load_checkpoint

    start = time.perf_counter()
    return load_checkpoint(path, dtype=torch.float16, vae_dtype=torch.float16), start


def load_diffusers(path: str, configs: str) -> tuple[Any, float]:
    import torch
    from diffusers import StableDiffusionPipeline

    start = time.perf_counter()
    return StableDiffusionPipeline.from_single_file(path, config=configs, local_files_only=True, torch_dtype=torch.float16), start


def one(loader: str, path: str, configs: str) -> None:
    """Load in this process and print what it took."""
    begin = time.perf_counter()
    model, start = {"nbsd": load_nbsd, "diffusers": load_diffusers}[loader](path, configs)
    end = time.perf_counter()
    parts = (model.unet, model.vae, *getattr(model, "text_encoders", (model.text_encoder,)))
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({"total": end - begin, "load": end - start, "cpu": sum(os.times()[:2]), "peak": peak / 1e9, "weights": weights / 1e9}))


def write_configs(path: str, folder: Path) -> None:
    """A model folder without weights, as diffusers wants it, from what nbsd reads from the file's header and ships."""
    from nbsd.conditioning.tokens import Vocabulary
    from nbsd.models.families import SD1
    from nbsd.models.shapes import text_config, unet_config, vae_config
    from nbsd.models.weights import open_weights

    shapes = open_weights(path).shapes
    parts: dict[str, tuple[str, str, dict[str, Any]]] = {
        "unet": ("diffusers", "UNet2DConditionModel", unet_config(shapes, SD1)),
        "vae": ("diffusers", "AutoencoderKL", vae_config(shapes, "first_stage_model.", SD1)),
        "text_encoder": ("transformers", "CLIPTextModel", {"model_type": "clip_text_model", **text_config(shapes, SD1.text[0])}),
        "scheduler": ("diffusers", "PNDMScheduler", {
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True, "steps_offset": 1,
        }),
        "tokenizer": ("transformers", "CLIPTokenizer", {}),
    }  # fmt: skip
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    names = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
    for part, (package, kind, config) in parts.items():
        index[part] = [package, kind]
        (folder / part).mkdir()
        (folder / part / names.get(part, "config.json")).write_text(json.dumps({"_class_name": kind, **config}))
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(dict(Vocabulary().ids)))
    merges = gzip.decompress((files("nbsd.models") / "data" / "clip_merges.txt.gz").read_bytes())
    (folder / "tokenizer" / "merges.txt").write_bytes(merges)


def measure(loader: str, path: str, configs: str) -> dict[str, float]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, path, "--one", loader, "--configs", configs], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{loader} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(path: str, rounds: int) -> None:
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
    results: dict[str, list[dict[str, float]]] = {loader: [] for loader in LOADERS}
    with tempfile.TemporaryDirectory() as folder:
        write_configs(path, Path(folder))
        for _ in range(rounds):
            for loader in LOADERS:
                results[loader].append(measure(loader, path, folder))
                print(loader.ljust(10), "  ".join(f"{key} {value:.2f}" for key, value in results[loader][-1].items()), flush=True)
    middle = {loader: {key: median(row[key] for row in rows) for key in rows[0]} for loader, rows in results.items()}
    for loader, row in middle.items():
        print("median", loader.ljust(10), "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    ours, theirs = middle["nbsd"], middle["diffusers"]
    print(f"peak: {ours['peak']:.2f} GB, {ours['peak'] - ours['weights']:.2f} GB beside the weights (limit {LIMIT})")
    print("nbsd / diffusers: " + "  ".join(f"{key} {ours[key] / theirs[key]:.2f}" for key in ("total", "load", "cpu", "peak")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=LOADERS, help=argparse.SUPPRESS)
    parser.add_argument("--configs", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.checkpoint, arguments.configs)
    else:
        compare(arguments.checkpoint, arguments.rounds)


if __name__ == "__main__":
    main()
