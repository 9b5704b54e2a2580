"""pipeline/tiling.py: convolutions that read on at the opposite edge."""

import pytest
import torch
from torch import nn

from nbsd.pipeline.tiling import circular

NET = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1)).requires_grad_(False)
X = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(1))


def test_a_shifted_picture_is_the_shifted_result_inside_the_block_only():
    def shifts() -> bool:
        return torch.allclose(NET(X.roll((2, 3), (2, 3))), NET(X).roll((2, 3), (2, 3)), atol=1e-6)

    with circular(True, NET):
        assert shifts()
    assert not shifts()
    with circular(False, NET):
        assert not shifts()


def test_it_ends_also_when_something_breaks():
    with pytest.raises(RuntimeError), circular(True, NET):
        raise RuntimeError
    assert [layer.padding_mode for layer in NET if isinstance(layer, nn.Conv2d)] == ["zeros", "zeros"]
