"""VAEs: the one in a checkpoint, and those in files of their own."""

from __future__ import annotations

from pathlib import Path

from nbsd.errors import ModelError, WrongFamilyError
from nbsd.models.build import Plan, plan_named_vae, plan_vae
from nbsd.models.detect import UNKNOWN, WORDS, kind_of
from nbsd.models.detect import VAE as VAE_KIND
from nbsd.models.families import Family
from nbsd.models.folder import weights_file
from nbsd.models.keys import VAE, VAE_DROPS, kept
from nbsd.models.weights import Weights, open_weights


def plan_own_vae(weights: Weights, keys: list[str], family: Family) -> Plan:
    """The VAE in a checkpoint; `keys`: those of the checkpoint that are kept."""
    inside = [key for key in keys if key.startswith(VAE)]
    if not inside:
        raise ModelError(f"'{weights.path.name}' has no VAE in it: pick a VAE file for it.")
    return plan_vae(weights, inside, VAE, family)


def plan_vae_file(path: str | Path, family: Family) -> Plan:
    """The VAE of a file: the web UI's own format (`encoder.`, `decoder.`), the same with `first_stage_model.`, a checkpoint's, or
    diffusers' (a file, or a folder with one).
    """
    weights = open_weights(weights_file(Path(path), "vae") if Path(path).is_dir() else path)
    keys = kept(weights.tensors, VAE_DROPS)
    if any(key.startswith(f"{VAE}decoder.") for key in keys):
        return plan_vae(weights, [key for key in keys if key.startswith(VAE)], VAE, family)
    if any(key.startswith("decoder.up_blocks.") for key in keys):
        return plan_named_vae(weights, keys, family)
    if (kind := kind_of(weights)) != VAE_KIND:
        what = f"'{weights.path.name}' was chosen as VAE"
        raise WrongFamilyError(f"{what} and is of no kind that nbsd knows: choose a VAE file." if kind == UNKNOWN else
                               f"{what} and is of another kind ({WORDS.get(kind, kind)}), without a VAE in it: choose a VAE file.")
    return plan_vae(weights, keys, "", family)
