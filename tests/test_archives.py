"""Archives of model files: what is honest is unpacked whole, everything else is refused in a sentence and leaves nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbsd import cli
from nbsd.errors import ModelError, UnsafeFileError
from nbsd.models import archives
from nbsd.models.archives import Member, checked, unpack
from nbsd.models.weights import open_weights

BYTES = random.Random(0).randbytes(5120)


def tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def zipped(path: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


GOOD = (("modules/anime.pt", BYTES), ("modules/deep/furry.PT", BYTES[:7]), ("readme.txt", b"x"), ("modules/card.png", b"y" * 9))


@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress, lzma.compress, "zip"], ids=["tar", "gz", "bz2", "xz", "zip"])
def test_the_model_files_of_an_archive_come_out_and_nothing_else(tmp_path, pack):
    path = tmp_path / "full_modules.tar"
    if pack == "zip":
        zipped(path, *GOOD, compression=zipfile.ZIP_STORED)
    else:
        tar(path, *GOOD, info("modules", tarfile.DIRTYPE))
        path.write_bytes(pack(path.read_bytes()) if pack else path.read_bytes())
    told = []
    written = unpack(path, tmp_path / "out", lambda *numbers: told.append(numbers))
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in written) == ["modules/anime.pt", "modules/card.png", "modules/deep/furry.PT"]
    assert sorted(file for file in (tmp_path / "out").rglob("*") if file.is_file()) == sorted(written)
    assert (tmp_path / "out" / "modules" / "anime.pt").read_bytes() == BYTES
    assert told[-1] == (len(BYTES) + 16, len(BYTES) + 16)


HARMFUL = {
    "up and out": ("../evil.pt", b"x"),
    "up in the middle": ("a/../../evil.pt", b"x"),
    "absolute": ("/tmp/evil.pt", b"x"),
    "of Windows": ("C:\\evil.pt", b"x"),
    "backslashes": ("..\\..\\evil.pt", b"x"),
    "a text that reaches out": ("../readme.txt", b"x"),
    "a name with a bell": ("a\x07b.pt", b"x"),
    "a name without end": ("a" * 900 + ".pt", b"x"),
    "a symbolic link": info("evil.pt", tarfile.SYMTYPE, "/etc/passwd"),
    "a link to a folder": info("folder", tarfile.SYMTYPE, "/etc"),
    "a hard link": info("evil.pt", tarfile.LNKTYPE, "/etc/passwd"),
    "a device": info("evil.pt", tarfile.CHRTYPE),
    "a disk": info("evil.pt", tarfile.BLKTYPE),
    "a pipe": info("evil.pt", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_tar_is_refused_before_the_first_file_is_written(tmp_path, name):
    path = tar(tmp_path / "modules.tar", ("good.pt", BYTES), HARMFUL[name])
    with pytest.raises(UnsafeFileError, match=r"'modules\.tar' was not unpacked: it (would write to|holds)") as caught:
        unpack(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.rglob("*")] == ["modules.tar"]


@pytest.mark.parametrize("name", [name for name, member in HARMFUL.items() if isinstance(member, tuple)])
def test_a_harmful_zip_is_refused_too(tmp_path, name):
    path = zipped(tmp_path / "modules.zip", ("good.pt", BYTES), HARMFUL[name], compression=zipfile.ZIP_STORED)
    with pytest.raises(UnsafeFileError):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_zips_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("evil.pt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeFileError, match="holds a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "a header that lies"])
def test_what_grows_beyond_all_measure_is_refused(tmp_path, kind):
    path = tmp_path / "bomb"
    if kind == "zip":
        zipped(path, ("a.pt", bytes(30_000_000)))
    elif kind == "tar.gz":
        path.write_bytes(gzip.compress(tar(tmp_path / "b", ("a.pt", bytes(30_000_000))).read_bytes()))
        (tmp_path / "b").unlink()
    else:
        big = tarfile.TarInfo("a.pt")
        big.size = 2**40
        path.write_bytes(big.tobuf())
    with pytest.raises(ModelError, match=r"grows to many times its size|claim to be|damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_a_broken_archive_leaves_nothing(tmp_path):
    path = tar(tmp_path / "a.tar", ("one.pt", BYTES), ("two.pt", BYTES))
    unpack(path, tmp_path / "out")
    with pytest.raises(ModelError, match=r"'.*one\.pt' is there already"):
        unpack(path, tmp_path / "out")
    (tmp_path / "cut.tar").write_bytes(path.read_bytes()[:7000])
    with pytest.raises(ModelError, match="damaged"):
        unpack(tmp_path / "cut.tar", tmp_path / "cut")
    assert not [file for file in (tmp_path / "cut").rglob("*") if file.is_file()]
    twins = tar(tmp_path / "twins.tar", ("one.pt", BYTES), ("ONE.pt", BYTES))
    with pytest.raises(ModelError, match="two of its files have one name"):
        unpack(twins, tmp_path / "twins")


def test_a_full_disk_is_noticed_before(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Disk", (), {"free": archives.SPARE})())
    with pytest.raises(ModelError, match="the disk has less"):
        unpack(tar(tmp_path / "a.tar", ("one.pt", BYTES)), tmp_path / "out")


def test_what_is_no_archive_or_holds_no_models(tmp_path):
    (tmp_path / "a.tar").write_bytes(BYTES)
    with pytest.raises(ModelError, match="damaged, or no tar or zip"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    with pytest.raises(ModelError, match="holds no model files"):
        unpack(tar(tmp_path / "b.tar", ("readme.txt", b"x")), tmp_path / "out")


def test_a_tar_that_was_chosen_as_a_model_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"is a tar archive, not a model file: unpack it \(nbsd unpack\)"):
        open_weights(tar(tmp_path / "modules.ckpt", ("one.pt", BYTES)))


def test_a_tar_that_ends_with_a_file_of_torch_is_no_zip(tmp_path):
    """torch saves zips, and a zip is known by its end: NovelAI's _modules.tar is full of them."""
    with tarfile.open(tmp_path / "modules.tar", "w") as tar:
        tar.add(Path(__file__).parent / "data" / "fidelity" / "models" / "tiny-hyper.pt", "modules/old.pt")
    assert zipfile.is_zipfile(tmp_path / "modules.tar")
    assert [path.name for path in unpack(tmp_path / "modules.tar", tmp_path / "out")] == ["old.pt"]


def test_the_command(tmp_path, capsys):
    path = tar(tmp_path / "full_modules.tar", ("modules/one.pt", BYTES))
    assert cli.main(["unpack", str(path)]) == cli.OK
    assert capsys.readouterr().out.strip() == str(tmp_path / "full_modules" / "modules" / "one.pt")
    assert cli.main(["unpack", str(path)]) == cli.FAILED


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("./\\ab:~\0\u202e"), max_size=12).map(lambda name: f"{name}.pt"))
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    try:
        place = checked(tmp_path, Member(name, 1, ""))
    except UnsafeFileError:
        return
    if place is not None:
        assert (tmp_path / place).resolve().is_relative_to(tmp_path.resolve())
        assert not place.is_absolute()
