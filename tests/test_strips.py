"""models/strips.py: large pictures through the VAE in little memory, with the result of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

import nbsd
from nbsd.errors import Stopped
from nbsd.models import strips
from nbsd.models.packed import pack_layers
from nbsd.models.strips import Kept, Made, Scaled, Whole, decode_in_strips, doubled, encode_in_strips, is_large

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"


@pytest.fixture(scope="module")
def tiny():
    return nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu")


def latents(height: int = 24, width: int = 18) -> torch.Tensor:
    """With large forms, so that the parts of the picture have brightnesses and contrasts of their own."""
    generator = torch.manual_seed(0)
    large = nn.functional.interpolate(torch.randn(1, 4, 5, 5, generator=generator), size=(height, width), mode="bicubic")
    return large * 1.5 + torch.randn(1, 4, height, width, generator=generator) * 0.4


@pytest.mark.parametrize("kept", [2**28, 0], ids=["kept", "made anew"])
def test_the_decoded_picture_is_that_of_the_whole(tiny, monkeypatch, kept):
    """The seams are none: nowhere more than one of 255 off, where neighbouring pixels differ by dozens."""
    vae = tiny.checkpoint.vae
    with torch.inference_mode():
        want = vae.decode(latents(), return_dict=False)[0]
    monkeypatch.setattr(strips, "STRIP", 2**18)
    monkeypatch.setattr(strips, "KEPT", kept)
    gap = (decode_in_strips(vae, latents()) - want).abs() * 127.5
    assert float(gap.max()) < 1 < float(want.std()) * 127.5 / 20


def test_the_encoded_picture_is_that_of_the_whole(tiny, monkeypatch):
    vae = tiny.checkpoint.vae
    pixels = torch.rand(1, 3, 120, 136, generator=torch.manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        want = vae._encode(pixels)[:, :4]
    monkeypatch.setattr(strips, "STRIP", 2**18)
    got = encode_in_strips(vae, pixels)[:, :4]
    assert got.shape == want.shape and float((got - want).abs().max()) < 0.02 * float(want.std())


def test_large_pictures_go_that_way_by_themselves(tiny, monkeypatch):
    assert is_large(2048, 2048) and not is_large(1024, 1024)
    whole = tiny.decode(latents(8, 8))
    monkeypatch.setattr(strips, "LARGEST_WHOLE", 16)
    made, back = tiny.decode(latents(8, 8)), tiny.decode(latents(8, 8), whole=True)
    assert not made.equal(whole) and float((made - whole).abs().max()) < 1 / 127.5
    assert back.equal(whole)
    assert tiny.encode(whole).shape == (1, 4, 8, 8)


def test_stop_is_heard_between_strips(tiny, monkeypatch):
    monkeypatch.setattr(strips, "STRIP", 2**14)

    def stop() -> None:
        raise Stopped("asked")

    with pytest.raises(Stopped):
        decode_in_strips(tiny.checkpoint.vae, latents(8, 8), stop)


@pytest.mark.parametrize("packed", [True, False])
def test_four_small_convolutions_are_the_upsampler(packed):
    torch.manual_seed(0)
    upsampler, x = Upsample2D(64, use_conv=True, out_channels=64).requires_grad_(False), torch.randn(1, 64, 5, 7)
    want = upsampler(x)
    for layer in pack_layers(upsampler).values() if packed else ():
        layer.weight = nn.Parameter(layer.packed(layer.weight), requires_grad=False)
    with torch.inference_mode():
        torch.testing.assert_close(doubled(upsampler)(x), want, rtol=1e-5, atol=1e-5)
    if not packed:
        assert doubled(upsampler.half()) is upsampler       # sums of weights would be rounded


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sums_are_exact_where_the_mean_is_large(layout):
    x = (torch.randn(1, 3, 40, 7, generator=torch.manual_seed(0)) + 300).contiguous(memory_format=layout)
    sums = strips.Sums()
    for at in range(0, 40, 8):
        sums.add(x[:, :, at : at + 8])
    count, total, squares = sums.moments
    values = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(total / count, values.mean(1), rtol=1e-9, atol=0)
    torch.testing.assert_close(squares / count - (total / count) ** 2, values.var(1, correction=0), rtol=1e-5, atol=0)
    assert strips.largest(-x) == float(x.abs().max())


def test_what_was_read_last_is_not_made_again():
    asked = []

    class Asked(Whole):
        def read(self, start, end):
            asked.append((start, end))
            return super().read(start, end)

    x = torch.arange(40.0).view(1, 1, 20, 2)
    rows = strips.Latest(Asked(x))
    for start, end in ((0, 6), (1, 5), (4, 9), (4, 9), (0, 2)):
        assert rows.read(start, end).equal(x[:, :, start:end])
    assert asked == [(0, 6), (4, 9), (0, 2)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_put_away_is_the_same_and_lies_the_same(layout):
    x = torch.randn(1, 3, 4, 5, generator=torch.manual_seed(0)).contiguous(memory_format=layout)
    away = strips.put_away(x)
    assert away.equal(x.half()) and away.is_contiguous(memory_format=layout)


def test_no_strip_of_the_picture_is_made_from_much_more_than_others(tiny, monkeypatch):
    """The last layer makes 3 channels of many: as high as its strips could be, what goes in would be the whole again."""
    monkeypatch.setattr(strips, "STRIP", 2**16)
    decoder, asked = tiny.checkpoint.vae.decoder, []
    monkeypatch.setattr(decoder.conv_out, "forward", lambda x, plain=decoder.conv_out.forward: asked.append(x.shape[2]) or plain(x))
    decode_in_strips(tiny.checkpoint.vae, latents(24, 8))
    assert max(asked) <= strips.ROWS * 2 + 2 and len(asked) >= 6


def test_nothing_is_kept_that_has_no_room(monkeypatch):
    monkeypatch.setattr(strips, "KEPT", 100)
    assert isinstance(strips.kept_where_it_fits(Whole(torch.zeros(1, 1, 25, 2)), lambda: None), Kept)      # 50 are held already
    assert isinstance(strips.kept_where_it_fits(Whole(torch.zeros(1, 1, 26, 2)), lambda: None), Whole)


class TopRow(nn.Module):
    """Gives the row above: a 3x3 convolution's reach, without its arithmetic."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (0, 0, 1, 0))[:, :, :-1]


def test_rows_are_those_of_the_whole_wherever_they_are_cut():
    x = torch.arange(40.0).view(1, 1, 20, 2)
    made = Made(Made(Whole(x), TopRow(), Scaled.SAME), TopRow(), Scaled.SAME)
    want = TopRow()(TopRow()(x))
    for start in range(20):
        for end in range(start + 1, 21):
            assert made.read(start, end).equal(want[:, :, start:end])


def test_what_is_kept_does_not_overflow_and_can_be_given_up(monkeypatch):
    monkeypatch.setattr(strips, "STRIP", 16)
    x = torch.linspace(-1, 1, 64).view(1, 2, 32, 1) * 1e6
    kept = Kept(Whole(x), lambda: None)
    torch.testing.assert_close(kept.read(3, 30), x[:, :, 3:30], rtol=1e-3, atol=0.5)
    kept.drop(20)
    torch.testing.assert_close(kept.read(20, 30), x[:, :, 20:30], rtol=1e-3, atol=0.5)
    with pytest.raises(ValueError):
        kept.read(0, 8)
    count, total, _ = kept.sums.moments
    assert count.tolist() == [32, 32]
    torch.testing.assert_close(total / count, x[0].double().mean((1, 2)))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_where_memory_is_short_small_pictures_go_in_strips_too(tiny, monkeypatch, error):
    vae, small = tiny.checkpoint.vae, latents(8, 8)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        want, back = tiny.decode(small), tiny.encode(pixels)

    def full(*_, **__):
        raise error

    monkeypatch.setattr(vae, "decode", full)
    monkeypatch.setattr(vae, "encode", full)
    with torch.inference_mode():
        assert float((tiny.decode(small) - want).abs().max()) * 127.5 < 1
        assert float((tiny.encode(pixels) - back).abs().max()) < 0.01 * float(back.std())
        with pytest.raises(type(error)):
            tiny.decode(small, whole=True)      # tiling: strips would not meet at the edges
    monkeypatch.setattr(vae, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny.decode(small)
