"""What the gateway counts of itself, for Prometheus. Where `metrics_open` is not set it needs an admin's key."""

from __future__ import annotations

from starlette.responses import Response

from batchway.server.routing import Call, Operation


async def metrics(call: Call) -> Response:
    """Every metric, as Prometheus reads them; see docs/metrics.md."""
    body, content_type = await call.gateway.measure(call.request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


OPERATIONS = (
    Operation(
        method="GET", path="/metrics", name="metrics", handler=metrics, media="text/plain", tag="Health", admin=True,
        versioned=False,
    ),
)  # fmt: skip
