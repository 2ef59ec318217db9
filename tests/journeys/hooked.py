"""A receiver of webhooks in a thread of this process: it keeps what it was asked and answers `status`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    headers: dict[str, str]
    body: bytes
    status: int  # that it was answered with

    @property
    def event(self) -> Any:
        return json.loads(self.body)


@dataclass
class Hooked:
    url: str = ""
    status: int = 204
    asked: list[Asked] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def taken(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.status < 300]

    def types(self, status: int | None = None) -> list[str]:
        return [asked.event["type"] for asked in self.asked if status in (None, asked.status)]

    def until(self, true: Callable[[], bool], seconds: float = 40.0) -> None:
        with self.changed:
            assert self.changed.wait_for(true, seconds), self.types()


@contextmanager
def hooked() -> Iterator[Hooked]:
    made = Hooked()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = made.status
            with made.changed:
                headers = {name.lower(): value for name, value in self.headers.items()}
                made.asked.append(Asked(headers, body, status))
                made.changed.notify_all()
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/hook"
    running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    running.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        running.join()
