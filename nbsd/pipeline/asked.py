"""What the tags of a prompt ask for, as numbers. Standard library only."""

from __future__ import annotations

import math
from typing import NamedTuple

from nbsd.errors import RecipeError
from nbsd.models.detect import HYPERNETWORK, LORA
from nbsd.prompt.networks import Network, split_networks, strip_comments

# The words of the tags; "lyco" was an extension's for its own kinds of LoRA.
KINDS = {"lora": LORA, "lyco": LORA, "hypernet": HYPERNETWORK}
STRONGEST = 1e4         # either way; far beyond what gives a picture


class Asked(NamedTuple):
    """A network and its strengths."""

    kind: str               # LORA or HYPERNETWORK
    name: str
    strength: float         # of a LoRA: in the text encoder
    unet: float             # of a LoRA: in the UNet
    ranks: int | None       # of a LoRA: only its first ranks
    tag: str                # as it stands in the prompt


def asked_for(prompt: str) -> list[Asked]:
    """The networks of a prompt, in its order. Raises RecipeError for a tag that cannot be read."""
    return [read_tag(network) for network in split_networks(strip_comments(prompt))[1]]


def read_tag(network: Network) -> Asked:
    """A tag's strengths, read as the web UI reads them: `name:te:unet:dyn` by place, or `te=`, `unet=`, `dyn=` by name.

    The text encoder's strength is 1 where none is given, and the UNet's is then that of the text encoder.
    """
    tag = f"<{network.kind}:{':'.join(network.items)}>"
    kind = KINDS.get(network.kind)
    if kind is None:
        raise RecipeError(f"no network is of the kind '{network.kind}': use <lora:...> or <hypernet:...>, or take {tag} out")
    if kind == HYPERNETWORK:        # has no named values: all items count by their place
        strength = _number(network.items[1], tag) if len(network.items) > 1 else 1.0
        return Asked(kind, network.items[0], strength, strength, None, tag)
    if not network.args:
        raise RecipeError(f"{tag} names no LoRA: write its name first, as in <lora:name:0.8>")
    given = dict(zip(("name", "te", "unet", "dyn"), network.args, strict=False)) | network.named
    te = _number(given["te"], tag) if "te" in given else 1.0
    unet = _number(given["unet"], tag) if "unet" in given else te
    ranks = int(_number(given["dyn"], tag)) if "dyn" in given else None
    return Asked(kind, network.args[0], te, unet, ranks, tag)


def _number(text: str, tag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= STRONGEST:
        raise RecipeError(f"{text!r} in {tag} is no strength: use a number such as 0.8")
    return value
