"""What lies beside a checkpoint and belongs to it: a VAE, and the settings that it was trained with. Found by name, as the web UI does."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

AUTOMATIC_ENDINGS = (".vae.pt", ".vae.ckpt", ".vae.safetensors")
BAKED = "none"          # the web UI's word for the VAE in the checkpoint, in small letters
AUTOMATIC = ("", "automatic", "auto")


def is_word(vae: str | Path) -> bool:
    """Whether a choice of a VAE is one of the web UI's words and no file."""
    return isinstance(vae, str) and vae.strip().lower() in (*AUTOMATIC, BAKED)


def chosen_vae(checkpoint: Path, vae: str | Path | None) -> Path | None:
    """The file of the VAE that goes with a checkpoint; None: its own.

    `vae`: a file or a folder; "None" is the checkpoint's own. None and "Automatic": the file beside the checkpoint that is called
    like it, with ".vae.pt", ".vae.ckpt" or ".vae.safetensors" behind it, where there is one. (The web UI takes every such file whose
    name *begins* like the checkpoint's; the one that is called exactly so comes first here.)
    """
    word = vae.strip().lower() if isinstance(vae, str) else ""
    if (vae is not None and word not in AUTOMATIC and word != BAKED) or isinstance(vae, Path):
        return Path(vae)  # type: ignore[arg-type]
    if word == BAKED or not checkpoint.is_file():
        return None
    stem = checkpoint.stem.lower()
    found = sorted(
        entry for entry in checkpoint.parent.iterdir()
        if entry.name.lower().startswith(stem) and entry.name.lower().endswith(AUTOMATIC_ENDINGS) and entry != checkpoint and entry.is_file()
    )  # fmt: skip
    return min(found, key=lambda entry: entry.name.lower() not in {stem + ending for ending in AUTOMATIC_ENDINGS}, default=None)


LONGEST_SETTINGS = 100_000      # bytes
_V = re.compile(r"^\s*parameterization\s*:\s*[\"']?v[\"']?\s*(#.*)?$", re.MULTILINE)


def stated_prediction(checkpoint: Path) -> str | None:
    """What the settings of ldm beside a checkpoint (model.yaml) say that it predicts; None where there are none."""
    settings = checkpoint.with_suffix(".yaml")
    with suppress(OSError, ValueError):
        if settings.stat().st_size <= LONGEST_SETTINGS and "target:" in (text := settings.read_text("utf-8")):
            return "v_prediction" if _V.search(text) else "epsilon"
    return None
