"""The picture as it grows: small, quick, and not too often."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from nbsd.images import to_pil
from nbsd.models.families import SD1, SDXL, SDXL_REFINER, Family

PACE = 0.2          # seconds between two previews: ipywidgets drops nothing, so more would pile up
LARGEST = 512       # pixels of the longer side
SCALE = 8           # pixels per latent
QUALITY = 80        # of the JPEG

# The web UI's live preview "Approx cheap": latent channels (rows) to red, green, blue.
LATENT_TO_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
SDXL_TO_RGB = ((0.3448, 0.4168, 0.4395), (-0.1953, -0.0290, 0.0250), (0.1074, 0.0886, -0.0163), (-0.3730, -0.2499, -0.2088))
COLORS = {SDXL: SDXL_TO_RGB, SDXL_REFINER: SDXL_TO_RGB}     # of the families whose latents are not those of SD 1


def latent_to_rgb(x0: Tensor, family: Family = SD1) -> Tensor:
    """Latents [4, h, w] to rough colours [3, h, w], nominally -1 to 1, without a VAE."""
    matrix = torch.tensor(COLORS.get(family, LATENT_TO_RGB), device=x0.device)
    return torch.einsum("lhw,lc->chw", x0.float(), matrix)


def cheap_preview(x0: Tensor, family: Family = SD1) -> bytes:
    """A JPEG of the latents [4, h, w], 8 times as large but at most 512 pixels wide and high."""
    small = to_pil(latent_to_rgb(x0, family))
    scale = min(SCALE, LARGEST / max(small.size))
    width, height = (max(1, round(side * scale)) for side in small.size)
    out = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


class PreviewThrottle:
    """Says when a preview is due: the first at once, then at most one in `pace` seconds."""

    def __init__(self, pace: float = PACE, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace, self._clock = pace, clock
        self._next = clock()

    def due(self) -> bool:
        """Whether to make one now; a yes counts as made."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._pace
        return True
