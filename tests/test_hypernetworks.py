"""models/hypernetworks.py: files of both ages, worked out by hand; they act on keys and values, and are gone after the block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nbsd.errors import ModelError
from nbsd.models.hypernetworks import (
    ACTIVATIONS,
    Hypernetwork,
    acting,
    acts_on,
    read_hypernetwork,
)

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"


def linear(*rows: tuple[float, ...], bias: tuple[float, ...] | None = None) -> dict[str, Tensor]:
    weight = torch.tensor(rows)
    return {"weight": weight, "bias": torch.tensor(bias) if bias else torch.zeros(len(rows))}


def named(**layers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name.replace('_', '.')}.{kind}": tensor for name, layer in layers.items() for kind, tensor in layer.items()}


UP, DOWN = linear((1.0, 0.0), (0.0, -1.0), (1.0, 1.0), bias=(0.0, 0.0, 1.0)), linear((1.0, 0.0, 0.0), (0.0, 1.0, 1.0))
X = torch.tensor([[[2.0, 3.0]]])        # UP makes 2, -3, 6 of it; DOWN then 2, 3
NORM = {"weight": torch.tensor([1.0, 1.0, 1.0]), "bias": torch.tensor([0.0, 0.0, 0.0])}

BY_HAND = {
    "of October 2022": (named(linear1=UP, linear2=DOWN), {}, [2, 3]),
    "linear": (named(linear_0=UP, linear_1=DOWN), {"activation_func": "linear"}, [2, 3]),
    "no activation said": (named(linear_0=UP, linear_1=DOWN), {"activation_func": None}, [2, 3]),
    "relu": (named(linear_0=UP, linear_2=DOWN), {"activation_func": "relu", "activate_output": False}, [2, 6]),
    "dropout has a number and no effect": (named(linear_0=UP, linear_3=DOWN),
                                           {"activation_func": "relu", "activate_output": False, "use_dropout": True}, [2, 6]),
    "relu at the output": (named(linear_0=UP, linear_2=linear((-1.0, 0.0, 0.0), (0.0, 1.0, 1.0))),
                           {"activation_func": "relu", "activate_output": True}, [0, 6]),
    "activated output where it is not said": (named(linear_0=UP, linear_2=linear((-1.0, 0.0, 0.0), (0.0, 1.0, 1.0))),
                                              {"activation_func": "relu"}, [0, 6]),
    "no place for an activation, as in a file of October 2022": (named(linear_0=UP, linear_1=DOWN),
                                                                 {"activation_func": "relu", "activate_output": False}, [2, 3]),
    "tanh": (named(linear_0=UP, linear_2=DOWN), {"activation_func": "tanh", "activate_output": False},
             [torch.tanh(torch.tensor(2.0)).item(), (torch.tanh(torch.tensor(-3.0)) + torch.tanh(torch.tensor(6.0))).item()]),
    # 2, 0, 6 have the mean 8/3 and the variance 56/9
    "layer norm behind the activation": (named(linear_0=UP, linear_2=NORM, linear_3=DOWN),
                                         {"activation_func": "relu", "activate_output": False, "is_layer_norm": True},
                                         [(2 - 8 / 3) / (56 / 9 + 1e-5) ** 0.5, (0 + 6 - 16 / 3) / (56 / 9 + 1e-5) ** 0.5]),
}


def saved(folder: Path, network: dict[str, Tensor], about: dict | None = None, width: int = 2) -> Path:
    torch.save({width: (network, network), "name": "ink", "step": 10, **(about or {})}, folder / "ink.pt")
    return folder / "ink.pt"


@pytest.mark.parametrize("network, about, want", BY_HAND.values(), ids=BY_HAND)
def test_worked_out_by_hand(tmp_path, network, about, want):
    made = read_hypernetwork(saved(tmp_path, network, about)).networks[2][0]
    torch.testing.assert_close(made(X)[0, 0], torch.tensor(want, dtype=torch.float32), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Implicit dimension")        # torch's, of softmax without a dimension, as the web UI makes it
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_runs(tmp_path, name):
    slope = {"linear_1": {"weight": torch.tensor([0.5])}} if name == "prelu" else {}
    network = named(linear_0=UP, **slope, linear_2=DOWN)
    made = read_hypernetwork(saved(tmp_path, network, {"activation_func": name, "activate_output": False})).networks[2][0]
    assert made(X).shape == X.shape
    if name == "prelu":
        assert made(X)[0, 0].tolist() == [2, 4.5]


REFUSED = {
    "not one": ({"a": 1}, "no hypernetwork"),
    "another width inside": ({2: (named(linear_0=DOWN), named(linear_0=DOWN))}, "'ink.pt' cannot be used: a layer for 3 numbers stands where 2"),
    "another width behind": ({2: (named(linear_0=UP), named(linear_0=UP))}, "its network for 2 numbers gives 3"),
    "an unknown activation": ({2: (named(linear_0=UP, linear_2=DOWN),) * 2, "activation_func": "sinus"}, "its activation 'sinus' is not known"),
    "an unknown part": ({2: ({"conv.weight": torch.zeros(2, 2)},) * 2}, "it has a part that is not known: conv.weight"),
    "no weight": ({2: ({"linear.0.bias": torch.zeros(2)},) * 2}, "its layer 0 has no weight"),
    "nothing inside": ({2: ({}, {})}, "it has no layers"),
    "a bias of another length": ({2: (named(linear_0=linear((1.0, 0.0), (0.0, 1.0), bias=(1.0, 2.0, 3.0))),) * 2}, "do not go together"),
    "a norm of another length": ({2: (named(linear_0=UP, linear_1={"weight": torch.ones(2), "bias": torch.ones(2)}, linear_2=DOWN),) * 2},
                                 "linear.1.weight of shape \\[2\\] has no place behind 3 numbers"),
}


@pytest.mark.parametrize("tree, message", REFUSED.values(), ids=REFUSED)
def test_a_broken_file_is_refused_in_a_sentence(tmp_path, tree, message):
    torch.save(tree, tmp_path / "ink.pt")
    with pytest.raises(ModelError, match=message):
        read_hypernetwork(tmp_path / "ink.pt")


class Attention(nn.Module):
    """What is seen of an attention: the layers that make keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        for layer in (self.to_q, self.to_k, self.to_v):
            layer.weight = nn.Parameter(torch.eye(width))

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.to_q(x), self.to_k(context), self.to_v(context)


def times(factor: float, width: int = 2) -> nn.Sequential:
    layer = nn.Linear(width, width, bias=False)
    layer.weight = nn.Parameter(torch.eye(width) * factor)
    return nn.Sequential(layer)


def test_keys_and_values_have_networks_of_their_own_and_queries_none():
    unet = nn.ModuleList([Attention(2), Attention(3)])
    one = Hypernetwork(Path("ink.pt"), {2: (times(10), times(100))})
    with acting(unet, [(one, 0.5)]):
        query, key, value = unet[0](X, X)
        assert torch.equal(query, X) and torch.equal(key, X * 6) and torch.equal(value, X * 51)
        wide = torch.ones(1, 1, 3)
        assert all(torch.equal(made, wide) for made in unet[1](wide, wide)), "another width is left alone"
    assert acts_on(unet, one) == 1


def test_several_act_one_after_another():
    unet = nn.ModuleList([Attention(2)])
    first, second = Hypernetwork(Path("a.pt"), {2: (times(1), times(0))}), Hypernetwork(Path("b.pt"), {2: (times(2), times(0))})
    with acting(unet, [(first, 1.0), (second, 0.5)]):
        assert torch.equal(unet[0](X, X)[1], X * 2 * 2)


def test_they_are_gone_after_the_block_also_when_it_breaks():
    unet = nn.ModuleList([Attention(2)])
    one = Hypernetwork(Path("ink.pt"), {2: (times(10), times(100))})
    with pytest.raises(KeyboardInterrupt), acting(unet, [(one, 1.0)]):
        raise KeyboardInterrupt
    assert torch.equal(unet[0](X, X)[1], X)
    assert not any(layer._forward_pre_hooks for layer in unet.modules())


def test_they_take_the_type_of_the_model():
    unet = nn.ModuleList([Attention(2)]).half()
    with acting(unet, [(Hypernetwork(Path("ink.pt"), {2: (times(10), times(100))}), 1.0)]):
        assert unet[0](X.half(), X.half())[1].dtype == torch.float16


def as_in_2022(folder: Path) -> Path:
    """A file as the web UI of October 2022 saved it: nothing but two layers for the keys and two for the values of each size."""
    def network(size: int) -> dict[str, torch.Tensor]:
        layers = {"linear1": nn.Linear(size, 2 * size), "linear2": nn.Linear(2 * size, size)}
        return {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}

    torch.save({size: (network(size), network(size)) for size in (48, 32, 64, 96)}, folder / "old.pt")
    return folder / "old.pt"


@pytest.mark.parametrize("path, layers", [(lambda _: MODELS / "tiny-hyper.pt", 5), (as_in_2022, 2)], ids=["of 1.10", "of 2022"])
def test_files_of_both_ages_act_on_every_attention(tmp_path, path, layers):
    from nbsd.models.load import load_checkpoint

    one = read_hypernetwork(path(tmp_path))
    assert sorted(one.networks) == [32, 48, 64, 96]
    assert {len(network) for pair in one.networks.values() for network in pair} == {layers}
    assert acts_on(load_checkpoint(MODELS / "tiny-sd1.safetensors").unet, one) == 32
