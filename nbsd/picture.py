"""A finished picture with the recipe that made it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from nbsd.recipe import Recipe


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """`.image` (PIL, RGB), `.recipe`, `.infotext` and, once it is saved, `.path`. Shows itself in a notebook."""

    image: Image
    recipe: Recipe
    path: Path | None = None
    latent: torch.Tensor | None = None   # [4, h, w], float32 on CPU; what the VAE decoded

    def __repr__(self) -> str:
        """One line, so that a list of pictures at the end of a cell stays readable."""
        where = f", {self.path}" if self.path else ""
        return f"<picture {self.image.width}x{self.image.height}, seed {self.recipe.seed}{where}>"

    @property
    def infotext(self) -> str:
        """The text that the saved file carries: complete, so that it makes the same picture again."""
        return self.recipe.infotext(complete=True)

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.image.save(out, "PNG")
        return out.getvalue()
