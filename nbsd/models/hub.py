"""Which file of the Hugging Face hub is meant, asked by `huggingface_hub`: its sizes, its hashes, and what its cache has already.

The bytes come by `transfer.py`, which asks for the disk's room first, can be stopped during a stall and checks the hash; the library's own
download does none of the three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsd.errors import DownloadError
from nbsd.hosts.secrets import NAMES, Secret
from nbsd.models.links import ENDINGS, Hub, hub_endpoint, safe_name
from nbsd.models.transfer import Offer
from nbsd.models.weights import is_index

TIMEOUT = 20.0              # seconds for a question about a repository
LEAST = 100_000_000         # bytes; a checkpoint at the top of a repository is larger, a LoRA or a VAE need not be
INDEX = "model_index.json"  # of a model in diffusers' layout
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")    # the folders of it that are needed
ALONE = (".safetensors", ".ckpt")
SHARD = re.compile(r"-\d{5}-of-\d{5}")  # in the names of the files of one part


@dataclass(frozen=True)
class Found:
    """A file in the hub's own cache (`path`), or files to fetch: one, or those of a `folder`, named by their paths in it."""

    path: Path | None = None
    offers: tuple[Offer, ...] = ()
    folder: str = ""


def find(link: Hub, token: Secret | None) -> Found:
    """What a link means. Raises DownloadError where there is no such thing, or none that can be chosen without asking."""
    info = _ask(link, token)
    if info is None:
        if path := _cached(link, link.file, link.revision):
            return Found(path)
        raise DownloadError(f"the hub cannot be asked for '{link.repo}' and it is not in its cache: is the network on? (HF_HUB_OFFLINE is for off)")
    files = {file.rfilename: file for file in info.siblings or ()}
    commit = str(info.sha or link.revision or "main")
    if link.file or (name := _choose(link.repo, files)):
        name = link.file or name
        if name not in files:
            raise DownloadError(f"'{link.repo}' on the hub has no file '{name}': {_listed(files)}")
        if path := _cached(link, name, commit):
            return Found(path)
        return Found(offers=(_offer(link, files[name], commit, token, name.rsplit("/", 1)[-1]),))
    wanted = _diffusers_files(list(files))
    if not wanted:
        raise DownloadError(f"'{link.repo}' on the hub holds no model that nbsd reads ({_listed(files)}): name a file as owner/repo/file.safetensors")
    return Found(offers=tuple(_offer(link, files[name], commit, token, name) for name in wanted), folder=link.repo.replace("/", "--"))


def _ask(link: Hub, token: Secret | None) -> Any:
    """What the hub says of a repository; None where it cannot be reached."""
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=hub_endpoint(), token=token.reveal() if token else None)
    try:
        return api.model_info(link.repo, revision=link.revision or None, files_metadata=True, timeout=TIMEOUT)
    except errors.GatedRepoError:
        raise DownloadError(f"'{link.repo}' is gated: {_wants_token(link)}") from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"'{link.repo}' on the hub has no version '{link.revision}': look at its branches and tags") from None
    except errors.RepositoryNotFoundError:
        why = "look at the name" if token else f"look at the name; where it is private, {_wants_token(link)}"
        raise DownloadError(f"there is no model '{link.repo}' on the hub: {why}") from None
    except errors.HFValidationError:
        raise DownloadError(f"'{link.repo}' is no name of a model on the hub: give owner/repo") from None
    except Exception:       # what "no network" is called depends on the library's version: requests', httpx' or its own
        return None


def _wants_token(link: Hub) -> str:
    return (f"accept its terms on {hub_endpoint()}/{link.repo} and give your access token as {NAMES['hub'][0]} "
            "(environment, Colab secret or Kaggle secret)")


def _offer(link: Hub, file: Any, commit: str, token: Secret | None, name: str) -> Offer:
    from huggingface_hub import hf_hub_url

    lfs = getattr(file, "lfs", None)
    sha256 = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) if lfs else None
    url = hf_hub_url(link.repo, file.rfilename, revision=commit, endpoint=hub_endpoint())
    # diffusers finds the half-precision file by its plain name; an index names its files as they are.
    plain = name if SHARD.search(name) or is_index(Path(name)) else name.replace(".fp16.", ".")
    kept = "/".join(safe_name(part) for part in plain.split("/"))
    return Offer(url, kept, size=file.size, sha256=sha256, token=token, denied=_wants_token(link))


def _cached(link: Hub, name: str, revision: str) -> Path | None:
    """A file in the library's own cache."""
    from huggingface_hub import try_to_load_from_cache

    if not name:
        return None
    found = try_to_load_from_cache(link.repo, name, revision=revision or None)
    return Path(found) if isinstance(found, str) else None


def _choose(repo: str, files: dict[str, Any]) -> str:
    """The model among the files at the top of a repository; empty where there is none."""
    names = [name for name, file in files.items() if "/" not in name and name.lower().endswith(ALONE) and (file.size or LEAST) >= LEAST]
    names = [name for name in names if name.lower().endswith(ALONE[0])] or names
    # "v1-5-pruned-emaonly" and "v1-5-pruned": of versions of one model the smallest has all that pictures need.
    left = [name for name in names if not any(other != name and _is_less(files[other], files[name]) for other in names)]
    if len(left) > 1:
        some = " or ".join(f"'{repo}/{name}'" for name in sorted(left)[:4])
        raise DownloadError(f"'{repo}' on the hub holds {len(left)} models: say which, such as {some}")
    return left[0] if left else ""


def _is_less(one: Any, other: Any) -> bool:
    stem = str(other.rfilename).rpartition(".")[0]
    return str(one.rfilename).startswith(stem) and (one.size or 0) < (other.size or 0)


def _diffusers_files(names: list[str]) -> list[str]:
    """What a model in diffusers' layout needs: of each part its settings and its weights, of half precision where there are such."""
    if INDEX not in names:
        return []
    wanted = [INDEX]
    for part in PARTS:
        inside = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
        wanted += [name for name in inside if name.endswith((".json", ".txt")) and not is_index(Path(name))]
        wanted += _weights(inside)
    return wanted


def _weights(inside: list[str]) -> list[str]:
    """The weights of a part: one file, or several with their index."""
    whole: dict[str, list[str]] = {}        # what it would be called as one file -> its files
    for name in inside:
        if name.endswith(ENDINGS) and ".non_ema" not in name:
            whole.setdefault(SHARD.sub("", name), []).append(name)
    if not whole:
        return []
    chosen = min(whole, key=lambda name: (not name.endswith(".safetensors"), ".fp16." not in name, len(name), name))
    if chosen in whole[chosen]:
        return [chosen]
    stem, _, ending = chosen.rpartition(".")
    stem, _, variant = stem.partition(".")
    return [*whole[chosen], *(name for name in inside if is_index(Path(name)) and name.startswith(stem)
                              and {*name.split(".")[1:]} == {"index", "json", ending, *([variant] if variant else [])})]


def _listed(files: dict[str, Any]) -> str:
    names = [name for name in files if name.lower().endswith(ENDINGS)]
    return f"it has {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else "it has no files with weights"
