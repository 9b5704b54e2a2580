"""The fidelity tool's runner for whole pictures: latents, bytes and infotext."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fidelity_case import BATCH_SEEDS, infotext_of, recipe_of
from fidelity_compare import Bench, Mismatch, NotRun, near, same
from PIL import Image

import nbsd
from nbsd.errors import NbsdError
from nbsd.models.hashes import old_hash
from nbsd.prompt.networks import split_networks
from nbsd.recipe import Recipe

TIMES_SPREAD = 10           # latents may differ by this many times what two correct runs differed by
LEAST, UNKNOWN = 1e-4, 1e-3     # in standard deviations: never tighter than; where no spread was recorded
PLACES = 0.01               # share of the bytes that may be off by more than 1


def picture(bench: Bench, case: dict[str, Any]) -> float:
    """Make the pictures of a case and compare latents, bytes and infotexts."""
    if case.get("kind") is None and "text" in case:
        return full_width_parts(bench, case)
    params = {**bench.recorded.get("defaults_of_params", {}), **case["params"]}
    model = model_of(bench, case)
    count, size = params.get("batch_size", 1) * params.get("n_iter", 1), params.get("batch_size", 1)
    try:
        if isinstance(params["prompt"], list):
            made = [one for recipe in own_recipes(case, bench.recorded) for one in model.generate(recipe, **given(bench, params))]
            return compared(made, bench, case, size)
        recipe = recipe_of(case, bench.recorded)
        if bench.family == "e_2022":        # before the option existed, and run on a CPU
            recipe = replace(recipe, rng="CPU", rules="2022-10")
        recipe = replace(recipe, prompt=without_missing(recipe.prompt, bench.models))
        together = case["options"].get(BATCH_SEEDS, True)
        if len(several := params.get("init_images", ())) > 1:       # a batch of pictures that start from pictures of their own
            made = [one for n in range(len(several)) for one in model.generate(recipe.nth(n), **given(bench, params, n))]
        else:
            made = model.generate(recipe, count=count, batch_size=size, batch_seeds=together, **given(bench, params))
    except NbsdError as error:
        raise NotRun(" ".join(str(error).split())) from error
    except KeyError as error:
        raise NotRun(f"no field of a recipe for {error}") from error
    return compared(made, bench, case, size)


def given(bench: Bench, params: dict[str, Any], index: int = 0) -> dict[str, Path]:
    """The picture that a case's picture number `index` starts from, and its mask."""
    names = {"image": params.get("init_images", [None])[index], "mask": params.get("mask")}
    return {role: bench.folder / "inputs" / name for role, name in names.items() if name}


def without_missing(prompt: str, models: Path) -> str:
    """The prompt without the networks that have no file: the web UI goes on without them, nbsd asks for them to be taken out."""
    for network in split_networks(prompt)[1]:
        if not any(path.stem == network.items[0] for path in models.iterdir()):
            prompt = prompt.replace(f"<{network.kind}:{':'.join(network.items)}>", "")
    return prompt


def own_recipes(case: dict[str, Any], recorded: dict[str, Any]) -> Iterator[Recipe]:
    """The recipes of a batch whose pictures have prompts and seeds of their own: each can be made alone."""
    lists = {name: value for name, value in case["params"].items() if isinstance(value, list)}
    for n in range(len(lists["prompt"])):
        alone = {name: value[n] for name, value in lists.items()}
        yield recipe_of({**case, "params": {**case["params"], **alone, "batch_size": 1}}, recorded)


def compared(made: list[nbsd.Picture], bench: Bench, case: dict[str, Any], size: int) -> float:
    """The worst share of what latents, bytes and infotexts may be off by."""
    latents = torch.stack([one.latent for one in made if one.latent is not None])
    want = bench.tensor(case, "latents")
    if latents.shape[0] != want.shape[0] and want.shape[0] == size:
        latents = latents[-want.shape[0]:]      # of several batches only the last one's latents were recorded
    spread = case.get("spread", {}).get("latents_max_rel_to_std")
    allowed = UNKNOWN if spread is None else max(LEAST, TIMES_SPREAD * spread)
    worst = near(latents, want, allowed * float(want.std()), "latents")
    for one, path in zip(made, case["images"], strict=True):
        worst = max(worst, bytes_of(one.image, bench, path, case))
    recipes = [one.recipe for one in made]
    if bench.family == "e_2022":        # a model was named by its old hash alone then, and the source of noise not at all
        digest = old_hash(bench.models / bench.recorded["checkpoint"])
        recipes = [replace(one, model=digest, rng="GPU") for one in recipes]
    same([infotext_of(case, one, n) for n, one in enumerate(recipes)], case["infotexts"], "infotext")
    return worst


def bytes_of(image: Image.Image, bench: Bench, path: str, case: dict[str, Any]) -> float:
    """The share of bytes off by more than is allowed, over what may be."""
    adaptive = "DPM adaptive" in str(case["params"].values())
    step = max(1, case.get("spread", {}).get("bytes_max", 1)) if adaptive else 1
    with Image.open(bench.folder / path) as recorded:
        want = torch.frombuffer(bytearray(recorded.convert("RGB").tobytes()), dtype=torch.uint8).to(torch.int16)
        if image.size != recorded.size:
            raise Mismatch(f"picture: {image.size}, recorded {recorded.size}")
    got = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).to(torch.int16)
    off = float(((got - want).abs() > step).double().mean())
    if off > PLACES:
        raise Mismatch(f"bytes: {off:.2%} of the places are off by more than {step}, allowed {PLACES:.0%}", off / PLACES)
    return off / PLACES


def model_of(bench: Bench, case: dict[str, Any]) -> Any:
    """The model that a case ran on, loaded once."""
    name = case.get("checkpoint") or bench.recorded.get("checkpoint") or ("full-sd1" if bench.family == "i_full_width" else "tiny-sd1")
    key = ("model", name, case.get("external_vae"))
    if key not in bench.kept:
        for other in [one for one in bench.kept if one[0] == "model" and one[1] != name]:
            del bench.kept[other]
        vae = bench.models / case["external_vae"] if case.get("external_vae") else None
        bench.kept[key] = nbsd.load(
            file_of(bench, name), vae=vae, device="cpu", dtype="float32", embeddings=bench.models, networks=bench.models,
            prediction="v_prediction" if name.endswith("-v") else None,
        )
        if bench.nudge:
            nudge(bench.kept[key], bench.nudge)
    return bench.kept[key]


def nudge(model: Any, share: float) -> None:
    """Change every answer of the model's UNet at random by this share of it: how much of a difference can be rounding alone?"""
    predict, noise = model.predict, torch.Generator().manual_seed(0)

    def nudged(*asked: Any) -> torch.Tensor:
        answer: torch.Tensor = predict(*asked)
        return answer * (1 + share * torch.randn(answer.shape, generator=noise))

    model.predict = nudged


def file_of(bench: Bench, name: str) -> Path:
    """The file of a model; one that is another read differently gets a link of its name, the full-width one is made."""
    if (path := bench.models / name).is_file():
        return path
    if (path := bench.models / f"{name}.safetensors").is_file():
        return path
    link = bench.scratch / f"{name}.safetensors"
    if link.exists():
        return link
    if name.endswith("-v") and (path := bench.models / f"{name.removesuffix('-v')}.safetensors").is_file():
        os.symlink(path.resolve(), link)
        return link
    if name == "full-sd1" and (recipe := bench.folder / "full-width-recipe.json").is_file():
        sys.path.append(str(Path(__file__).parent.parent / "bench"))
        import make_checkpoint  # type: ignore[import-not-found]

        print(f"making {link.name} (2.1 GB) by {recipe.name}", flush=True)
        make_checkpoint.from_recipe(recipe, link)
        return link
    raise NotRun(f"there is no {name} in {bench.models}")


def full_width_parts(bench: Bench, case: dict[str, Any]) -> float:
    """One UNet answer, one VAE decode, one text at the real widths."""
    from fidelity_parts import decoded, encoded, predicted

    model = model_of(bench, case)
    worst = near(predicted(model, *(bench.tensor(case, name) for name in ("x", "t", "context"))), bench.tensor(case, "eps"), 1e-5, "UNet")
    worst = max(worst, near(decoded(model, bench.tensor(case, "latent")), bench.tensor(case, "decoded"), 1e-5, "VAE"))
    return max(worst, near(encoded(model, [case["text"]], {}), bench.tensor(case, "cond"), 1e-5, "text"))
