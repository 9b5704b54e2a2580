"""Which models stay loaded, where, and what of them is shared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nbsd.errors import Stopped
from nbsd.models import memory, rack
from nbsd.models.rack import CPU, Rack, modules, move

GPU = torch.device("cuda")
UNET, TEXT, VAE = 400, 80, 20       # bytes
WHOLE = UNET + TEXT + VAE


@dataclass(eq=False, kw_only=True)
class Small:
    """What a rack sees of a checkpoint."""

    name: str
    unet: nn.Module
    texts: tuple[nn.Module, ...]
    vae: nn.Module
    vae_path: Path | None = None


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch, request):
    """Where there is no GPU, write down which tensors would be on it."""
    if not torch.cuda.is_available():
        places: dict[int, torch.device] = {}
        monkeypatch.setattr(rack, "carry", lambda tensor, device: places.__setitem__(id(tensor), device))
        monkeypatch.setattr(rack, "place", lambda tensor: places.get(id(tensor), CPU))


def layer(size: int) -> nn.Module:
    return nn.Linear(size // 4, 1, bias=False)


def small(name: str, device: torch.device = CPU) -> Small:
    one = Small(name=name, unet=layer(UNET), texts=(layer(TEXT // 2), layer(TEXT // 2)), vae=layer(VAE))
    move(one, device)
    return one


def held(models: Rack) -> str:
    """Names, the last used one first."""
    return "".join(checkpoint.name for _, checkpoint in models)


def put(models: Rack, name: str, device: torch.device = CPU) -> Small:
    one = small(name, device)
    models.put(name, one, device)
    return one


def where(checkpoint: Small) -> str:
    return "/".join(sorted({rack.place(tensor).type for module in modules(checkpoint) for tensor in module.parameters()}))


def test_the_oldest_ones_go_first_and_use_makes_young():
    models = Rack(ram=3 * WHOLE)
    a = put(models, "a")
    put(models, "b"), put(models, "c")
    assert held(models) == "cba" and models.taken(CPU) == 3 * WHOLE
    assert models.get("a") is a
    put(models, "d")
    assert held(models) == "dac" and models.get("b") is None and models.last.name == "d"


def test_the_one_that_is_used_stays_even_where_it_is_larger_than_the_budget():
    models = Rack(ram=10)
    put(models, "a"), put(models, "b")
    assert held(models) == "b"


def test_what_two_share_counts_once_and_stays_with_either():
    models = Rack(ram=2 * WHOLE)
    a = put(models, "a")
    models.put("b", replace(a, name="b", vae=layer(VAE)), CPU)
    assert models.taken(CPU) == WHOLE + VAE and held(models) == "ba"


def test_beyond_the_gpus_budget_a_model_waits_in_memory_and_comes_back():
    models = Rack(ram=10 * WHOLE, vram=2 * WHOLE)
    a, b, c = (put(models, name, GPU) for name in "abc")
    assert (where(a), where(b), where(c)) == ("cpu", GPU.type, GPU.type) and models.taken(GPU) == 2 * WHOLE
    told = []
    assert models.get("a", lambda *numbers: told.append(numbers)) is a
    assert (where(a), where(b), where(c)) == (GPU.type, "cpu", GPU.type)
    assert told[-1] == (WHOLE, WHOLE) and len(told) > 1


def test_what_waits_in_memory_beyond_its_budget_is_let_go():
    models = Rack(ram=WHOLE, vram=WHOLE)
    a, b, c = (put(models, name, GPU) for name in "abc")
    assert held(models) == "cb" and (where(b), where(c)) == ("cpu", GPU.type) and a not in models


def test_room_for_a_new_model_keeps_the_last_one_where_it_can_wait():
    models = Rack(ram=WHOLE, vram=WHOLE)
    a = put(models, "a", GPU)
    models.make_room(GPU, WHOLE, keep=a, may_wait=True)
    assert held(models) == "a" and where(a) == "cpu"


def test_a_move_that_is_stopped_leaves_all_where_it_was():
    def stop(done, total):
        if done > UNET:
            raise Stopped

    models = Rack(ram=10 * WHOLE, vram=WHOLE)
    a = put(models, "a", GPU)
    put(models, "b", GPU)
    assert where(a) == "cpu"
    with pytest.raises(Stopped):
        models.get("a", stop)
    assert where(a) == "cpu" and held(models) == "ba"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_come_back_bit_for_bit():
    one = small("a")
    before = one.unet.weight.detach().clone()
    move(one, GPU)
    assert one.unet.weight.device.type == "cuda"
    move(one, CPU)
    assert torch.equal(one.unet.weight, before)


def test_clear_gives_all_back():
    models = Rack(ram=10 * WHOLE)
    put(models, "a")
    models.clear()
    assert len(models) == 0 and models.last is None


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")
    (tmp_path / "v2").write_text("4000000000\n")
    (tmp_path / "none").write_text("max\n")
    assert memory.machine((tmp_path / "v2",), tmp_path / "meminfo") == 4_000_000_000
    assert memory.machine((tmp_path / "none", tmp_path / "gone"), tmp_path / "meminfo") == 16_000_000 * 1024
    assert memory.machine((), tmp_path / "gone") == memory.SOME
    assert 0 < memory.budget(CPU) == int(memory.machine() * memory.RAM_SHARE)
