"""The autoencoder at half size: the same network without its outermost level, on pictures of 64 pixels. Many times cheaper to train.

`grow` makes a full autoencoder of it that gives the same answers at 128 pixels. After that the encoder is finished, and only the
decoder goes on.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .networks import HALF_VAE_WIDTHS, make_vae

CARRIED = 6     # first channels that `start` keeps free of noise
SHIFT = 4.0     # where silu is nearly the identity
FRAME = 20.0    # height of the frame that keeps the decoder's last norm harmless, in the channel's size: see `_pairs`


class HalfVae(nn.Module):
    """Encodes and decodes [b, 3, 64, 64] with all but the outermost level of an AutoencoderKL."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = make_vae(HALF_VAE_WIDTHS)
        self.stem = nn.Conv2d(3, HALF_VAE_WIDTHS[0], 1)

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
def start(half: HalfVae, x: Tensor) -> None:
    """Initial weights from which few steps suffice: three latents begin as the mean colours of their 8 x 8 pixels, and are read as such.

    Residual branches start small, so that the straight road of stem, shortcuts, down- and upsampling carries the colours in channels
    0, 2 and 4 (encoder) and 0, 1 and 2 (decoder); an activation is passed at x + SHIFT, where it is nearly the identity. The encoder's
    last norm has two channels in a group: each odd channel starts as its neighbour's negative with a frame (see `laplacian`), so that the
    pair's mean and deviation are the frame's, and the norm does not take the picture's own mean and contrast away.
    x: some pictures [b, 3, 64, 64], by which that norm is set.
    """
    vae: Any = half.vae
    encoder, decoder = vae.encoder, vae.decoder
    stem: Any = half.stem
    for module in vae.modules():
        if type(module).__name__ == "ResnetBlock2D":
            module.conv2.weight *= 0.15
            module.conv2.weight[:CARRIED] = 0
            if module.conv_shortcut is not None:
                nn.init.orthogonal_(module.conv_shortcut.weight)
                _carry(module.conv_shortcut, 1.0)
        elif type(module).__name__ == "Attention":
            module.to_out[0].weight *= 0.1
            module.to_out[0].weight[:CARRIED] = 0
        elif type(module).__name__ == "Downsample2D":
            nn.init.normal_(module.conv.weight, std=(9 * module.conv.in_channels) ** -0.5)
            _carry(module.conv, 0.25)
        elif type(module).__name__ == "Upsample2D":
            module.conv.weight.normal_(std=0.02)
            module.conv.weight[:CARRIED] = 0
            module.conv.bias[:CARRIED] = 0
            for c in range(module.conv.in_channels):
                module.conv.weight[c, c, 1, 1] += 1
    for c in range(3):
        stem.weight[2 * c : 2 * c + 2] = 0
        stem.bias[2 * c : 2 * c + 2] = 0
        stem.weight[2 * c, c], half.stem.weight[2 * c + 1, c] = 1, -1
    laplacian(encoder.mid_block.resnets[1], slice(1, None, 2), torch.tensor(16.0))
    mean, std = _groups(half, x)
    encoder.conv_norm_out.weight.copy_(std)
    encoder.conv_norm_out.bias.copy_(mean)
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    vae.quant_conv.bias[4:] = -6        # the logarithm of a small variance: little noise to begin with
    nn.init.dirac_(vae.quant_conv.weight[:4])
    nn.init.dirac_(vae.post_quant_conv.weight)
    vae.post_quant_conv.bias.zero_()
    for c in range(3):
        encoder.conv_norm_out.bias[2 * c] += SHIFT
        encoder.conv_out.weight[c] = 0
        encoder.conv_out.weight[c, 2 * c, 1, 1], encoder.conv_out.bias[c] = 1, -SHIFT
        decoder.conv_in.weight[c] = 0
        decoder.conv_in.weight[c, c, 1, 1], decoder.conv_in.bias[c] = 1, SHIFT
        decoder.conv_out.weight[c] *= 0.2
        decoder.conv_out.weight[c, :3] = 0
        decoder.conv_out.weight[c, c, 1, 1], decoder.conv_out.bias[c] = 1, -SHIFT


def _carry(conv: Any, share: float) -> None:
    """Lets the first channels through unmixed: a 1x1 convolution passes them, one of stride 2 takes the mean of 2 x 2 pixels."""
    for c in range(CARRIED):
        conv.weight[c] = 0
        conv.bias[c] = 0
        conv.weight[c, c, :2, :2] = share


def laplacian(resnet: Any, channels: slice, height: Tensor) -> None:
    """Lets a residual branch add -height to the outermost pixels of the channels, and nothing inside: a Laplacian over a constant
    channel, which is zero inside and sees the zero padding at the edge."""
    resnet.norm2.weight[0], resnet.norm2.bias[0] = 0, 1.278     # silu(1.278) = 1: the first hidden channel is constant
    resnet.conv2.weight[channels, 0] = height.view(-1, 1, 1) / 3    # at an edge three of the eight neighbours are missing
    resnet.conv2.weight[channels, 0, 1, 1] = -8 * height / 3


def _groups(half: HalfVae, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each group of the encoder's last norm, repeated for its channels."""
    seen: list[Tensor] = []
    hook = half.vae.encoder.conv_norm_out.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    half.moments(x)
    hook.remove()
    grouped = seen[0].unflatten(1, (32, -1)).transpose(0, 1).flatten(1)
    repeat = seen[0].shape[1] // 32
    return grouped.mean(1).repeat_interleave(repeat), grouped.std(1).repeat_interleave(repeat)


@torch.no_grad()
def grow(half: HalfVae, x: Tensor) -> AutoencoderKL:
    """A full autoencoder that gives the half one's answer at twice the size. x: some pictures [b, 3, 128, 128], to set the last norm.

    The encoder's outermost level becomes an exact 2 x 2 mean; the decoder's repeats pixels. It is 64 channels wide, each of the half
    network's 32 twice: the encoder's norms see pairs of equals, which leaves their answer as it was, and the decoder's last norm
    pairs of opposites.
    """
    vae: Any = make_vae()
    inner: Any = half.vae
    encoder, decoder = vae.encoder, vae.decoder
    own = vae.state_dict()
    vae.load_state_dict(own | {key: tensor for key, tensor in inner.state_dict().items() if own[key].shape == tensor.shape})
    for resnet in (*encoder.down_blocks[0].resnets, *decoder.up_blocks[-1].resnets):
        resnet.conv2.weight.zero_()
        resnet.conv2.bias.zero_()
    stem: Any = half.stem
    down = encoder.down_blocks[0].downsamplers[0].conv
    encoder.conv_in.bias.zero_()
    down.weight.zero_()
    down.bias.copy_(stem.bias.repeat_interleave(2))
    for c in range(3):
        encoder.conv_in.weight[c] = 0
        encoder.conv_in.weight[c, c, 1, 1] = 1
        mean = stem.weight[:, c].repeat_interleave(2, 0) / 4
        down.weight[:, c, :2, :2] = mean        # the window of stride 2 starts at the pixel itself: rows and columns 0 and 1
    _double_input(encoder.down_blocks[1].resnets[0], inner.encoder.down_blocks[1].resnets[0])
    repeat = decoder.up_blocks[-2].upsamplers[0].conv
    nn.init.dirac_(repeat.weight)
    repeat.bias.zero_()
    _pairs(vae, inner.decoder.conv_out, x)
    return vae


def _double_input(resnet: Any, source: Any) -> None:
    """Makes the resnet read each of the source's input channels twice, at half the weight."""
    resnet.norm1.weight.copy_(source.norm1.weight.repeat_interleave(2))
    resnet.norm1.bias.copy_(source.norm1.bias.repeat_interleave(2))
    resnet.conv1.weight.copy_(source.conv1.weight.repeat_interleave(2, 1) / 2)
    resnet.conv_shortcut.bias.zero_()
    resnet.conv_shortcut.weight.zero_()
    for c in range(resnet.conv_shortcut.out_channels):
        resnet.conv_shortcut.weight[c, 2 * c : 2 * c + 2] = 0.5


def _pairs(vae: Any, conv_out: Any, x: Tensor) -> None:
    """Makes the decoder's last norm nearly the identity.

    Its groups are pairs of channels. Each pair is a channel and its opposite, so that the mean is nothing's, and the opposite has a
    frame on its outermost pixels, FRAME times the channel's size, that rules the deviation and that the activation hides.
    """
    block, norm = vae.decoder.up_blocks[-1], vae.decoder.conv_norm_out
    shortcut = block.resnets[0].conv_shortcut
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    for c in range(shortcut.in_channels):
        shortcut.weight[2 * c, c], shortcut.weight[2 * c + 1, c] = 1, -1
    size = _seen(norm, vae, x)[:, 0::2].square().mean((0, 2, 3)).sqrt()
    laplacian(block.resnets[-1], slice(1, None, 2), FRAME * size)
    pairs = _seen(norm, vae, x).unflatten(1, (-1, 2)).transpose(0, 1).flatten(1)
    norm.weight.copy_(pairs.std(1).repeat_interleave(2))
    norm.bias.copy_(pairs.mean(1).repeat_interleave(2))
    vae.decoder.conv_out.weight.zero_()
    vae.decoder.conv_out.weight[:, 0::2] = conv_out.weight
    vae.decoder.conv_out.bias.copy_(conv_out.bias)


def _seen(norm: nn.Module, vae: AutoencoderKL, x: Tensor) -> Tensor:
    """What a norm inside the autoencoder is given for the pictures x."""
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    vae.decode(vae.encode(x).latent_dist.mean)
    hook.remove()
    return seen[0]
