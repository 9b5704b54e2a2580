"""From a link to a file on this disk: the hub and Civitai are played by a server on 127.0.0.1."""

from __future__ import annotations

import hashlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
from download_server import Site, model_bytes, serve

from nbsd.errors import DownloadError, ModelError
from nbsd.hosts import secrets
from nbsd.hosts.secrets import Secret
from nbsd.models import civitai, hub, stream, transfer
from nbsd.models.get import get, token_for
from nbsd.models.links import Civitai, Hub, Web, read_link

DATA = model_bytes()
SHA = hashlib.sha256(DATA).hexdigest()
COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "PAUSES", (0.0,))
    monkeypatch.setattr(stream, "LOOK", 0.02)
    for names in secrets.NAMES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(monkeypatch):
    with serve(Site(DATA)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        monkeypatch.setattr(civitai, "HOME", site.url)
        yield site


@pytest.fixture
def online(monkeypatch):
    """Let huggingface_hub speak to the server of the test, whatever the environment says."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def silent(_):
    return None


# --- the hub

def repository(site: Site, files: dict[str, int], repo: str = "owner/repo") -> None:
    """The hub's answer about a repository with these files."""
    lfs = {"sha256": SHA, "size": len(DATA), "pointerSize": 130}
    siblings = [{"rfilename": name, "size": size, **({"lfs": {**lfs, "size": size}} if name.endswith(".safetensors") else {})} for name, size in files.items()]
    answer = {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0}
    for path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/v2"):
        site.pages[path] = answer


def test_the_model_of_a_repository(site, online, tmp_path):
    repository(site, {"README.md": 10, "model.safetensors": len(DATA), "model.ckpt": 2 * len(DATA)})
    path = get(read_link("owner/repo"), tmp_path, silent)
    assert path == tmp_path / "model.safetensors" and path.read_bytes() == DATA
    assert f"/owner/repo/resolve/{COMMIT}/model.safetensors" in [request["path"] for request in site.seen]


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setattr(hub, "LEAST", 0)


def test_a_file_of_a_repository_with_the_users_token(site, online, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository(site, {"vae/a.safetensors": len(DATA)})
    link = read_link("owner/repo@v2/vae/a.safetensors")
    assert get(link, tmp_path, silent, token_for(link)).name == "a.safetensors"
    assert {request.get("authorization") for request in site.seen} == {"Bearer hf_secret"}


def test_a_wrong_hash_from_the_hub_is_found(site, online, tmp_path):
    repository(site, {"model.safetensors": len(DATA)})
    site.data = model_bytes()[:-1] + b"x"
    with pytest.raises(DownloadError, match="SHA-256"):
        get(Hub("owner/repo"), tmp_path, silent)
    assert not list(tmp_path.glob("*.safetensors*"))


@pytest.mark.parametrize("files, says", [
    ({"a.safetensors": 9, "b.safetensors": 9}, "holds 2 models: say which, such as 'owner/repo/a.safetensors' or 'owner/repo/b.safetensors'"),
    ({"README.md": 9}, "holds no model that nbsd reads .it has no files with weights"),
    ({"sub/lora.safetensors": 9}, "name a file as owner/repo/file.safetensors"),
])  # fmt: skip
def test_repositories_without_one_model(site, online, tmp_path, files, says):
    repository(site, files)
    with pytest.raises(DownloadError, match=says):
        get(Hub("owner/repo"), tmp_path, silent)


def test_of_versions_of_one_model_the_smallest_is_taken():
    sizes = {"v1-5-pruned.safetensors": 77, "v1-5-pruned-emaonly.safetensors": 42, "v1-5-pruned.ckpt": 77}
    files = {name: SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()}
    assert hub._choose("owner/repo", files) == "v1-5-pruned-emaonly.safetensors"


def test_a_model_in_diffusers_layout_comes_as_a_folder(site, online, tmp_path):
    names = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
             "unet/diffusion_pytorch_model.bin", "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
             "text_encoder/model.safetensors", "safety_checker/model.safetensors", "tokenizer/vocab.json"]
    repository(site, {name: len(DATA) for name in names})
    told = []
    folder = get(Hub("owner/repo"), tmp_path, told.append)
    assert folder == tmp_path / "owner--repo"
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert there == ["model_index.json", "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/vocab.json", "unet/config.json",
                     "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    assert any("fp16" in request["path"] for request in site.seen)
    assert told[-1].done == told[-1].total == 8 * len(DATA)


@pytest.mark.parametrize("kept, left", [
    (["a.safetensors"], ["a.bin", "a.non_ema.safetensors"]),
    (["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json"], ["a-1.bin", "a-2.bin", "a.bin.index.json"]),
    (["a-1.fp16.safetensors", "a-2.fp16.safetensors", "a.safetensors.index.fp16.json"], ["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json"]),
    (["a.fp16-1.safetensors", "a.fp16-2.safetensors", "a.safetensors.fp16.index.json"], ["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json"]),
    (["a.fp16.safetensors"], ["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json"]),
    (["a.safetensors"], ["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json"]),
])  # fmt: skip
def test_of_a_part_in_several_files_all_are_fetched_with_their_index(kept, left):
    kept, left = ([f"unet/{name.replace('-1', '-00001-of-00002').replace('-2', '-00002-of-00002')}" for name in names] for names in (kept, left))
    assert sorted(hub._diffusers_files(["model_index.json", *left, *kept])[1:]) == sorted(kept)


def test_what_the_hub_has_not(site, online, tmp_path):
    repository(site, {"a.safetensors": 9})
    with pytest.raises(DownloadError, match="has no file 'b.safetensors': it has a.safetensors"):
        get(Hub("owner/repo", "b.safetensors"), tmp_path, silent)
    site.statuses = [404]
    site.headers = {"X-Error-Code": "RepoNotFound"}
    with pytest.raises(DownloadError, match="there is no model 'owner/none' on the hub: .*HF_TOKEN"):
        get(Hub("owner/none"), tmp_path, silent)
    site.statuses, site.headers = [403], {"X-Error-Code": "GatedRepo"}
    with pytest.raises(DownloadError, match="is gated: accept its terms on .*/owner/gated and give your access token as HF_TOKEN"):
        get(Hub("owner/gated"), tmp_path, silent)


def test_with_the_network_off_the_hubs_own_cache_is_used(tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = tmp_path / "hub" / "models--owner--repo" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "a.safetensors").write_bytes(DATA)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get(Hub("owner/repo", "a.safetensors"), tmp_path, silent) == snapshot / "a.safetensors"
    with pytest.raises(DownloadError, match="cannot be asked for 'owner/repo' and it is not in its cache"):
        get(Hub("owner/repo", "b.safetensors"), tmp_path, silent)


# --- Civitai

def version(site: Site, **changes) -> dict:
    file = {"name": "anime mix.safetensors", "type": "Model", "primary": True, "sizeKB": len(DATA) / 1024, "hashes": {"SHA256": SHA.upper()},
            "downloadUrl": f"{site.url}/api/download/models/456", **changes}
    other = {"name": "training.zip", "type": "Training Data", "downloadUrl": f"{site.url}/zip"}
    return {"id": 456, "modelId": 123, "files": [other, file], "downloadUrl": f"{site.url}/api/download/models/456"}


@pytest.mark.parametrize("text", ["https://civitai.com/models/123?modelVersionId=456", "https://civitai.com/api/download/models/456", "civitai.com/models/123"])
def test_links_to_civitai(site, tmp_path, text):
    site.pages = {"/api/v1/model-versions/456": version(site), "/api/v1/models/123": {"id": 123, "modelVersions": [version(site), {"id": 1}]}}
    with serve(Site(DATA)) as storage:
        site.redirects["/api/download/models/456"] = f"{storage.url}/signed?X-Amz-Signature=1"
        path = get(read_link(text), tmp_path, silent, Secret("cv-secret"))
        assert path.name == "anime mix.safetensors" and path.read_bytes() == DATA
        assert {request.get("authorization") for request in site.seen} == {"Bearer cv-secret"}
        assert ["authorization" in request for request in storage.seen] == [False]


def test_civitai_wants_a_token(site, tmp_path):
    site.pages = {"/api/v1/model-versions/456": version(site)}
    site.redirects["/api/download/models/456"] = f"{site.url}/login?reason=download-auth"
    site.page = "<html>log in</html>"
    with pytest.raises(DownloadError, match="answers with a web page.*make an API key .* give it as CIVITAI_TOKEN"):
        get(Civitai(version=456), tmp_path, silent)


def test_an_answer_that_points_the_token_elsewhere_is_not_followed(site, tmp_path):
    site.pages = {"/api/v1/model-versions/456": version(site, downloadUrl="http://127.0.0.1:1/steal")}
    assert civitai.offer(Civitai(version=456), None).url == f"{site.url}/api/download/models/456"


@pytest.mark.parametrize("pages, statuses, says", [
    ({}, [404], "no such model"), ({}, [401], "CIVITAI_TOKEN"), ({}, [500], "answers 500"), ({"/api/v1/model-versions/456": []}, [200], "could not be read"),
    ({"/api/v1/model-versions/456": {"files": []}}, [200], "has no model file"), ({"/api/v1/model-versions/456": {"files": None}}, [200], "has no model file"),
])  # fmt: skip
def test_answers_of_civitai_that_help_nobody(site, tmp_path, pages, statuses, says):
    site.pages, site.statuses = pages, statuses
    with pytest.raises(DownloadError, match=says):
        get(Civitai(version=456), tmp_path, silent)


# --- any address

def test_any_address(site, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    path = get(read_link(f"{site.url}/files/a%20b.safetensors?v=1"), tmp_path, silent)
    assert path.name == "a b.safetensors" and path.read_bytes() == DATA


@pytest.mark.parametrize("path", ["/", "/model", "/model.zip", "/%2e%2e%2f"])
def test_addresses_of_no_model_file(site, tmp_path, path):
    with pytest.raises(DownloadError):
        get(Web(site.url + path), tmp_path, silent)
    assert list(tmp_path.glob("*.*")) == []


# --- tokens

def test_tokens_come_from_the_environment_first(monkeypatch):
    assert secrets.secret("civitai") is None
    monkeypatch.setenv("CIVITAI_API_TOKEN", " abc ")
    assert secrets.secret("civitai").reveal() == "abc"
    assert token_for(Civitai(1, 2, Secret("own"))).reveal() == "own"


@pytest.mark.parametrize("host", ["colab", "kaggle"])
def test_tokens_come_from_the_hosts_secrets(monkeypatch, host):
    def get_secret(name):
        if name != "HF_TOKEN":
            raise RuntimeError("no such secret")
        return "hf_from_the_host"

    if host == "colab":
        package = ModuleType("google.colab")
        package.userdata = SimpleNamespace(get=get_secret)
        monkeypatch.setitem(sys.modules, "google.colab", package)
        monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=package))
    else:
        module = ModuleType("kaggle_secrets")
        module.UserSecretsClient = lambda: SimpleNamespace(get_secret=get_secret)
        monkeypatch.setitem(sys.modules, "kaggle_secrets", module)
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert secrets.secret("hub").reveal() == "hf_from_the_host"
    assert secrets.secret("civitai") is None


def test_a_token_is_not_pickled_or_printed():
    import copy

    assert "abc" not in f"{Secret('abc')!r} {Secret('abc')}"
    with pytest.raises(TypeError):
        copy.copy(Secret("abc"))


def test_load_takes_links(site, online, tmp_path, monkeypatch, capsys):
    """A VAE is no model, and that is what it says once it has come."""
    import nbsd

    repository(site, {"model.safetensors": len(DATA)})
    with pytest.raises(ModelError, match="is a VAE alone, not a model"):
        nbsd.load("owner/repo", folder=tmp_path / "here")
    assert (tmp_path / "here" / "model.safetensors").exists()
    assert "model.safetensors" in capsys.readouterr().err       # a bar with speed and time left
