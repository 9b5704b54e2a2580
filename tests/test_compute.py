"""pipeline/compute.py: device and precision, chosen once."""

import pytest
import torch

from nbsd.errors import NbsdError, OutOfMemory
from nbsd.pipeline.compute import choose, memory_errors


def test_a_machine_without_cuda_computes_on_its_cpu_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = choose()
    assert (found.device.type, found.weights, found.vae, found.latents) == ("cpu", torch.float32, torch.float32, torch.float32)


def test_cuda_computes_in_float16_and_steps_in_float32(monkeypatch):
    gpu(monkeypatch, capability=(7, 5), built_for=["sm_75", "sm_80", "sm_90a"])
    found = choose()
    assert (found.device.type, found.weights, found.vae, found.latents) == ("cuda", torch.float16, torch.float16, torch.float32)
    assert found.words == "Tesla T4, float16"


def test_a_gpu_that_this_torch_has_no_code_for_is_refused_by_name(monkeypatch):
    gpu(monkeypatch, capability=(6, 0), built_for=["sm_75", "sm_80"])
    with pytest.raises(NbsdError, match=r"no code for Tesla T4 \(compute capability 6\.0, at least 7\.5 is needed\).*T4 x2"):
        choose()


@pytest.mark.parametrize("device, dtype, words", [
    ("tpu", None, "no device is called 'tpu'"),
    ("meta", None, "the device 'meta' is not supported"),
    ("cpu", "float8", "no precision is called 'float8': use one of float32, float16, bfloat16"),
])
def test_what_is_not_there_is_named(device, dtype, words):
    with pytest.raises(NbsdError, match=words):
        choose(device, dtype)


def test_cuda_is_not_taken_for_granted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NbsdError, match="there is no CUDA device here"):
        choose("cuda")


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes."),
])
def test_a_full_memory_says_what_to_lower(error):
    with pytest.raises(OutOfMemory, match="full while making a picture: lower the batch size"), memory_errors("making a picture"):
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("making a picture"):
        raise RuntimeError("shapes do not match")


def gpu(monkeypatch, capability, built_for):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "Tesla T4")
