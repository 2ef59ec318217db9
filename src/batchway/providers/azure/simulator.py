"""Azure OpenAI's files, batches and model endpoints imitated over real HTTP: the v1 surface and dated api-versions.

`README.md` in this folder is the manual; what it shares with others of this shape is `providers/shared/file_simulator`.
Invariant: what is said here is Azure's alone: two surfaces and their forms, keys and Entra tokens, files that are not
usable at once, batches that outlive their window, blobs (`simulator_blobs`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qs
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from batchway.providers.azure import simulator_blobs
from batchway.providers.azure.simulator_settings import AzureSettings
from batchway.providers.shared.file_simulator import app, sync
from batchway.providers.shared.file_simulator.answers import ENDPOINTS, Json
from batchway.providers.shared.file_simulator.errors import ApiError
from batchway.providers.shared.file_simulator.flavor import Flavor, header
from batchway.providers.shared.file_simulator.settings import SimulatorSettings
from batchway.providers.shared.file_simulator.store import TERMINAL, Batch, File
from batchway.providers.shared.file_simulator.web import JsonResponse, simulation_of

V1 = "/openai/v1"
ANY_KEY = "sim"
BATCHES_SINCE = "2024-07-01"  # the first api-version that knows the purpose `batch`
SAFE_VERDICT: Json = {
    name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
}
VERSION = re.compile(r"(\d{4}-\d{2}-\d{2})(-preview)?")
OLD_WORDS = {"in_progress": "InProgress"}


class AzureFlavor(Flavor):
    """Azure's own ways, as the wire shows them; `old_shapes` brings back those of older versions."""

    name = "azure"
    title = "Azure"
    roots = (V1, "/openai")
    endpoints = ("/chat/completions", "/v1/chat/completions", "/v1/responses")
    expiry = (1_209_600, 2_592_000)
    codes: Mapping[str, str] = {
        "invalid_url": "url_mismatch",
        "mismatched_model": "model_mismatch",
        "missing_required_parameter": "invalid_request",
        "invalid_type": "invalid_request",
        "invalid_method": "invalid_request",
        "streaming_unsupported": "invalid_request",
    }
    line_ids = False
    empty_error_files = True

    def __init__(self, settings: SimulatorSettings) -> None:
        super().__init__(settings)
        self.settings = cast("AzureSettings", settings)
        self.expires = self.settings.expires
        if self.settings.fail_fast:
            self.batch_faults = ("fail_batch",)  # the other one refuses creations

    def url(self, settings: SimulatorSettings) -> str:
        return f"http://{settings.host}:{settings.port}{V1}"

    def config(self, settings: SimulatorSettings) -> dict[str, Any]:
        given = self.settings
        root = f"http://{settings.host}:{settings.port}"
        if given.client_secret is None:
            return {self.name: {"endpoint": root, "api_key": settings.api_key or ANY_KEY}}
        client = {"tenant_id": given.tenant_id, "client_id": given.client_id, "client_secret": given.client_secret}
        return {self.name: {"endpoint": root, "authority": root, **client}}

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Callable[..., Any]]] = [
            ("POST", "/{tenant}/oauth2/v2.0/token", self.token),
            *((method, root + path, made) for root in self.roots for method, path, made in simulator_blobs.ROUTES),
            *(
                ("POST", "/openai/deployments/{deployment}" + path.removeprefix("/v1"), made)
                for path in ENDPOINTS
                for made in [partial(sync.infer, endpoint=path)]
            ),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in table]

    def refusal(self, settings: SimulatorSettings, scope: Scope, now: float) -> ApiError | None:
        if not _on_v1(scope):
            version = VERSION.fullmatch(_query(scope, "api-version"))
            if version is None:
                return ApiError(404, "Resource not found", code="404")
            if scope["path"] == "/openai/files" and scope["method"] == "POST" and version[1] < BATCHES_SINCE:
                return ApiError(400, "Invalid value for purpose.", code="invalidPayload")
        bearer = header(scope, b"authorization").removeprefix("Bearer ").strip()
        key = header(scope, b"api-key") or bearer  # the v1 surface takes a key either way
        if bearer and self._is_token(bearer, now):
            return None
        if key and not bearer.startswith("simulated.") and settings.api_key in (None, key):
            return None
        text = (
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for "
            "an active subscription and use a correct regional API endpoint for your resource."
        )
        return ApiError(401, text, code="401")

    def headers(self, number: int, milliseconds: int) -> list[tuple[bytes, bytes]]:
        return [
            (b"apim-request-id", str(uuid4()).encode()),
            (b"x-ms-region", b"Simulated"),
            (b"x-envoy-upstream-service-time", str(milliseconds).encode()),
        ]

    def error(self, scope: Scope, error: ApiError) -> Json:
        if error.status == 400 and _on_v1(scope):
            return error.body
        inner = {"innererror": error.error["innererror"]} if "innererror" in error.error else {}
        code = "notFound" if error.status == 404 and error.error["code"] != "404" else error.error["code"]
        return {"error": {"code": code or str(error.status), "message": error.error["message"], **inner}}

    def created(self, request: Request) -> int:
        return 200 if _on_v1(request.scope) else 201

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{uuid4()}" if prefix == "batch_" else super().new_id(prefix)

    def file_status(self, settings: SimulatorSettings, file: File, now: float) -> str:
        return "processed" if now >= file.created_at + self.settings.process_seconds else "pending"

    def file(self, request: Request, shown: Json) -> Json:
        if not self.settings.old_shapes:
            return shown
        return {**shown, "status": shown["status"].capitalize(), "created_at": _iso(shown["created_at"])}

    def batch(self, scope: Scope, batch: Batch, shown: Json) -> Json:
        shown = {**shown, **simulator_blobs.places(batch, ended=batch.status in TERMINAL)}
        return _old(shown) if self.settings.old_shapes else shown

    def answer(self, endpoint: str, body: Json) -> Json:
        if endpoint != "/v1/chat/completions":
            return body
        for choice in body["choices"]:
            choice["content_filter_results"] = SAFE_VERDICT
        prompt = {"prompt_index": 0, "content_filter_results": SAFE_VERDICT}
        return {**body, "prompt_filter_results": [prompt]}

    def too_many_tokens(self, model: str | None, limit: int) -> str:
        return (
            f"The number of enqueued tokens has surpassed the configured limit of {limit} for the deployment "
            f"'{model}'. Please either increase the limit or try again once the current jobs have finished."
        )

    async def token(self, request: Request) -> Response:
        """`POST /{tenant}/oauth2/v2.0/token`: Entra ID's client-credentials grant."""
        form = {name: values[-1] for name, values in parse_qs((await request.body()).decode()).items()}
        given = self.settings
        wanted = {
            "tenant": given.tenant_id,
            "grant_type": "client_credentials",
            "client_id": given.client_id,
            "client_secret": given.client_secret,
        }
        found = {**form, "tenant": request.path_params["tenant"]}
        for name, value in wanted.items():
            if not found.get(name) or value not in (None, found[name]):
                status = 401 if name == "client_secret" else 400
                problem = {"error": "invalid_client", "error_description": f"AADSTS7000215: Invalid {name} provided."}
                return JsonResponse(problem, status_code=status)
        ends = simulation_of(request).clock.clock() + given.token_seconds
        seconds = int(given.token_seconds)
        return JsonResponse({"token_type": "Bearer", "expires_in": seconds, "access_token": self._signed(ends)})

    def _signed(self, ends: float) -> str:
        """An opaque token that says itself when it ends, so that it outlives this process."""
        text = f"simulated.{int(ends)}"
        return (
            f"{text}.{hmac.new(str(self.settings.client_secret).encode(), text.encode(), hashlib.sha256).hexdigest()}"
        )

    def _is_token(self, bearer: str, now: float) -> bool:
        ends = bearer.split(".")[1] if bearer.count(".") == 2 else ""
        return ends.isdigit() and now < int(ends) and hmac.compare_digest(bearer, self._signed(int(ends)))


def _on_v1(scope: Scope) -> bool:
    return scope["path"].startswith(f"{V1}/")


def _query(scope: Scope, name: str) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])[-1]


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _old(shown: Json) -> Json:
    """The Batch object as early versions sent it."""
    old = {name: _iso(value) if name.endswith("_at") else value for name, value in shown.items()}
    old["status"] = OLD_WORDS.get(shown["status"], shown["status"].capitalize())
    old["output_file_id"], old["error_file_id"] = shown["output_file_id"] or "", shown["error_file_id"] or ""
    old["request_counts"] = None if shown["status"] == "validating" else shown["request_counts"]
    if shown["errors"]:
        faults = [{**each, "line": each["line"] and str(each["line"])} for each in shown["errors"]["data"]]
        old["errors"] = {"object": "list", "data": faults}
    return {name: value for name, value in old.items() if name not in ("model", "usage")}


def create_app(settings: AzureSettings, *, clock: Callable[[], float]) -> Starlette:
    """The simulator as an ASGI app; `clock` gives real unix seconds."""
    return app.create_app(AzureFlavor(settings), settings, clock=clock)


def main(arguments: Sequence[str] | None = None) -> None:
    """`batchway simulate azure --port N ...`: one option for each setting."""
    app.command(AzureFlavor, AzureSettings, arguments)


if __name__ == "__main__":
    main()
