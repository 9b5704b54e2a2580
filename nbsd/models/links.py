"""What a user may write where a model is asked for, besides a file: `owner/repo`, a hub link, a Civitai link, any https URL."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from nbsd.errors import DownloadError
from nbsd.hosts.secrets import Secret

ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")      # of files with weights
HUB = "https://huggingface.co"
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.red", "civitai.green")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKENS = ("token", "access_token", "api_key", "apikey")         # parameters of a link that are a secret of the user's

_PART = r"[A-Za-z0-9][\w.-]*"
_REPO = re.compile(rf"({_PART}/{_PART})(?:@([\w./-]+?))?(?:/(.+\.\w+))?")
_HUB_PAGE = re.compile(rf"/({_PART}/{_PART})(?:/(?:blob|resolve|raw|tree)/([^/]+)(?:/(.+))?)?/?")
_CIVITAI_VERSION = re.compile(r"/(?:api/download/models|api/v1/model-versions|model-versions)/(\d+)/?")
_CIVITAI_MODEL = re.compile(r"/models/(\d+)(?:/.*)?")
_AIR = re.compile(r"(?:urn:air:[^:]+:[^:]+:)?civitai:(\d+)@(\d+)")


@dataclass(frozen=True)
class Hub:
    """A file of the Hugging Face hub, or a whole repository, of which the model is meant."""

    repo: str               # "owner/name"
    file: str = ""          # path inside; empty: find the model
    revision: str = ""      # branch, tag or commit; empty: the main branch


@dataclass(frozen=True)
class Civitai:
    """A version of a model on Civitai; without a version, its newest."""

    model: int = 0          # 0: not said
    version: int = 0        # 0: not said
    token: Secret | None = None     # one that stood in the link


@dataclass(frozen=True)
class Web:
    """A file at any address."""

    url: str
    token: Secret | None = None     # one that stood in the link


Link = Hub | Civitai | Web


def read_link(text: str) -> Link | None:
    """What a text links to; None where it is a file's name or a hash. Raises DownloadError for an address that is not to be used.

    >>> read_link("owner/repo/unet/model.safetensors")
    Hub(repo='owner/repo', file='unet/model.safetensors', revision='')
    """
    text = text.strip()
    if "://" in text:
        return _read_url(text)
    if text.lower().startswith((*(f"{host}/" for host in (*HUB_HOSTS, *CIVITAI_HOSTS)),)):
        return _read_url(f"https://{text}")
    if found := _AIR.fullmatch(text):
        return Civitai(int(found[1]), int(found[2]))
    if found := _REPO.fullmatch(text):
        repo, revision, file = found[1], found[2] or "", found[3] or ""
        # "models/anime.safetensors" and "models/anime", where there is such a folder, are places on this disk.
        if repo.lower().endswith(ENDINGS) or ".." in text or _is_here(repo.split("/")[0]):
            return None
        return Hub(repo, file, revision)
    return None


def without_token(text: str) -> str:
    """A link as it may be shown and kept: without tokens in it."""
    if "://" not in text:
        return text
    parts = urlsplit(text.strip())
    host = parts.netloc.rpartition("@")[2]
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in pairs if key.lower() not in TOKENS]
    query = parts.query if kept == pairs else urlencode(kept)       # a signed address stays letter for letter
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


def shown(url: str) -> str:
    """An address for a message: without parameters, which may sign it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def allowed(url: str, first: str | None = None) -> None:
    """Raise DownloadError for an address that nothing is fetched from. `first`: the address that this one was redirected from.

    Plain http is for this very machine alone, and only where the user named it: a page must not send us to a service of ours.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        here = parts.scheme in ("http", "https") and host in LOOPBACK and (first is None or (urlsplit(first).hostname or "").lower() in LOOPBACK)
    except ValueError:
        host, here = "", False
    if not host:
        raise DownloadError("this is no address: give a link that starts with https://")
    if here or (parts.scheme == "https" and host not in LOOPBACK):
        return
    raise DownloadError(f"'{shown(url)}' is not fetched: only https:// addresses are, so that nobody on the way can change the file")


def safe_name(name: str) -> str:
    """A file name out of what a server says, without folders and without what a disk does not take; may be empty."""
    name = unquote(name).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter if letter.isprintable() and letter not in '<>:"|?*' else "_" for letter in name).strip(" .")
    stem, dot, ending = name.rpartition(".")
    return f"{stem[:150]}{dot}{ending}" if stem else name[:150]


def _read_url(text: str) -> Link:
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").lower()
        query = parse_qs(parts.query)
    except ValueError:
        raise DownloadError("this is no address: give a link that starts with https://") from None
    allowed(text)
    if parts.username or parts.password:
        raise DownloadError("this link holds a user name or a password: give it without; tokens come from the environment or the secrets")
    token = next((Secret(values[0]) for name, values in query.items() if name.lower() in TOKENS and values[0]), None)
    if host in HUB_HOSTS or parts.netloc.lower() == urlsplit(hub_endpoint()).netloc.lower():
        if (found := _HUB_PAGE.fullmatch(unquote(parts.path))) and not found[1].startswith(("api/", "datasets/", "spaces/")):
            file = found[3] or ""
            return Hub(found[1], file if file.lower().endswith(ENDINGS) else "", found[2] or "")
        raise DownloadError(f"'{shown(text)}' is no model of the hub: give owner/repo, or the link of a file in it")
    if host in CIVITAI_HOSTS:
        if found := _CIVITAI_VERSION.fullmatch(parts.path):
            return Civitai(version=int(found[1]), token=token)
        if found := _CIVITAI_MODEL.fullmatch(parts.path):
            version = query.get("modelVersionId", ["0"])[0]
            return Civitai(int(found[1]), int(version) if version.isdigit() else 0, token)
        raise DownloadError(f"'{shown(text)}' is no model of Civitai: give the link of a model's page or of its Download button")
    return Web(without_token(text), token)


def hub_endpoint() -> str:
    """The hub, or the mirror that the environment names."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _is_here(folder: str) -> bool:
    try:
        return Path(folder).is_dir()
    except (OSError, ValueError):
        return False
