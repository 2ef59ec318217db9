"""/openapi.json and /docs (Swagger UI). The page's assets come out of an installed package: it works without a network.

Neither needs a key: they show the shape of the API and nothing of anybody. The page runs our own scripts only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata, resources
from zlib import compressobj

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from batchway.server.openapi import document
from batchway.server.routing import Table

PACKAGE = "offapi"  # ships the distribution files of Swagger UI
ASSETS = {
    "swagger-ui.js": ("swagger_bundle.js", "text/javascript"),
    "swagger-ui.css": ("swagger_style.css", "text/css"),
}

PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Batchway API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger"></div>
<script src="docs/swagger-ui.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""

# Swagger UI writes style attributes and draws its icons from data: addresses; scripts are ours alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def pages(table: Table) -> list[BaseRoute]:
    """The routes of the document and of the page."""

    @cache
    def document_bytes() -> bytes:
        return msgspec.json.encode(document(table.operations, version()))

    return [
        Route("/openapi.json", _serve(document_bytes, "application/json")),
        Route("/docs", _serve(lambda: PAGE, "text/html")),
        Route("/docs/start.js", _serve(lambda: START, "text/javascript")),
        *(Route(f"/docs/{name}", _serve(_asset(file), kind, packed=True)) for name, (file, kind) in ASSETS.items()),
        Route("/", _home),
    ]


def version() -> str:
    """Batchway's version; a checkout that is not installed has none."""
    try:
        return metadata.version("batchway")
    except metadata.PackageNotFoundError:
        return "0+checkout"


def _serve(content: Callable[[], bytes], kind: str, *, packed: bool = False) -> Callable[[Request], Response]:
    async def page(request: Request) -> Response:
        if packed and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(_gzip(content()), headers={**HEADERS, "content-encoding": "gzip"}, media_type=kind)
        return Response(content(), headers=HEADERS, media_type=kind)

    return page  # pyright: ignore[reportReturnType] - Starlette takes both kinds of functions


def _asset(file: str) -> Callable[[], bytes]:
    return lambda: resources.files(PACKAGE).joinpath(file).read_bytes()


@cache
def _gzip(content: bytes) -> bytes:
    packer = compressobj(level=6, wbits=31)
    return packer.compress(content) + packer.flush()


async def _home(request: Request) -> Response:
    return RedirectResponse("docs")
