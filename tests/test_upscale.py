"""pipeline/upscale.py and models/upscale.py: pictures made larger by model files, with a stand-in for spandrel and with spandrel itself."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nbsd.errors import ModelError, NbsdError, RecipeError, Stopped
from nbsd.models.upscale import UpscalerFiles, UpscalerModel, load_upscaler
from nbsd.pipeline.upscale import ByModel, find_upscaler, upscale


class Doubling(torch.nn.Module):
    """Repeats each pixel; what a tile sees beyond its edge does not matter to it, so tiles must not show."""

    scale, supports_half, input_channels, output_channels = 2, True, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(x.shape))
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Blurring(Doubling):
    """Mixes in the neighbours, and zeros beyond the edge: at the edges of tiles it is wrong by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(super().forward(x), 5, 1, 2)


def picture(width: int = 50, height: int = 30) -> Image.Image:
    smooth = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 10, 3), dtype=np.uint8))
    return smooth.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def spandrel(monkeypatch):
    """A stand-in that knows one architecture: files with the key `conv_first.weight`."""
    module = types.ModuleType("spandrel")
    module.UnsupportedModelError = type("UnsupportedModelError", (Exception,), {})
    module.ImageModelDescriptor = Doubling

    class ModelLoader:
        def __init__(self, device: str) -> None: ...

        def load_from_state_dict(self, contents):
            if "conv_first.weight" not in contents.get("params_ema", contents):
                raise module.UnsupportedModelError
            return Doubling()

    module.ModelLoader = ModelLoader
    monkeypatch.setitem(sys.modules, "spandrel", module)
    return module


@pytest.fixture
def folder(tmp_path) -> Path:
    save_file({"conv_first.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "2x-Twice.safetensors")
    save_file({"other": torch.zeros(8)}, tmp_path / "no-upscaler.safetensors")
    torch.save({"params_ema": {"conv_first.weight": torch.zeros(8, 3, 3, 3)}}, tmp_path / "2x-Old.pth")
    return tmp_path


# --- tiles


@pytest.mark.parametrize("tile, overlap", [(0, 8), (16, 4), (17, 5), (192, 8)])
def test_tiles_do_not_show(tile, overlap):
    network = Doubling()
    made = ByModel(UpscalerModel(Path("x"), network, torch.device("cpu")), tile, overlap)(picture(), 2, lambda *_: None)
    assert made.tobytes() == picture().resize((100, 60), Image.Resampling.NEAREST).tobytes()
    assert all(size[2:] == ((tile, tile) if tile else (30, 50)) for size in network.sizes)


def test_the_seams_of_a_model_with_neighbours_are_faint():
    whole, tiled = (ByModel(UpscalerModel(Path("x"), Blurring(), torch.device("cpu")), tile, 8)(picture(), 2, lambda *_: None)
                    for tile in (0, 24))
    inner = np.abs(np.asarray(whole).astype(int) - np.asarray(tiled))[4:-4, 4:-4]
    assert inner.max() <= 16 and inner.mean() < 0.5


def test_a_model_sees_blue_first_and_black_before_a_small_picture():
    class Looking(Doubling):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return super().forward(x)

    network, tile = Looking(), Image.new("RGB", (20, 12), (255, 102, 0))
    made = ByModel(UpscalerModel(Path("x"), network, torch.device("cpu")), 24, 4)(tile, 2, lambda *_: None)
    assert network.seen.shape == (1, 3, 24, 24) and network.seen[0, :, 23, 23].tolist() == pytest.approx([0, 0.4, 1])
    assert not network.seen[0, :, :12].any() and not network.seen[0, :, :, :4].any()
    assert made.size == (40, 24) and made.getpixel((39, 23)) == (255, 102, 0)


def test_tiles_of_some_architectures_are_averaged():
    class Numbering(Doubling):
        """Its n-th answer is n / 10 everywhere."""

        architecture = types.SimpleNamespace(id="SwinIR")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 0 + len(self.sizes) / 10

    network = Numbering()
    made = ByModel(UpscalerModel(Path("x"), network, torch.device("cpu")), 16, 4)(picture(30, 16), 2, lambda *_: None)
    # tiles at 0, 12 and 14; where they overlap, the mean of 0.1, 0.2 and 0.3
    assert [made.getpixel((x, 5))[0] for x in (0, 23, 24, 27, 28, 31, 32, 55, 56)] == [26, 26, 38, 38, 51, 51, 64, 64, 76]
    assert [size[2:] for size in network.sizes] == [(16, 16)] * 3
    assert ByModel(UpscalerModel(Path("x"), network, torch.device("cpu")))(picture(), 2, lambda *_: None).size == (100, 60)


def test_stop_is_heard_between_two_tiles():
    def tell(done: int, of: int) -> None:
        assert of == 12
        if done == 2:
            raise Stopped("asked")

    network = Doubling()
    with pytest.raises(Stopped):
        ByModel(UpscalerModel(Path("x"), network, torch.device("cpu")), 16, 4)(picture(), 2, tell)
    assert len(network.sizes) == 2


# --- files


def test_a_file_is_found_by_name_and_by_path(spandrel, folder):
    assert set(UpscalerFiles([folder]).names()) >= {"2x-Twice", "2x-Old"}
    for name in ("2x-Twice", "2x-Twice.safetensors", "2x-Old", str(folder / "2x-Twice.safetensors")):
        assert find_upscaler(name, UpscalerFiles([folder])).fitted(picture(), (100, 60)).size == (100, 60)
    files = UpscalerFiles([folder])
    assert files.find("2x-Twice") is files.find("2x-Twice")


def test_the_web_uis_names_of_upscalers_mean_their_files(spandrel, folder):
    (folder / "2x-Old.pth").rename(folder / "RealESRGAN_x4plus_anime_6B.pth")
    assert UpscalerFiles([folder]).find("R-ESRGAN 4x+ Anime6B").path.name == "RealESRGAN_x4plus_anime_6B.pth"
    for name, words in (("R-ESRGAN 4x+", "the file RealESRGAN_x4plus.pth, .* fetch it from https://github.com/xinntao/"),
                        ("DAT x4", "the file DAT_x4.pth, which is not here: put it into"), ("4x-Other", "no upscaler called '4x-Other'")):
        with pytest.raises(ModelError, match=words):
            UpscalerFiles([folder]).find(name)


def test_a_model_is_asked_again_until_it_is_enough(spandrel, folder):
    told: list[tuple[int, int]] = []
    made = upscale(picture(), folder / "2x-Twice.safetensors", scale=3, on_progress=lambda *done: told.append(done))
    assert made.size == (144, 88) and told == [(0, 1), (1, 1)] * 2
    assert upscale(picture(), "2x-Twice", size=(70, 40), folders=[folder]).size == (70, 40)


def test_what_is_no_upscaler_is_refused(spandrel, folder, monkeypatch):
    with pytest.raises(ModelError, match="'no-upscaler.safetensors' is no upscaler"):
        load_upscaler(folder / "no-upscaler.safetensors")
    with pytest.raises(ModelError, match="no upscaler called '4x'"):
        upscale(picture(), "4x", folders=[folder])
    monkeypatch.setattr(Doubling, "input_channels", 1)
    with pytest.raises(ModelError, match="no upscaler of colour pictures"):
        load_upscaler(folder / "2x-Twice.safetensors")


def test_without_spandrel_the_command_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(NbsdError, match=r"pip install 'nbsd\[upscale\]'") as refused:
        upscale(picture(), "2x-Twice", folders=[folder])
    assert "\n" not in str(refused.value)


def test_a_network_that_overflows_in_half_precision_is_widened(monkeypatch):
    class Overflowing(Doubling):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (float("inf") if x.dtype == torch.float16 else 1)

    model = UpscalerModel(Path("x"), Overflowing(), torch.device("cpu"))
    model._dtype = torch.float16
    assert model(torch.full((1, 3, 2, 2), 0.5)).tolist() == torch.full((1, 3, 4, 4), 0.5).tolist()


def test_a_real_esrgan_file(tmp_path):
    """The web UI's most common architecture, tiny and with random weights, through spandrel itself."""
    try:
        from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"spandrel cannot be used here: {error}")
    torch.manual_seed(0)
    network = RRDBNet(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=2)
    torch.save({"params": network.state_dict()}, tmp_path / "2x-Tiny.pth")
    model = load_upscaler(tmp_path / "2x-Tiny.pth")
    pixels = torch.rand(1, 3, 9, 12)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), network.eval()(pixels).clamp(0, 1))
    assert model.scale == 2


# --- upscale()


def test_transparency_stays():
    faint = picture().convert("RGBA")
    faint.putalpha(picture().getchannel("R"))
    made = upscale(faint, "Nearest", scale=2)
    assert made.mode == "RGBA" and made.size == (96, 56)
    assert upscale(picture()).mode == "RGB"


@pytest.mark.parametrize("options, words", [({"scale": 9}, "the scale is 9"), ({"size": (9000, 10)}, "the size is 9000x10"),
                                            ({"upscaler": ""}, "no upscaler is called ''")])
def test_what_cannot_be_made_is_said(options, words):
    with pytest.raises(RecipeError, match=words):
        upscale(picture(), **options)
    with pytest.raises(RecipeError, match="more than 67 million pixels"):
        upscale(Image.new("RGB", (5000, 5000)), scale=2)
