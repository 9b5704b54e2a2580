"""A web server on 127.0.0.1 that misbehaves as it is told, for tests of downloads."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def model_bytes(size: int = 200_000) -> bytes:
    """A small whole .safetensors file: one tensor of that many bytes."""
    header = json.dumps({"first_stage_model.decoder.conv_in.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(i * 7 % 251 for i in range(size))


@dataclass
class Site:
    """What the server has and does. Lists are used up, one entry a request; the last one stays."""

    data: bytes = b""
    cuts: list[int | None] = field(default_factory=lambda: [None])      # bytes of each body after which the connection is cut
    stalls: list[int | None] = field(default_factory=lambda: [None])    # ... after which nothing more comes
    statuses: list[int] = field(default_factory=lambda: [200])
    ranges: bool = True
    etag: str | None = '"one"'
    length: Callable[[int], int | None] = lambda true: true     # what is said of it; None: nothing
    shift: int = 0              # how far from the place asked for it goes on
    page: str | None = None     # answer with this text as a web page
    redirects: dict[str, str] = field(default_factory=dict)     # path -> address
    pages: dict[str, Any] = field(default_factory=dict)         # path -> JSON
    headers: dict[str, str] = field(default_factory=dict)       # added to every answer
    seen: list[dict[str, str]] = field(default_factory=list)    # headers of the requests, with "path" and "host"
    changed: Callable[[Site], None] | None = None               # called after each request
    url: str = ""
    open: threading.Event = field(default_factory=threading.Event)      # set at the end: stalled answers let go


def _next(values: list[Any]) -> Any:
    return values.pop(0) if len(values) > 1 else values[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.seen.append({**{name.lower(): value for name, value in self.headers.items()}, "path": self.path})
        try:
            self._answer(site)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.close_connection = True
            if site.changed:
                site.changed(site)

    def _answer(self, site: Site) -> None:
        path = self.path.split("?")[0]
        if path in site.redirects:
            return self._head(302, {"Location": site.redirects[path], "Content-Length": "0"})
        if path in site.pages:
            body = json.dumps(site.pages[path]).encode()
            self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
            self.wfile.write(body)
            return None
        if (status := _next(site.statuses)) != 200:
            return self._head(status, {"Content-Length": "0", **site.headers})
        if site.page is not None:
            self._head(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(site.page))})
            self.wfile.write(site.page.encode())
            return None
        return self._send(site)

    def _send(self, site: Site) -> None:
        asked = self.headers.get("Range", "") if site.ranges else ""
        if asked and self.headers.get("If-Range", site.etag) != site.etag:
            asked = ""
        start = int(asked.removeprefix("bytes=").removesuffix("-")) + site.shift if asked else 0
        headers = {"Content-Type": "application/octet-stream", **({"ETag": site.etag} if site.etag else {}), **site.headers}
        if asked and start >= len(site.data):
            return self._head(416, {"Content-Range": f"bytes */{len(site.data)}", "Content-Length": "0"})
        body = site.data[start:]
        if (length := site.length(len(body))) is not None:
            headers["Content-Length"] = str(length)
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(site.data) - 1}/{len(site.data)}"
        self._head(206 if asked else 200, headers)
        cut, stall = _next(site.cuts), _next(site.stalls)
        self.wfile.write(body[: min(n for n in (cut, stall, len(body)) if n is not None)])
        self.wfile.flush()
        if stall is not None and stall < len(body):
            site.open.wait(20)
        if cut is not None and cut < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """The site on a free port of 127.0.0.1; its `url` ends without a slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.open.set()
        server.shutdown()
        server.server_close()
