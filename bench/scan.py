"""How long a look at 2,000 model files takes, the first time and the second.

    python bench/scan.py [FILES]

Makes small files (checkpoints, LoRAs, VAEs, embeddings) in a temporary folder laid out as A1111 has it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import time
from pathlib import Path

KINDS = {       # folder -> key and shape of the tensor that shows what the file is
    "Stable-diffusion": ("model.diffusion_model.input_blocks.0.0.weight", (8, 4, 3, 3)),
    "Lora": ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 768)),
    "VAE": ("first_stage_model.decoder.conv_in.weight", (8, 4, 3, 3)),
    "embeddings": ("emb_params", (2, 768)),
}


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = str(Path(name, "cache"))
        root = Path(name, "models")
        for number in range(count):
            folder, (key, shape) = list(KINDS.items())[number % len(KINDS)]
            place = root / folder / f"set {number % 40}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"file {number}.safetensors").write_bytes(small(key, shape))
        from nbsd.models.store import Store

        for what in ("first", "second", "third"):
            began = time.perf_counter()
            entries = Store([root]).scan()
            print(f"{what} look at {len(entries)} files: {time.perf_counter() - began:.3f} s")


def small(key: str, shape: tuple[int, ...]) -> bytes:
    size = 2
    for side in shape:
        size *= side
    header = json.dumps({key: {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
