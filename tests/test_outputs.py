from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from nbsd import outputs
from nbsd.errors import OutputError
from nbsd.outputs import Outputs
from nbsd.picture import Picture
from nbsd.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Told(Picture):
    text: str = "a cat\nSteps: 20, Sampler: Euler"

    @property
    def infotext(self) -> str:
        return self.text


def picture(seed: int = 7, text: str = "a cat\nSteps: 20, Sampler: Euler", size: tuple[int, int] = (16, 8)) -> Told:
    return Told(Image.linear_gradient("L").resize(size).convert("RGB"), Recipe(seed=seed), text=text)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


TODAY = date.today().isoformat()


def test_a_picture_lies_under_its_day_number_and_seed(tmp_path: Path) -> None:
    out = Outputs(tmp_path / "new" / "folder")
    saved = out.save(picture(seed=2870305590))
    assert saved.path == out.folder / TODAY / "00001-2870305590.png"
    with Image.open(saved.path) as read:
        assert read.text == {"parameters": "a cat\nSteps: 20, Sampler: Euler"}
        assert read.mode == "RGB" and read.tobytes() == saved.image.tobytes()
    assert isinstance(saved, Told) and files(out.folder) == [f"{TODAY}/00001-2870305590.png"]


def test_numbers_count_up_and_no_file_is_replaced(tmp_path: Path) -> None:
    out = Outputs(tmp_path)
    day = tmp_path / TODAY
    day.mkdir()
    (day / "00041-1.png").write_bytes(b"somebody's")
    (day / "notes-00099.txt").write_text("not a number of ours")
    assert [out.save(picture()).path.name for _ in range(2)] == ["00042-7.png", "00043-7.png"]
    (day / "100000-3.png").write_bytes(b"")
    assert out.save(picture()).path.name == "100001-7.png"
    assert (day / "00041-1.png").read_bytes() == b"somebody's"


def test_a_name_taken_in_between_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = Outputs(tmp_path), os.link

    def late(part, path):
        if not Path(path).exists() and Path(path).name.startswith("00001"):
            Path(path).write_bytes(b"the other process was quicker")
        real(part, path)

    monkeypatch.setattr(os, "link", late)
    assert out.save(picture()).path.name == "00002-7.png"
    assert (tmp_path / TODAY / "00001-7.png").read_bytes() == b"the other process was quicker"


@pytest.mark.parametrize("links", [True, False])
def test_two_processes_share_a_folder(tmp_path: Path, links: bool) -> None:
    code = f"""
import sys, os, errno
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_outputs import Outputs, picture
if not {links}:
    def link(*_): raise OSError(errno.EPERM, "no links here")
    os.link = link
out = Outputs({str(tmp_path)!r})
for _ in range(25): out.save(picture())
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    names = files(tmp_path)
    assert len(names) == 75 and all(name.endswith("-7.png") for name in names)
    for name in names:
        with Image.open(tmp_path / name) as read:
            read.load()


@pytest.mark.parametrize("text, chunk", [
    ("café", b"tEXtparameters\0caf\xe9"),
    ("猫, 🐈 (fluffy:1.2)", b"iTXtparameters\0\0\0\0\0" + "猫, 🐈 (fluffy:1.2)".encode()),
])
def test_the_text_is_written_as_the_web_ui_writes_it(tmp_path: Path, text: str, chunk: bytes) -> None:
    path = Outputs(tmp_path).save(picture(text=text)).path
    assert chunk in path.read_bytes()
    with Image.open(path) as read:
        assert read.text["parameters"] == text


def test_half_an_emoji_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = Outputs(tmp_path).save(picture(text="cut here: \ud83d, whole: \ud83d\ude00")).path
    with Image.open(path) as read:
        assert read.text["parameters"] == "cut here: \ufffd, whole: 😀"


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"),
                                           (errno.EROFS, "may not be written"), (errno.EIO, "could not be saved")])
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_failed_save_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str, call: str,
) -> None:
    def fail(*_):
        raise OSError(number, os.strerror(number))

    out = Outputs(tmp_path)
    out.save(picture())
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match=words) as caught:
        out.save(picture())
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and "Studio(outputs=...)" in str(caught.value)
    monkeypatch.undo()
    assert files(tmp_path) == [f"{TODAY}/00001-7.png"]
    assert out.save(picture()).path.name == "00002-7.png"


def test_without_links_a_failure_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_):
        raise OSError(errno.EPERM, "no links here")

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    out = Outputs(tmp_path)
    monkeypatch.setattr(os, "link", no_link)
    assert out.save(picture()).path.name == "00001-7.png"
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        out.save(picture())
    assert files(tmp_path) == [f"{TODAY}/00001-7.png"]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    if sys.platform != "linux" or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False,
    ).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        noise = Told(Image.effect_noise((512, 512), 90).convert("RGB"), Recipe(seed=1))
        out = Outputs(tmp_path)
        out.check()
        with pytest.raises(OutputError, match="disk is full"):
            out.save(noise)
        assert files(tmp_path) == []
        (tmp_path / "filler").write_bytes(b"x" * (os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize))
        with pytest.raises(OutputError, match="disk is full"):
            out.check()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=False)


def test_a_folder_that_cannot_be_one_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Studio"):
        Outputs(tmp_path / "file" / "outputs").check()


def test_check_leaves_no_trace_and_sweeps_half_files_of_dead_kernels(tmp_path: Path) -> None:
    day = tmp_path / TODAY
    day.mkdir()
    old, new = day / f".old{outputs.PART}", day / f".new{outputs.PART}"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 2 * outputs.STALE,) * 2)
    Outputs(tmp_path).check()
    assert files(tmp_path) == [f"{TODAY}/.new{outputs.PART}"]


def test_write_whole_replaces_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "settings.json"
    outputs.write_whole(path, b"one")
    outputs.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError):
        outputs.write_whole(path, b"three")
    assert path.read_bytes() == b"two" and files(tmp_path) == ["a/settings.json"]
