"""Where the simulator's access tokens come from: the OAuth exchange of a signed JWT, and a metadata server.

The assertion is read and its claims are checked; its signature is not, for the simulator has no key to check it with.
Source: developers.google.com/identity/protocols/oauth2/service-account and cloud.google.com/compute/docs/metadata, read
November 2026.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from batchway.providers.vertex.simulator_http import JsonResponse
from batchway.providers.vertex.simulator_life import Simulation

LIFE = 3599
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FLAVOR = {"metadata-flavor": "Google"}


async def exchange(request: Request) -> Response:
    """`POST /token`."""
    form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    if form.get("grant_type") != GRANT:
        return _refused("unsupported_grant_type", "Invalid grant_type")
    simulation: Simulation = request.app.state.simulation
    if (fault := _claims_fault(form.get("assertion", ""), simulation.clock.clock())) is not None:
        return _refused("invalid_grant", fault)
    return JsonResponse(issue(simulation))


def issue(simulation: Simulation) -> dict[str, Any]:
    """A new token, good for an hour of real time."""
    token = f"ya29.sim-{secrets.token_urlsafe(24)}"
    simulation.tokens[token] = simulation.clock.clock() + LIFE
    return {"access_token": token, "expires_in": LIFE, "token_type": "Bearer"}


def _claims_fault(assertion: str, now: float) -> str | None:
    try:
        head, payload, signature = assertion.split(".")
        header: dict[str, Any] = msgspec.json.decode(_plain(head))
        claims: dict[str, Any] = msgspec.json.decode(_plain(payload))
    except (ValueError, msgspec.DecodeError):
        return "Invalid JWT."
    if header.get("alg") != "RS256" or not signature:
        return "Invalid JWT signature."
    if not claims.get("iss") or not claims.get("scope") or not claims.get("aud"):
        return "Invalid JWT: iss, scope and aud are required."
    begins, ends = claims.get("iat", 0), claims.get("exp", 0)
    if not now - 3600 <= begins <= now + 300 or not now <= ends <= begins + 3600:
        return "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    return None


def _plain(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _refused(error: str, description: str) -> Response:
    return JsonResponse({"error": error, "error_description": description}, status_code=400)


async def metadata(request: Request) -> Response:
    """`GET /` and `/computeMetadata/v1/...`: what a machine of Google's asks."""
    if request.headers.get("metadata-flavor") != "Google":
        return Response("Missing Metadata-Flavor:Google header.", status_code=403)
    simulation: Simulation = request.app.state.simulation
    path = request.url.path.rstrip("/")
    if path.endswith("/token"):
        return _flavored(issue(simulation))
    if path.endswith("/project/project-id"):
        return Response(simulation.settings.project, media_type="text/plain", headers=FLAVOR)
    if path.endswith("/service-accounts/default"):
        account = {"aliases": ["default"], "email": "sim@batchway-sim.iam.gserviceaccount.com", "scopes": []}
        return _flavored(account)
    return Response("computeMetadata/\n", media_type="text/plain", headers=FLAVOR)


def _flavored(body: dict[str, Any]) -> Response:
    return JsonResponse(body, headers=FLAVOR)
