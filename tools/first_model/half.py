"""The autoencoder at half size: the same network without its outermost level, on pictures of 64 pixels. Four times cheaper to train.

`HalfVae` shares its weights with a full AutoencoderKL of two levels of equal width at the outside. `grow` then sets the outermost
level so that the full network gives the half one's answer: the encoder's becomes an exact 2 x 2 mean, the decoder's repeats pixels.
After that the encoder is finished, and only the decoder goes on, at full size.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

FRAME = 40.0    # height of the frame that keeps the decoder's last norm harmless, in deviations: see `_frame`


class HalfVae(nn.Module):
    """Encodes and decodes [b, 3, 64, 64] with all but the outermost level of `vae`."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.stem = nn.Conv2d(3, vae.encoder.conv_in.out_channels, 1)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each [b, 4, 16, 16]."""
        encoder, h = self.vae.encoder, self.stem(x)
        for block in encoder.down_blocks[1:]:
            h = block(h)
        h = encoder.conv_out(torch.nn.functional.silu(encoder.conv_norm_out(encoder.mid_block(h))))
        mean, log_variance = self.vae.quant_conv(h).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def decode(self, z: Tensor) -> Tensor:
        decoder = self.vae.decoder
        h = decoder.mid_block(decoder.conv_in(self.vae.post_quant_conv(z)))
        for block in decoder.up_blocks[:-2]:
            h = block(h)
        for resnet in decoder.up_blocks[-2].resnets:
            h = resnet(h, None)
        return decoder.conv_out(torch.nn.functional.silu(h))


@torch.no_grad()
def grow(half: HalfVae, x: Tensor) -> None:
    """Sets the outermost level of `half.vae`. x: some pictures [b, 3, 128, 128], by which the last norm is set."""
    vae, encoder, decoder = half.vae, half.vae.encoder, half.vae.decoder
    for block in (*encoder.down_blocks[0].resnets, *decoder.up_blocks[-1].resnets):
        block.conv2.weight *= 0.0
        block.conv2.bias.zero_()
    nn.init.normal_(encoder.conv_in.weight, std=0.01)
    encoder.conv_in.bias.zero_()
    down = encoder.down_blocks[0].downsamplers[0].conv
    down.weight.zero_()
    down.bias.copy_(half.stem.bias)
    encoder.conv_in.weight[:3].zero_()
    for c in range(3):
        encoder.conv_in.weight[c, c, 1, 1] = 1
        down.weight[:, c, :2, :2] = half.stem.weight[:, c] / 4      # the window starts at the pixel itself: rows and columns 0 and 1
    nn.init.dirac_(decoder.up_blocks[-2].upsamplers[0].conv.weight)
    decoder.up_blocks[-2].upsamplers[0].conv.bias.zero_()
    _frame(vae, x)


def _frame(vae: AutoencoderKL, x: Tensor) -> None:
    """Makes the decoder's last norm nearly the identity.

    With 32 groups a norm of 32 channels takes each channel's mean and contrast away. A constant on the outermost pixels of each
    channel, -FRAME times its deviation, rules the mean and deviation, so that the inside passes nearly unchanged, and the activation
    hides the frame. It comes from a Laplacian over a constant channel, which is zero inside and sees the zero padding at the edge.
    """
    last, norm = vae.decoder.up_blocks[-1].resnets[-1], vae.decoder.conv_norm_out
    last.norm2.weight[0], last.norm2.bias[0] = 0, 1.278     # silu(1.278) = 1: a constant channel
    last.conv1.weight[0].zero_()
    height = FRAME * _before_norm(vae, x).std((0, 2, 3))
    last.conv2.weight[:, 0] = height.view(-1, 1, 1) / 3     # at an edge three of the eight neighbours are missing
    last.conv2.weight[:, 0, 1, 1] = -8 * height / 3
    framed = _before_norm(vae, x)
    norm.weight.copy_(framed.std((0, 2, 3)))
    norm.bias.copy_(framed.mean((0, 2, 3)))


def _before_norm(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """What the decoder's last norm is given for the pictures x."""
    seen: list[Tensor] = []
    hook = vae.decoder.conv_norm_out.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    vae.decode(vae.encode(x).latent_dist.mean)
    hook.remove()
    return seen[0]
