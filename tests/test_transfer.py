"""Downloads from a server on 127.0.0.1 that cuts, stalls, lies and redirects: the file is whole or absent."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import namedtuple

import pytest
from download_server import Site, model_bytes, serve

from nbsd.errors import DownloadError, Stopped
from nbsd.hosts.secrets import Secret
from nbsd.models import stream, transfer
from nbsd.models.get import fetch
from nbsd.models.transfer import Offer

DATA = model_bytes()
SHA = hashlib.sha256(DATA).hexdigest()
TOKEN = "hf_do-not-tell-this"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "PAUSES", (0.0,))
    monkeypatch.setattr(stream, "STALL", 0.4)
    monkeypatch.setattr(stream, "LOOK", 0.02)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def site():
    with serve(Site(DATA)) as site:
        yield site


def offer(site: Site, **known) -> Offer:
    return Offer(f"{site.url}/a/model.safetensors?sign=secret", "model.safetensors", **known)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def silent(_):
    return None


def test_a_file_arrives_whole_with_its_hash(site, folder):
    told = []
    path = fetch(offer(site, size=len(DATA), sha256=SHA.upper()), folder, told.append)
    assert path == folder / "model.safetensors" and path.read_bytes() == DATA
    assert names(folder) == ["model.safetensors"]
    assert (told[-1].done, told[-1].total, told[-1].what) == (len(DATA), len(DATA), "model.safetensors")
    assert transfer_cache(path)["sha256"] == SHA        # so that the first picture need not read 4 GB for it


def transfer_cache(path):
    from nbsd.models.cache import CACHE

    return CACHE.get(path)


# What the server does, and whether the file can be had all the same.
SERVERS = {
    "cuts each answer": (dict(cuts=[70_000]), True),
    "cuts the first three": (dict(cuts=[40_000, 0, 90_000, None]), True),
    "stalls once": (dict(stalls=[100_000, None]), True),
    "says no length": (dict(length=lambda true: None), True),
    "fails, then works": (dict(statuses=[503, 500, 429, 200]), True),
    "asks for a moment": (dict(statuses=[429, 200], headers={"Retry-After": "0"}), True),
    "goes on in another place": (dict(cuts=[50_000, None], shift=-100), True),
    "knows no ranges, and cuts once": (dict(ranges=False, cuts=[50_000, None]), True),
    "names no version, and cuts once": (dict(etag=None, cuts=[50_000, None]), True),
    "cuts at once, always": (dict(cuts=[0]), False),
    "knows no ranges, and cuts always": (dict(ranges=False, cuts=[50_000]), False),
    "names no version, and cuts always": (dict(etag=None, cuts=[50_000]), False),
    "stalls always": (dict(stalls=[0]), False),
    "says more than it has": (dict(length=lambda true: true + 1000), False),
    "says less than it has": (dict(length=lambda true: true - 1000), False),
    "says no length, and cuts": (dict(length=lambda true: None, cuts=[50_000], ranges=False), False),
    "fails always": (dict(statuses=[500]), False),
    "has it no more": (dict(statuses=[404]), False),
    "forbids it": (dict(statuses=[403]), False),
    "shows a page": (dict(page="<html>log in first</html>"), False),
    "sends another kind of file": (dict(data=b"PK\x03\x04 no model" * 100), False),
    "sends nothing": (dict(data=b""), False),
    "is cut off on its own disk": (dict(data=DATA[:120_000]), False),
}


@pytest.mark.parametrize("what, works", SERVERS.values(), ids=list(SERVERS))
def test_the_file_is_whole_or_absent(site, folder, what, works):
    for name, value in what.items():
        setattr(site, name, value)
    if works:
        assert fetch(offer(site), folder, silent).read_bytes() == DATA
        assert names(folder) == ["model.safetensors"]
    else:
        with pytest.raises(DownloadError) as caught:
            fetch(offer(site), folder, silent)
        assert not (folder / "model.safetensors").exists()
        said = str(caught.value)
        assert "secret" not in said and "\n" not in said and len(said) > 40, said


@pytest.mark.parametrize("seed", range(12))
def test_cuts_and_stalls_at_random_places_lose_nothing(site, folder, seed):
    draw = random.Random(seed)
    site.cuts = [*(draw.randrange(150_000) for _ in range(4)), None]
    site.statuses = [*draw.choices([200, 200, 500], k=6), 200]
    assert fetch(offer(site), folder, silent).read_bytes() == DATA


def test_a_cut_is_resumed_where_it_was(site, folder):
    site.cuts = [100_000, None]
    fetch(offer(site), folder, silent)
    first, second = site.seen
    assert "range" not in first
    start = int(second["range"].removeprefix("bytes=").removesuffix("-"))
    assert 100_000 - stream.PIECE <= start <= 100_000 and second["if-range"] == '"one"'


def test_the_next_kernel_goes_on_where_the_last_one_was_stopped(site, folder):
    def stop(event):
        if event.done > 60_000:
            raise Stopped("stopped")

    site.stalls = [130_000]
    with pytest.raises(Stopped):
        fetch(offer(site), folder, stop)
    assert names(folder) == ["model.safetensors.part", "model.safetensors.part.json"]
    there = (folder / "model.safetensors.part").stat().st_size
    assert "secret" not in (folder / "model.safetensors.part.json").read_text()     # addresses may be signed
    site.stalls, before = [None], len(site.seen)
    assert fetch(offer(site), folder, silent).read_bytes() == DATA
    assert site.seen[before]["range"] == f"bytes={there}-"


def test_a_stalled_download_can_be_stopped_before_the_stall_is_given_up(site, folder, monkeypatch):
    monkeypatch.setattr(stream, "STALL", 60.0)
    site.stalls = [50_000]
    calls = []

    def stop(event):
        calls.append(event)
        if len(calls) > 3:
            raise Stopped("stopped")

    monkeypatch.setattr(transfer, "PACE", 0.0)
    with pytest.raises(Stopped):
        fetch(offer(site), folder, stop)


def test_a_part_of_another_file_is_not_gone_on_with(site, folder):
    folder.mkdir()
    (folder / "model.safetensors.part").write_bytes(b"x" * 1000)
    assert fetch(offer(site), folder, silent).read_bytes() == DATA
    assert "range" not in site.seen[0]


def test_a_file_that_changes_between_two_pieces_is_fetched_anew(site, folder):
    newer = model_bytes(150_000)

    def change(site):
        site.data, site.etag = newer, '"two"'

    site.cuts, site.changed = [60_000, None], change
    assert fetch(offer(site), folder, silent).read_bytes() == newer


def test_a_wrong_hash_or_size_throws_the_file_away(site, folder):
    with pytest.raises(DownloadError, match="SHA-256 .* was promised"):
        fetch(offer(site, sha256="0" * 64), folder, silent)
    assert names(folder) == []
    with pytest.raises(DownloadError, match="200,1.. bytes where 7 were announced"):
        fetch(offer(site, size=7), folder, silent)
    assert "model.safetensors" not in names(folder)


def test_a_pickle_that_runs_code_is_not_kept(site, folder):
    site.data = b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03."
    with pytest.raises(DownloadError, match="what arrived is not kept"):
        fetch(Offer(f"{site.url}/model.ckpt", "model.ckpt"), folder, silent)
    assert names(folder) == []


def test_the_disk_is_asked_first(site, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, transfer.SPARE))
    with pytest.raises(DownloadError, match="needs 0.00 GB more and 0.20 GB are free in .*models: make room"):
        fetch(offer(site), folder, silent)
    assert "model.safetensors" not in names(folder) and (folder / "model.safetensors.part").exists() is False


def test_what_is_there_is_not_fetched_again_and_never_overwritten(site, folder):
    first = fetch(offer(site), folder, silent)
    asked = len(site.seen)
    assert fetch(offer(site), folder, silent) == first and len(site.seen) == asked      # the address is remembered
    first.write_bytes(b"my own file")
    second = fetch(offer(site, sha256=SHA), folder, silent)
    assert second.name == "model-2.safetensors" and second.read_bytes() == DATA and first.read_bytes() == b"my own file"
    assert fetch(offer(site, sha256=SHA), folder, silent) == second


def test_the_token_goes_to_the_first_host_alone(site, folder):
    with serve(Site(DATA)) as other:
        site.redirects["/a/model.safetensors"] = f"{site.url}/again"
        site.redirects["/again"] = f"{other.url}/storage?X-Sign=1"
        fetch(offer(site, token=Secret(TOKEN)), folder, silent)
        assert [request.get("authorization") for request in site.seen] == [f"Bearer {TOKEN}"] * 2
        assert ["authorization" in request for request in other.seen] == [False]


def test_the_token_is_in_no_message_and_no_file(site, folder, caplog):
    caplog.set_level("DEBUG")
    site.statuses = [403]
    with pytest.raises(DownloadError) as caught:
        fetch(offer(site, token=Secret(TOKEN), denied="give a token"), folder, silent)
    site.statuses, site.cuts = [200], [0]
    with pytest.raises(DownloadError) as again:
        fetch(offer(site, token=Secret(TOKEN)), folder, silent)
    kept = "".join(path.read_text("latin-1") for path in folder.iterdir())
    for text in (str(caught.value), str(again.value), repr(caught.value.__cause__), repr(Secret(TOKEN)), caplog.text, kept):
        assert TOKEN not in text
    assert "give a token" in str(caught.value)


@pytest.mark.parametrize("to, says", [
    ("http://example.com/model.safetensors", "only https:// addresses"), ("ftp://127.0.0.1/x", "only https://"), ("file:///etc/passwd", "no address"),
    ("/a/model.safetensors", "from one address to the next"),
])  # fmt: skip
def test_redirects_that_are_not_followed(site, folder, to, says):
    site.redirects["/a/model.safetensors"] = to
    with pytest.raises(DownloadError, match=says):
        fetch(offer(site), folder, silent)
    assert names(folder) == []


def test_a_page_outside_cannot_send_us_to_a_service_of_this_machine():
    from nbsd.models.links import allowed

    allowed("http://127.0.0.1:8888/x")
    with pytest.raises(DownloadError, match="is not fetched"):
        allowed("http://127.0.0.1:8888/x", first="https://example.com/model")
    with pytest.raises(DownloadError, match="is not fetched"):
        allowed("https://localhost/x", first="https://example.com/model")


def test_two_at_once_do_not_mix(site, folder):
    from nbsd.models.get import _alone

    folder.mkdir()
    with _alone(folder / "model.safetensors"), pytest.raises(DownloadError, match="being fetched already"):
        fetch(offer(site), folder, silent)
    assert fetch(offer(site), folder, silent).exists()


def test_speed_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])
    told = []
    meter = transfer.Meter("a", told.append)
    for second in range(4):
        now[0] = 100.0 + second
        meter.tell(second * 10_000_000, 100_000_000)
    assert told[0].rate is None
    assert told[-1].rate == pytest.approx(10_000_000) and told[-1].seconds_left == pytest.approx(7.0)


def test_a_folder_that_cannot_be_made_is_said(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be made"):
        fetch(offer(site), tmp_path / "file" / "models", silent)


def test_the_note_beside_a_part_may_be_anything(site, folder):
    folder.mkdir()
    for text in ("", "{", "[]", json.dumps({"source": offer(site).source, "validator": 1, "total": "x"})):
        (folder / "model.safetensors.part").write_bytes(b"x" * 10)
        (folder / "model.safetensors.part.json").write_text(text)
        path = fetch(offer(site), folder, silent)
        assert path.read_bytes() == DATA
        path.unlink()
