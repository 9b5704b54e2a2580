"""Pickles: what torch writes is read as torch reads it, and nothing that a file says is ever run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbsd.errors import ModelError, UnsafeFileError
from nbsd.models.pickles import Placeholder, read_pickle
from nbsd.models.small import read_small
from nbsd.models.weights import open_weights

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def saved(path: Path, value: object, new: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=new)
    return path


def in_container(path: Path, program: bytes, new: bool = True) -> Path:
    """A torch file whose main pickle is the given program."""
    if new:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/version", "3\n")
        return path
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(parts) + program + pickle.dumps([], 2))
    return path


# What is written


@FORMATS
def test_every_kind_of_tensor_comes_as_torch_reads_it(tmp_path, new):
    base = torch.arange(24.0).view(2, 3, 4)
    value = {
        "plain": base, "turned": base.transpose(0, 2), "part": base[:, 1:, ::2], "one": torch.tensor(3.5), "none": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)), "row": base[1, 2],
        **{str(kind): torch.arange(4).to(kind) for kind in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool
        )},
        "inner": [{"text": "a", 3: (1.5, None, True)}, collections.OrderedDict(a=base)],
    }  # fmt: skip
    path = saved(tmp_path / "a.pt", value, new)
    got, want = read_small(path), torch.load(path, weights_only=True)
    for key, tensor in want.items():
        if isinstance(tensor, torch.Tensor):
            assert got[key].dtype == tensor.dtype, key
            assert torch.equal(got[key], tensor), key
    assert got["inner"][0] == want["inner"][0]
    assert torch.equal(got["inner"][1]["a"], base)


@pytest.mark.parametrize("name", ["tiny-vae.vae.pt", "tiny-embed.pt"])
def test_files_of_the_web_ui_come_as_torch_reads_them(name):
    def flat(value, at=""):
        if isinstance(value, torch.Tensor):
            return {at: value}
        if isinstance(value, dict):
            return {key: tensor for name, item in value.items() for key, tensor in flat(item, f"{at}/{name}").items()}
        return {}

    got, want = flat(read_small(MODELS / name)), flat(torch.load(MODELS / name, weights_only=True))
    assert got.keys() == want.keys()
    assert got
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_a_compressed_archive_is_read_too(tmp_path):
    plain = saved(tmp_path / "a.pt", {"a": torch.arange(1000.0), "b": torch.arange(5)[2:]})
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    got = read_small(tmp_path / "b.pt")
    assert torch.equal(got["a"], torch.arange(1000.0))
    assert got["b"].tolist() == [2, 3, 4]


def test_a_state_dict_is_found_in_its_wrapper_and_bare(tmp_path):
    weights = {"a": torch.ones(2), "step": 3, "b": torch.ones(1)}
    for number, value in enumerate((weights, {"state_dict": weights, "epoch": 1}, {"global_step": 5, "state_dict": weights})):
        assert list(open_weights(saved(tmp_path / f"{number}.pt", value)).tensors) == ["a", "b"]


@FORMATS
def test_what_a_training_program_left_becomes_inert(tmp_path, monkeypatch, new):
    """Real checkpoints hold Lightning's callbacks and omegaconf's settings; they need neither package, and no code of theirs runs."""
    for package, names in {
        "pytorch_lightning.callbacks.model_checkpoint": ["ModelCheckpoint"],
        "pytorch_lightning.utilities.parsing": ["AttributeDict"],
        "omegaconf.dictconfig": ["DictConfig"],
    }.items():
        parts = package.split(".")
        for depth in range(1, len(parts)):
            parent = types.ModuleType(".".join(parts[:depth]))
            parent.__path__ = []
            monkeypatch.setitem(sys.modules, parent.__name__, parent)
        module = types.ModuleType(package)
        for name in names:
            base = dict if name == "AttributeDict" else object
            setattr(module, name, type(name, (base,), {"__module__": package, "__setstate__": lambda *_: pytest.fail("code ran")}))
        monkeypatch.setitem(sys.modules, package, module)
    checkpoint = sys.modules["pytorch_lightning.callbacks.model_checkpoint"].ModelCheckpoint
    settings = sys.modules["omegaconf.dictconfig"].DictConfig()
    settings.kind, settings.where = int, Path("x")
    options = sys.modules["pytorch_lightning.utilities.parsing"].AttributeDict(rate=1e-4)
    value = {"state_dict": {"a": torch.ones(3)}, "callbacks": {checkpoint: {"best": settings}}, "hyper": options, "best": settings}
    path = saved(tmp_path / "a.ckpt", value, new)
    weights = open_weights(path)
    assert list(weights.tensors) == ["a"]
    assert isinstance(weights.tree["best"], Placeholder)
    assert read_small(path)["state_dict"]["a"].tolist() == [1, 1, 1]


# What is refused

MARK = "nbsd-was-here"


def calling(module: str, name: str, *arguments: object) -> bytes:
    """A program that calls a function; `protocol 4` names it with STACK_GLOBAL."""
    body = pickle.dumps(arguments, 4)[2:-1]     # without PROTO and STOP
    return b"\x80\x04" + pickle.dumps(module, 4)[2:-1] + pickle.dumps(name, 4)[2:-1] + b"\x93" + body + b"R."


def by_global(module: str, name: str, argument: str) -> bytes:
    return f"\x80\x02c{module}\n{name}\n(X".encode("latin-1") + struct.pack("<I", len(argument)) + argument.encode() + b"tR."


TOUCH = f"open({MARK!r}, 'w').close()"
INNER = by_global("os", "system", f"touch {MARK}")
HARMFUL = {
    "os.system": by_global("os", "system", f"touch {MARK}"),
    "posix.system": by_global("posix", "system", f"touch {MARK}"),
    "nt.system": by_global("nt", "system", f"touch {MARK}"),
    "builtins.eval": by_global("builtins", "eval", TOUCH),
    "builtins.exec": by_global("builtins", "exec", TOUCH),
    "__builtin__.eval": by_global("__builtin__", "eval", TOUCH),
    "builtins.compile": calling("builtins", "compile", TOUCH, "x", "exec"),
    "builtins.getattr": calling("builtins", "getattr", "os", "system"),
    "builtins.__import__": calling("builtins", "__import__", "os"),
    "builtins.open": calling("builtins", "open", MARK, "w"),
    "builtins.type": calling("builtins", "type", "A", (), {}),
    "subprocess.Popen": calling("subprocess", "Popen", ["touch", MARK]),
    "subprocess.check_output": calling("subprocess", "check_output", ["touch", MARK]),
    "runpy.run_path": calling("runpy", "run_path", MARK),
    "shutil.rmtree": calling("shutil", "rmtree", MARK),
    "webbrowser.open": calling("webbrowser", "open", MARK),
    "importlib.import_module": calling("importlib", "import_module", "os"),
    "functools.partial": calling("functools", "partial", print),
    "operator.methodcaller": calling("operator", "methodcaller", "system", f"touch {MARK}"),
    "pickle.loads": calling("pickle", "loads", INNER),
    "_pickle.loads": calling("_pickle", "loads", INNER),
    "torch.load": calling("torch", "load", MARK),
    "torch.storage._load_from_bytes": calling("torch.storage", "_load_from_bytes", INNER),
    "torch.hub.load": calling("torch.hub", "load", "a/b", "c"),
    "torch.jit.load": calling("torch.jit", "load", MARK),
    "torch._utils._rebuild_wrapper_subclass": calling("torch._utils", "_rebuild_wrapper_subclass", MARK),
    "torch._tensor._rebuild_from_type_v2": calling("torch._tensor", "_rebuild_from_type_v2", MARK),
    "torch.os.system": calling("torch", "os.system", f"touch {MARK}"),
    "torch.serialization.os.system": calling("torch.serialization", "os.system", f"touch {MARK}"),
    "collections.OrderedDict.fromkeys": calling("collections", "OrderedDict.fromkeys", "ab"),
    "numpy.load": calling("numpy", "load", MARK),
    "numpy.f2py.crackfortran.getattr": calling("numpy.f2py.crackfortran", "getattr", MARK),
    "numpy.testing._private.utils.runstring": calling("numpy.testing._private.utils", "runstring", TOUCH, {}),
    "pytorch_lightning.core.saving.load_from": calling("pytorch_lightning.core.saving", "load_from", MARK),
    "omegaconf.os.system": calling("omegaconf", "os.system", f"touch {MARK}"),
    "nbsd.models.load.load_checkpoint": calling("nbsd.models.load", "load_checkpoint", MARK),
    "an old instance": f"(S'touch {MARK}'\nios\nsystem\n.".encode(),
    "an object": f"(cos\nsystem\nS'touch {MARK}'\no.".encode(),
    "an extension": b"\x80\x02\x82\x01.",
    "beside tensors": b"\x80\x02}(X\x01\x00\x00\x00a" + INNER[2:-1] + b"X\x01\x00\x00\x00bK\x01u.",
    "as a key": b"\x80\x02}(" + INNER[2:-1] + b"K\x01u.",
    "as state": b"\x80\x02ccollections\nOrderedDict\n)R}X\x0c\x00\x00\x00__setstate__" + INNER[2:-1] + b"sb.",
}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to stand in, in which nothing may appear."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert os.listdir(folder) == [], "code of the file ran"


@FORMATS
@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_pickle_is_refused_and_named(tmp_path, elsewhere, name, new):
    path = in_container(tmp_path / "model.ckpt", HARMFUL[name], new)
    with pytest.raises(UnsafeFileError) as caught:
        open_weights(path)
    text = str(caught.value)
    assert "model.ckpt" in text
    assert "\n" not in text
    if "." in name:
        assert name.replace("__builtin__", "").strip("_.") in text


def test_the_harmful_pickles_would_have_done_harm(elsewhere):
    """The check above can fail: the plain `pickle` runs the first of them."""
    pickle.loads(HARMFUL["os.system"])
    assert os.listdir(elsewhere) == [MARK]
    os.unlink(MARK)


def test_all_strangers_are_named_at_once(tmp_path):
    program = b"\x80\x02}(K\x01" + INNER[2:-1] + b"K\x02" + by_global("builtins", "eval", "1")[2:-1] + b"u."
    with pytest.raises(UnsafeFileError, match=r"os\.system, builtins\.eval"):
        open_weights(in_container(tmp_path / "a.pt", program))


def test_a_second_pickle_in_an_inner_archive_is_not_looked_for(tmp_path, elsewhere):
    inner = in_container(tmp_path / "inner.pt", INNER)
    with zipfile.ZipFile(tmp_path / "outer.ckpt", "w") as archive:
        archive.write(inner, "archive/inner.pt")
    with pytest.raises(ModelError, match="zip archive and no torch file"):
        open_weights(tmp_path / "outer.ckpt")


# What is broken, or built to use up memory or time

TENSOR = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n%bStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%btQ%btR."


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tensor(kind=b"Float", count=4, offset=0, shape=(2, 2), stride=(2, 1)) -> bytes:
    sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, stride)) + b"t"
    return TENSOR % (kind, number(count), number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)R")


def nested(depth: int) -> bytes:
    """A tuple that holds the same tuple twice, so deep, as the key of a table."""
    return b"\x80\x02}K\x00\x85" + b"2\x86" * depth + b"K\x01s."


BROKEN = {
    "nothing": b"",
    "no end": b"\x80\x02}",
    "too few": b"\x80\x02R.",
    "no mark": b"\x80\x02t.",
    "a memory that is not there": b"\x80\x02h\x07.",
    "half a number": b"\x80\x02J\x01\x00",
    "no opcode": b"\x80\x02\xff.",
    "a text longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a text of 2**63 bytes": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "digits without end": b"L" + b"9" * 10_000 + b"L\n.",
    "a storage of another kind": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "a storage that is missing": tensor(),
    "a storage of no type": TENSOR % (b"Complex", number(4), b"K\x00))"),
    "exponential keys": nested(60),
    "a key that cannot be one": b"\x80\x02}]K\x01s.",
    "a list as table": b"\x80\x02]K\x01K\x02s.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pickle_is_one_sentence(tmp_path, name):
    with pytest.raises(ModelError) as caught:
        open_weights(in_container(tmp_path / "a.ckpt", BROKEN[name]))
    assert "a.ckpt" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "program",
    [
        tensor(shape=(3, 2)), tensor(offset=1), tensor(offset=-1), tensor(shape=(-2, 2)), tensor(stride=(2,)), tensor(stride=(-2, 1)),
        tensor(stride=(4, 1)), tensor(shape=(1000, 1000), stride=(0, 0)), tensor(count=5), tensor(kind=b"Double"),
    ],
)  # fmt: skip
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, program):
    def write(program: bytes) -> Path:
        path = in_container(tmp_path / "a.pt", program)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/data/0", torch.arange(4.0).numpy().tobytes())
        return path

    assert open_weights(write(tensor())).tree.shape == (2, 2)       # the one that is right
    with pytest.raises(ModelError, match="damaged"):
        open_weights(write(program))


def test_a_place_in_the_memory_far_away_costs_nothing():
    assert read_pickle(b"\x80\x02K\x05r\xff\xff\xff\xffj\xff\xff\xff\xff.", lambda _: None, "a") == 5


def test_a_table_within_a_table_a_hundred_thousand_deep_is_read():
    assert isinstance(read_pickle(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", lambda _: None, "a"), list)


def test_a_thing_that_holds_itself_is_refused_where_it_is_walked(tmp_path):
    path = in_container(tmp_path / "a.pt", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.")
    assert open_weights(path).tensors == {}
    with pytest.raises(ModelError, match="holds itself"):
        read_small(path)


@FORMATS
def test_a_file_cut_off_anywhere_is_one_sentence(tmp_path, new):
    whole = saved(tmp_path / "a.pt", {"a": torch.ones(50), "b": torch.ones(7)}, new).read_bytes()
    for length in range(1, len(whole), 37):
        (tmp_path / "b.ckpt").write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            open_weights(tmp_path / "b.ckpt")
        assert "b.ckpt" in str(caught.value)


@FORMATS
def test_bytes_turned_over_anywhere_never_get_further_than_a_sentence(tmp_path, elsewhere, new):
    whole = bytearray(saved(tmp_path / "a.pt", {"a": torch.ones(5), "b": [1, "c"]}, new).read_bytes())
    for at in range(0, min(len(whole), 900), 3):
        changed = whole.copy()
        changed[at] ^= 0x55
        (tmp_path / "b.pt").write_bytes(changed)
        try:
            read_small(tmp_path / "b.pt")
        except ModelError as error:
            assert str(error)


def test_a_member_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor(count=2_000_000, shape=(2_000_000, 1), stride=(1, 1)).replace(b"\x80\x02", b"\x80\x02}X\x01\x00\x00\x00a")[:-1] + b"s.")
        archive.writestr("archive/data/0", bytes(8_000_000))
    with pytest.raises(ModelError, match="claim 8,000,000 bytes"):
        open_weights(path)


def test_a_pickle_too_long_to_be_one_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as member:
        for _ in range(65):
            member.write(bytes(1 << 20))
    with pytest.raises(ModelError, match="its pickle alone has 68,157,440 bytes"):
        open_weights(tmp_path / "a.pt")


def test_a_plain_pickle_is_no_torch_file(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match="a pickle, but no torch file"):
        open_weights(tmp_path / "a.pt")


def test_a_torchscript_program_is_named(tmp_path):
    script = torch.jit.script(torch.nn.Linear(2, 2))
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match="TorchScript"):
        open_weights(tmp_path / "a.pt")


PIECES = st.sampled_from([
    b"]", b"}", b")", b"(", b"N", b"K\x01", b"X\x01\x00\x00\x00a", b"t", b"\x85", b"\x86", b"e", b"a", b"s", b"u", b"0", b"1", b"2", b"q\x00",
    b"h\x00", b"l", b"d", b"R", b"\x81", b"\x92", b"b", b"Q", b"\x93", b"\x94", b"\x8f", b"\x90", b"\x91", b"ccollections\nOrderedDict\n",
    b"ctorch\nSize\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"c_codecs\nencode\n", b"comegaconf\nX\n", b"cos\nsystem\n", b"cbuiltins\nint\n",
])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30))
def test_any_row_of_instructions_ends_in_a_value_or_a_sentence(pieces):
    program = b"\x80\x04" + b"".join(pieces) + b"."
    try:
        read_pickle(program, lambda _: pytest.fail("a storage from nothing"), "any.pt")
    except ModelError as error:
        assert "any.pt" in str(error)
        assert b"os\nsystem" not in program or isinstance(error, UnsafeFileError) or "cannot be followed" in str(error)
    else:
        assert b"os\nsystem" not in program


@FORMATS
@pytest.mark.parametrize("old", [True, False], ids=["torch 1.11", "torch 1.12 and later"])
def test_an_embedding_in_a_parameter_dict_is_read(tmp_path, new, old):
    """The web UI's first embeddings; torch kept the parameters in another place before 1.12."""
    table = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))})
    if old:
        del table.__dict__["_keys"]
    path = saved(tmp_path / "ink.pt", {"string_to_token": {"*": 265}, "string_to_param": table, "name": "ink"}, new)
    state = read_small(path)
    assert torch.equal(state["string_to_param"]["*"], torch.arange(6.0).reshape(2, 3))


def test_a_parameter_dict_with_another_state_is_no_way_in(tmp_path, elsewhere):
    program = b"\x80\x02ctorch.nn.modules.container\nParameterDict\n)\x81}X\x0b\x00\x00\x00_parameters}K\x01" + INNER[2:-1] + b"ssb."
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        open_weights(in_container(tmp_path / "a.pt", program))
