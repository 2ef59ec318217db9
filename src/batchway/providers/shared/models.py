"""GET /models in OpenAI's shape: which model names a server knows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.http import Http


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def list_models(http: Http, base_url: str, headers: Mapping[str, str]) -> list[str]:
    """The names, as the server lists them; ProviderError when it does not answer."""
    reply = await http.request("GET", f"{base_url}/models", headers=headers, timeout=15.0)
    try:
        return [model.id for model in msgspec.json.decode(reply.body, type=_Models).data]
    except msgspec.DecodeError:
        message = f"the list of models, {len(reply.body)} bytes, is unreadable"
        raise ProviderError(message, fault=Fault.TRANSIENT, status=reply.status) from None
