"""The bytes of an answer as they come, read in a thread: whoever waits for them can look around meanwhile, and stop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from nbsd import __version__
from nbsd.errors import DownloadError
from nbsd.hosts.secrets import Secret
from nbsd.models.links import allowed

CONNECT = 15.0          # seconds to reach a server
STALL = 30.0            # seconds without a byte, after which the connection counts as cut
LOOK = 0.1              # seconds between two looks around while nothing comes
MOST_REDIRECTS = 10
PIECE = 1 << 15         # bytes read at once; what is lost of a connection that is cut


class Cut(Exception):
    """The connection ended, stalled or was refused for now; asking again may help. `wait`: seconds that the server asks for."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True)
class Head:
    """How an answer begins."""

    status: int
    headers: Mapping[str, str]      # names in lower case

    def __getitem__(self, name: str) -> str:
        """A header, "" where there is none."""
        return self.headers.get(name, "")


class Stream:
    """One request. `head` and `pieces` call `look` at least every LOOK seconds; what it raises goes through."""

    def __init__(self, url: str, token: Secret | None = None, start: int = 0, validator: str = "") -> None:
        """`start`: ask for the bytes from this one on, of the version that `validator` (an ETag or a date) names."""
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"nbsd/{__version__}"}
        if start:
            self._headers["Range"] = f"bytes={start}-"
            if validator:
                self._headers["If-Range"] = validator
        self._url, self._token = url, token
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=64)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="nbsd-download", daemon=True).start()

    def head(self, look: Callable[[], None]) -> Head:
        """How the answer begins. Raises Cut, DownloadError."""
        head: Head = self._next(look, CONNECT + STALL)
        return head

    def pieces(self, look: Callable[[], None]) -> Iterator[bytes]:
        """The bytes, to the end of the answer. Raises Cut."""
        while (piece := self._next(look, STALL)) is not None:
            yield piece

    def close(self) -> None:
        """Want no more of it. The thread lets go of the connection as soon as it hears of anything, after STALL at the latest: closing a
        connection that it reads from would wait just as long."""
        self._closed.set()

    def _next(self, look: Callable[[], None], patience: float) -> Any:
        until = time.monotonic() + patience
        while True:
            with suppress(queue.Empty):
                got = self._queue.get(timeout=LOOK)
                if isinstance(got, Exception):
                    raise got
                return got
            look()
            if time.monotonic() > until:
                raise Cut(f"nothing came for {patience:.0f} seconds")

    def _run(self) -> None:
        """The thread: everything that it has to say goes into the queue."""
        import requests
        import urllib3

        try:
            with requests.Session() as session:
                response = follow(session, self._url, self._headers, self._token)
                self._put(Head(response.status_code, {name.lower(): value for name, value in response.headers.items()}))
                while not self._closed.is_set() and (piece := response.raw.read(PIECE, decode_content=False)):
                    self._put(piece)
                self._put(None)
        except DownloadError as error:
            self._put(error)
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError):
            self._put(DownloadError(f"{urlsplit(self._url).hostname} does not prove who it is (its certificate): nothing is fetched from it"))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._put(Cut(_words(error)))

    def _put(self, thing: Any) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                return self._queue.put(thing, timeout=LOOK)


def follow(session: Any, url: str, headers: Mapping[str, str], token: Secret | None) -> Any:
    """The answer after all redirects, its body not read. The token goes to the first address's host alone, and no netrc is asked."""
    first = url
    for _ in range(MOST_REDIRECTS):
        allowed(url, first if url != first else None)
        own = {"Authorization": f"Bearer {token.reveal()}"} if token and _origin(url) == _origin(first) else {}
        response = session.get(
            url, headers={**headers, **own}, stream=True, allow_redirects=False, timeout=(CONNECT, STALL), auth=_as_it_is,
        )
        if not response.is_redirect:
            return response
        url = urljoin(url, response.headers["location"])
        response.close()
        session.cookies.clear()
    raise DownloadError(f"{urlsplit(first).hostname} sends from one address to the next ({MOST_REDIRECTS} times): look at the link")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _as_it_is(request: Any) -> Any:
    """An `auth` that adds nothing: without any, requests looks for passwords in ~/.netrc."""
    return request


def _words(error: Exception) -> str:
    """Why a connection failed, without the address, which may hold what is not to be told."""
    name = type(error).__name__
    if "Timeout" in name or isinstance(error, TimeoutError):
        return "the server does not answer"
    if "ProxyError" in name:
        return "the proxy does not let it through"
    if any(sign in str(error) for sign in ("resolve", "Name or service not known", "getaddrinfo")):
        return "the server's name is not known: is the network on?"
    if any(sign in str(error) for sign in ("IncompleteRead", "Connection broken", "reset", "aborted", "closed")):
        return "the connection was cut"
    return "the server cannot be reached"
