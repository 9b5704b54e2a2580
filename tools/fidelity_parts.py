"""The fidelity tool's runners for the parts: prompts, conditioning, noise, sigmas, infotext, hashes, rounding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from fidelity_case import recipe_of
from fidelity_compare import Bench, Mismatch, NotRun, near, same
from torch import Tensor

from nbsd import images, infotext
from nbsd.conditioning import encode, tokens
from nbsd.conditioning.embeddings import embedding_files
from nbsd.models import hashes as file_hashes
from nbsd.pipeline.preview import latent_to_rgb
from nbsd.prompt import networks, schedule, weights
from nbsd.recipe import Recipe
from nbsd.sampling import SAMPLERS, find_schedule, make_sigmas, make_timesteps
from nbsd.sampling.guidance import together
from nbsd.sampling.img2img import img2img_steps
from nbsd.sampling.noise import BrownianNoise, ImageNoise, stream
from nbsd.sampling.parametrize import NoiseTable

VECTORS, NUMBERS, RELATIVE = 1e-5, 2e-6, 1e-6      # allowed for text and single answers; for noise that is computed; for sigmas


def prompt(bench: Bench, case: dict[str, Any]) -> float:
    """Family a: weights, schedules, AND parts, networks; exact."""
    text = case["prompt"]
    same([list(span) for span in weights.parse_weights(text)], case["parse_prompt_attention"], "weights")
    for one in case["schedules"]:
        got = schedule.prompt_schedule(text, one["base_steps"], one["hires_steps"], one["use_old_scheduling"])
        setting = f"schedule at {one['base_steps']} steps, hires {one['hires_steps']}, old {one['use_old_scheduling']}"
        same([list(item) for item in got], one["result"], setting)
    flat: list[str] = []
    numbers: list[list[float]] = []
    for part in schedule.and_parts(text):
        if part.text not in flat:
            flat.append(part.text)
        numbers.append([flat.index(part.text), part.weight])
    same({"flat_prompts": flat, "index_and_weight": [numbers]}, case["multicond"], "AND parts")
    rest, found = networks.split_networks(text)
    nets: dict[str, list[list[str]]] = {}
    for network in found:
        nets.setdefault(network.kind, []).append(list(network.items))
    same({"prompt": rest, "nets": nets}, case["extra_networks"], "networks")
    return 0.0


def conditioning(bench: Bench, case: dict[str, Any]) -> float:
    """Family b: tokens, weights and embeddings of every chunk exactly, the vectors within 1e-5."""
    from fidelity_pictures import model_of

    model = model_of(bench, {})
    if "texts" in case:
        if "chunks" in case:
            chunks(model, case)
        return near(encoded(model, case["texts"], case["options"]), bench.tensor(case, "cond"), VECTORS, "cond")
    params = {"prompt": case["prompt"], "steps": case["steps"], "sampler_name": "Euler"}
    recipe = recipe_of({"params": params, "options": case["options"]}, {})
    if case["kind"] == "get_learned_conditioning":
        timeline = model.texts.timeline(case["prompt"], recipe)
        same([one.until for one in timeline], case["end_at_step"], "end_at_step")
        return max(near(one.context, bench.tensor(case, f"cond{n}"), VECTORS, f"cond{n}") for n, one in enumerate(timeline))
    parts = model.texts.positive(recipe)
    same([{"weight": one.weight, "end_at_step": [text.until for text in one.timeline]} for one in parts], case["parts"], "parts")
    worst = 0.0
    for name in case["tensors"]:
        step = int(name.removeprefix("stacked_step"))
        chosen = [next((text for text in one.timeline if step <= text.until), one.timeline[0]).context for one in parts]
        worst = max(worst, near(together(chosen), bench.tensor(case, name), VECTORS, name))
    return worst


def chunks(model: Any, case: dict[str, Any]) -> None:
    how = conditioning_options(case["options"])
    how.pop("clip_skip", None)
    got = [encode.chunk_text(text, model.texts.vocabulary, embeddings=model.texts.embeddings, **how) for text in case["texts"]]
    plain = [
        [{"tokens": one.tokens, "multipliers": one.multipliers, "fixes": [list(fix) for fix in one.fixes]} for one in row] for row in got
    ]
    want = [[{**one, "fixes": [fix_of(fix) for fix in one["fixes"]]} for one in row] for row in case["chunks"]]
    for number, (row, other) in enumerate(zip(plain, want, strict=True)):
        same(len(row), len(other), f"chunks of text {number}")
        for one, two in zip(row, other, strict=True):
            same(one["tokens"], two["tokens"], "tokens")
            same(one["multipliers"], two["multipliers"], "multipliers")
            same(one["fixes"], two["fixes"], "fixes")
    if "token_count" in case:
        same(max(tokens.token_count(row) for row in got), case["token_count"], "token count")


def fix_of(fix: Any) -> list[Any]:
    """A recorded fix as offset, name and number of vectors."""
    return list(fix.values()) if isinstance(fix, dict) else list(fix)


def conditioning_options(options: dict[str, Any]) -> dict[str, Any]:
    names = {"emphasis": "emphasis", "CLIP_stop_at_last_layers": "clip_skip", "comma_padding_backtrack": "backtrack",
             "use_old_emphasis_implementation": "old_emphasis"}
    if strange := set(options) - set(names):
        raise NotRun(f"the option {sorted(strange)[0]!r} is not known to the conditioning")
    return {names[name]: value for name, value in options.items()}


def encoded(model: Any, texts: Sequence[str], options: dict[str, Any]) -> Tensor:
    how = conditioning_options(options)
    return encode.encode_texts(texts, model.checkpoint.text_encoder, model.texts.vocabulary, embeddings=model.texts.embeddings, **how)


def noise(bench: Bench, case: dict[str, Any]) -> float:
    """Family c: plain CPU draws exactly, what is computed within 2e-6."""
    source = case["randn_source"]
    if case.get("kind") == "randn_local":
        return near(stream(source, case["seed"]).randn(case["shape"]), bench.tensor(case, "value"), NUMBERS, "draw")
    if case.get("kind") == "brownian_tree":
        tree = BrownianNoise(case["shape"], case["seeds"], case["sigma_min"], case["sigma_max"], source)
        sigmas = bench.tensor(case, "sigmas")
        drawn = [tree(sigma, after) for sigma, after in pairwise(sigmas)]
        return near(torch.stack(drawn), bench.tensor(case, "noise"), NUMBERS, "Brownian noise")
    resized = (case["seed_resize_from_h"] // 8, case["seed_resize_from_w"] // 8)
    varied = case["subseed_strength"] > 0
    drawn_by = ImageNoise(
        case["seeds"], tuple(case["shape"]), source, ensd=case["eta_noise_seed_delta"], variation_seeds=case["subseeds"] if varied else None,
        variation_strength=case["subseed_strength"], resize_from=resized if all(resized) else None,
    )
    got = torch.stack([drawn_by.next() for _ in range(case["calls"])])
    plain = source == "CPU" and not varied
    return near(got, bench.tensor(case, "next"), 0.0 if plain else NUMBERS, "noise")


def sigmas(bench: Bench, case: dict[str, Any]) -> float:
    """Family d: schedules and tables within 1e-6 of each value, time steps and step counts exactly."""
    options = case["options"]
    if case.get("kind") == "img2img steps":
        got = img2img_steps(case["steps"], case["denoising_strength"], options.get("img2img_fix_steps", False))
        same(list(got), [case["schedule_steps"], case["t_enc"]], "schedule steps and t")
        return 0.0
    from fidelity_pictures import model_of

    asked = find_schedule(case.get("scheduler") or "Automatic")
    if asked is None:
        raise NotRun(f"no schedule is called {case['scheduler']!r}")
    params = {"sampler_name": case.get("sampler", "Euler"), "scheduler": asked.label, "steps": case.get("steps", 20)}
    recipe = recipe_of({"params": params, "options": options}, {})
    table = model_of(bench, {}).table(recipe)
    if case.get("kind") == "model tables":
        return tables(bench, case, table)
    discard = recipe.discard_penultimate_sigma
    if "timesteps" in case:
        same(make_timesteps(case["steps"], discard_penultimate=discard).tolist(), case["timesteps"], "time steps")
        return 0.0
    extras_of(recipe, case["infotext_extras"])
    got_sigmas = make_sigmas(
        recipe.schedule, recipe.steps, table, sampler=SAMPLERS[recipe.sampler], sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max,
        rho=recipe.rho, beta_alpha=recipe.beta_alpha, beta_beta=recipe.beta_beta, discard_penultimate=discard, old_karras=recipe.old_karras,
    )
    return near(got_sigmas, bench.tensor(case, "sigmas"), RELATIVE, "sigmas", relative=True)


def tables(bench: Bench, case: dict[str, Any], table: NoiseTable) -> float:
    got = {
        "alphas_cumprod": table.alphas_cumprod.float(), "sigmas": table.sigmas.float(),
        "t_to_sigma": table.t_to_sigma(bench.tensor(case, "t")), "sigma_to_t": table.sigma_to_t(bench.tensor(case, "sigma")),
    }
    return max(near(value, bench.tensor(case, name), RELATIVE, name, relative=True) for name, value in got.items())


def extras_of(recipe: Recipe, extras: dict[str, Any]) -> None:
    """Every key that the web UI adds for this schedule stands in our infotext with the same value."""
    pairs = infotext.parse(recipe.infotext())
    for key, value in extras.items():
        if str(pairs.get(key)) != str(value):
            raise Mismatch(f"infotext: {key!r} is {pairs.get(key)!r}, recorded {value!r}")


def hashes(bench: Bench, case: dict[str, Any]) -> float:
    """Family g; exact."""
    if "embedding" in case:
        path = embedding_files([bench.models]).get(case["embedding"])
        if path is None:
            raise NotRun(f"there is no embedding {case['embedding']!r} in {bench.models}")
        same(file_hashes.sha256(path)[:12], case["shorthash"], "hash of the embedding")
        return 0.0
    path = bench.models / Path(case["file"]).name
    got = {"size": path.stat().st_size, "sha256": file_hashes.sha256(path), "old_hash": file_hashes.old_hash(path),
           "short_hash": file_hashes.short_hash(path)}
    if "addnet_hash" in case:
        got |= {"addnet_hash": file_hashes.addnet_hash(path), "addnet_hash_12": file_hashes.addnet_hash(path)[:12]}
    same(got, {name: case[name] for name in got}, "hashes")
    return 0.0


def rounding(bench: Bench, case: dict[str, Any]) -> float:
    """Family h: bytes exactly, single answers of VAE and UNet within 1e-5."""
    from fidelity_pictures import model_of

    model = model_of(bench, {})
    kind = case["kind"]
    if kind == "decoded value to byte":
        same(images.to_bytes(torch.tensor(case["values"])).tolist(), case["bytes"], "bytes")
        return 0.0
    if kind == "approx cheap":
        rgb = latent_to_rgb(bench.tensor(case, "latent")[0])
        same(images.to_bytes(rgb).permute(1, 2, 0).tolist(), bench.tensor(case, "bytes").tolist(), "bytes")
        return near(rgb[None], bench.tensor(case, "rgb"), VECTORS, "preview")
    if kind == "VAE decode":
        got = decoded(model, bench.tensor(case, "latent"))
        off = (images.to_bytes(got).int() - bench.tensor(case, "bytes").int()).abs()
        if float((off > 1).float().mean()) > 0.01:
            raise Mismatch("bytes: more than 1 % are off by more than 1")
        return near(got, bench.tensor(case, "decoded"), VECTORS, "VAE")
    if kind == "VAE encode":
        with torch.inference_mode():
            spread = model.checkpoint.vae.encode(bench.tensor(case, "image") * 2 - 1).latent_dist
        mean = near(spread.mean * model.checkpoint.vae.config.scaling_factor, bench.tensor(case, "latent_mean"), VECTORS, "latent mean")
        return max(mean, near(spread.logvar, bench.tensor(case, "logvar"), 1e-4, "log variance"))
    if kind == "UNet":
        answer = predicted(model, *(bench.tensor(case, name) for name in ("x", "t", "context")))
        return near(answer, bench.tensor(case, "eps"), VECTORS, "UNet")
    raise NotRun(f"no runner for {kind!r}")


@torch.inference_mode()
def predicted(model: Any, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    return model.predict(x, t, context)


@torch.inference_mode()
def decoded(model: Any, latent: Tensor) -> Tensor:
    return model.decode(latent)


def told(bench: Bench, case: dict[str, Any]) -> float:
    """Family f: infotext read and written, quoting, sampler names; exact."""
    kind = case["kind"]
    if kind == "quote":
        same([infotext.quote(case["value"]), infotext.unquote(case["quoted"])], [case["quoted"], case["unquoted_again"]], "quoting")
    elif kind == "parse":
        same(infotext.parse(case["text"]), case["result"], "parsed")
    elif kind == "sampler name":
        same(list(infotext.split_sampler_name(case["name"], case["schedule_type"])), case["pasted"], "sampler name")
    elif kind == "create":
        same(recipe_of(case, {}).infotext(), case["result"], "infotext")
    else:
        raise NotRun(f"no runner for {kind!r}")
    return 0.0
