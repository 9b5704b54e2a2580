"""What stands for a model besides a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.errors import DownloadError
from nbsd.models.links import Civitai, Hub, Web, read_link, safe_name, shown, without_token

LINKS = [
    ("owner/repo", Hub("owner/repo")),
    (" owner/repo ", Hub("owner/repo")),
    ("owner/repo-v1.5", Hub("owner/repo-v1.5")),
    ("owner/repo/file.safetensors", Hub("owner/repo", "file.safetensors")),
    ("owner/repo/sub/file.ckpt", Hub("owner/repo", "sub/file.ckpt")),
    ("owner/repo@v2", Hub("owner/repo", "", "v2")),
    ("owner/repo@v2/file.ckpt", Hub("owner/repo", "file.ckpt", "v2")),
    ("https://huggingface.co/owner/repo", Hub("owner/repo")),
    ("huggingface.co/owner/repo", Hub("owner/repo")),
    ("https://huggingface.co/owner/repo/tree/main", Hub("owner/repo", "", "main")),
    ("https://hf.co/owner/repo/blob/main/a%20b.safetensors", Hub("owner/repo", "a b.safetensors", "main")),
    ("https://huggingface.co/owner/repo/resolve/abc123/sub/x.ckpt?download=true", Hub("owner/repo", "sub/x.ckpt", "abc123")),
    ("https://civitai.com/models/123", Civitai(123)),
    ("https://civitai.com/models/123/some-name?modelVersionId=456", Civitai(123, 456)),
    ("civitai.com/models/123?modelVersionId=456", Civitai(123, 456)),
    ("https://civitai.com/api/download/models/456?type=Model&format=SafeTensor", Civitai(version=456)),
    ("urn:air:sdxl:checkpoint:civitai:827184@2514310", Civitai(827184, 2514310)),
    ("civitai:1@2", Civitai(1, 2)),
    ("https://example.com/a/b.safetensors?x=1", Web("https://example.com/a/b.safetensors?x=1")),
    ("http://127.0.0.1:8000/a.ckpt", Web("http://127.0.0.1:8000/a.ckpt")),
]
NO_LINKS = ["", "model", "model.safetensors", "folder/model.safetensors", "./a/b", "/a/b", "a/b/", "../a/b", "925997e9", "name [925997e9]",
            "C:\\models\\a.ckpt", "a b/c d", "owner/../repo"]
BAD = ["http://example.com/a.ckpt", "ftp://example.com/a.ckpt", "https://", "https://user:pass@example.com/a.ckpt", "https://[bad/x",
       "https://civitai.com/images/1", "https://huggingface.co/datasets/owner/repo", "file:///etc/passwd", "https://localhost/a.ckpt://"]


@pytest.mark.parametrize("text, link", LINKS)
def test_links(text, link):
    assert read_link(text) == link


@pytest.mark.parametrize("text", NO_LINKS)
def test_what_is_no_link(text):
    assert read_link(text) is None


@pytest.mark.parametrize("text", BAD[:-1])
def test_addresses_that_nothing_is_fetched_from(text):
    with pytest.raises(DownloadError):
        read_link(text)


def test_a_folder_beside_the_notebook_is_meant_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_link("models/anime") == Hub("models/anime")
    (tmp_path / "models").mkdir()
    assert read_link("models/anime") is None


def test_a_token_in_a_link_is_used_and_never_shown():
    text = "https://civitai.com/api/download/models/456?token=my-secret&type=Model"
    link = read_link(text)
    assert link.token.reveal() == "my-secret" and "my-secret" not in repr(link)
    assert without_token(text) == "https://civitai.com/api/download/models/456?type=Model"
    web = read_link("https://example.com/a.ckpt?api_key=my-secret&v=1")
    assert (web.url, web.token.reveal()) == ("https://example.com/a.ckpt?v=1", "my-secret")
    assert shown("https://me:pw@example.com/a.ckpt?X-Signature=1#f") == "https://example.com/a.ckpt"


@pytest.mark.parametrize("said, name", [
    ("a.ckpt", "a.ckpt"), ("../../a.ckpt", "a.ckpt"), ("..\\a.ckpt", "a.ckpt"), ("%2e%2e%2fa.ckpt", "a.ckpt"), ("a\0\n.ckpt", "a__.ckpt"),
    ("x" * 300 + ".safetensors", "x" * 150 + ".safetensors"), ("...", ""), ("", ""), ("二次元.safetensors", "二次元.safetensors"), ("a:b?.pt", "a_b_.pt"),
])  # fmt: skip
def test_names_of_servers_stay_in_the_folder(said, name):
    assert safe_name(said) == name


@given(st.text(max_size=60))
def test_any_text_is_a_link_or_none_or_refused(text):
    try:
        read_link(text)
    except DownloadError as error:
        assert str(error)
    assert "/" not in safe_name(text) and "\\" not in safe_name(text) and safe_name(text) not in (".", "..")
