"""Time, memory and seams of a large picture's decoding in strips, with a VAE of random weights.

    python bench/strips.py --side 1024 --whole      # beside the whole, in the same process
    python bench/strips.py --side 2048              # the strips alone: peak resident memory is theirs

One thread; seconds are the processor's own (`time.process_time`), for machines that others use too.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from diffusers import AutoencoderKL

from nbsd.models.packed import pack_layers
from nbsd.models.strips import decode_in_strips


def made(width: int) -> AutoencoderKL:
    """A VAE of Stable Diffusion's layout, `width` channels wide at its full size; weights packed as nbsd has them on a CPU."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=[width, 2 * width, 4 * width, 4 * width], down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, latent_channels=4,
    ).eval().requires_grad_(False)
    plain = dict(vae.named_parameters())
    for name, layer in pack_layers(vae).items():
        layer.weight = torch.nn.Parameter(layer.packed(plain[name]), requires_grad=False)
    return vae


def peak() -> float:
    """Peak resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", type=int, default=1024, help="pixels (%(default)s)")
    options.add_argument("--width", type=int, default=128, help="channels at full size; 128 are SD 1's (%(default)s)")
    options.add_argument("--whole", action="store_true", help="decode the whole too, and compare")
    given = options.parse_args()
    torch.set_num_threads(1)
    vae, latents, want = made(given.width), torch.randn(1, 4, given.side // 8, given.side // 8), None
    with torch.inference_mode():
        if given.whole:
            began = time.process_time()
            want = vae.decode(latents, return_dict=False)[0]
            print(f"whole: {time.process_time() - began:.1f} s, peak {peak():.2f} GB")
        began = time.process_time()
        got = decode_in_strips(vae, latents)
    print(f"strips: {time.process_time() - began:.1f} s, peak {peak():.2f} GB")
    if want is not None:
        print(f"largest difference: {float((got - want).abs().max()) * 127.5:.2f} of 255 (standard deviation {float(want.std()) * 127.5:.0f})")


if __name__ == "__main__":
    main()
