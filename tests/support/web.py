"""A real HTTP server in a thread that answers as told and remembers what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class WebServer:
    """One server; change what it answers at any time."""

    url: str = ""
    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    echo: Callable[[Asked], bytes] | None = None  # makes the body of an answer from the request
    requests: list[Asked] = field(default_factory=list)
    answering: threading.Event = field(default_factory=threading.Event)  # cleared: requests wait without an answer


@contextmanager
def serve(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[WebServer]:
    """Run a server on a free port, of loopback unless `host` is another address of this machine."""
    web = WebServer()
    web.answering.set()
    server = ThreadingHTTPServer((host, 0), _handler(web))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    web.url = f"{'https' if tls else 'http'}://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        web.answering.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(web: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers.items()), body)
            web.requests.append(asked)
            answer = web.body if web.echo is None else web.echo(asked)
            web.answering.wait(30)
            try:
                self.send_response(web.status)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)
            except OSError:
                return  # the client has left, which is what some tests are about

        def __getattr__(self, name: str) -> object:
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *_args: object) -> None:
            """Say nothing; the test looks at `requests`."""

    return Handler
