"""Which file a link to Civitai means: asked of its public interface, https://developer.civitai.com/site/reference/model-versions."""

from __future__ import annotations

import json
from typing import Any

from nbsd.errors import DownloadError
from nbsd.hosts.secrets import NAMES, Secret
from nbsd.models.links import ENDINGS, Civitai, safe_name
from nbsd.models.stream import Cut, Stream
from nbsd.models.transfer import Offer

HOME = "https://civitai.com"
LONGEST = 20_000_000        # bytes of an answer about a model
WANTS_TOKEN = (
    f"Civitai wants you to be known for this one: make an API key in your account settings there and give it as {NAMES['civitai'][0]} "
    "(environment, Colab secret or Kaggle secret)"
)


def offer(link: Civitai, token: Secret | None) -> Offer:
    """The file of a version that is meant: the one that Civitai calls primary. Raises DownloadError."""
    version = _ask(f"/api/v1/model-versions/{link.version}", token) if link.version else _newest(link, token)
    files = [file for file in version.get("files") or () if isinstance(file, dict) and str(file.get("name", "")).lower().endswith(ENDINGS)]
    if not files:
        raise DownloadError(f"version {version.get('id', link.version)} on Civitai has no model file ({', '.join(ENDINGS)}): choose another one")
    file = next((one for one in files if one.get("primary")), files[0])
    sha256 = str((file.get("hashes") or {}).get("SHA256", "")).lower()
    name, url = safe_name(str(file["name"])), str(file.get("downloadUrl") or version.get("downloadUrl") or "")
    if not url.startswith(HOME + "/"):      # the token goes there
        url = f"{HOME}/api/download/models/{version.get('id', link.version)}"
    return Offer(url, name, sha256=sha256 if len(sha256) == 64 else None, token=token, denied=WANTS_TOKEN)


def _newest(link: Civitai, token: Secret | None) -> dict[str, Any]:
    versions = _ask(f"/api/v1/models/{link.model}", token).get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise DownloadError(f"model {link.model} on Civitai has no version that can be had: look at its page")
    return versions[0]


def _ask(path: str, token: Secret | None) -> dict[str, Any]:
    """An answer of the interface."""
    stream = Stream(HOME + path, token)
    try:
        head = stream.head(lambda: None)
        if head.status == 404:
            raise DownloadError(f"Civitai has no such model ({path.rsplit('/', 1)[-1]}): look at the link; it may have been taken away")
        if head.status in (401, 403):
            raise DownloadError(f"Civitai does not tell about this model ({head.status}): {WANTS_TOKEN}")
        if head.status != 200:
            raise DownloadError(f"Civitai answers {head.status} when asked about this model: try again later")
        text = b""
        for piece in stream.pieces(lambda: None):
            text += piece
            if len(text) > LONGEST:
                raise DownloadError("Civitai's answer about this model has no end: try again later")
        answer = json.loads(text)
    except Cut as cut:
        raise DownloadError(f"Civitai could not be asked about this model ({cut}): try again later") from None
    except ValueError:
        raise DownloadError("Civitai's answer about this model could not be read: try again later") from None
    finally:
        stream.close()
    if not isinstance(answer, dict):
        raise DownloadError("Civitai's answer about this model could not be read: try again later")
    return answer
