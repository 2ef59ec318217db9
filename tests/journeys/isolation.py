"""What every operation must answer to every kind of caller: one rule a row of the table of operations.

An operation on an object names it by the path parameters of `PARAMETERS`, whose objects belong to a private key. So a
new route is in the matrix as soon as it is in the table, and fails there until it has a rule here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.journeys.serving import FORM, form, jsonl

BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
HOOK = "https://1.1.1.1/hook"  # no name to resolve; nothing is sent there
UPLOAD = {"filename": "u.jsonl", "purpose": "batch", "bytes": 4, "mime_type": "application/jsonl"}

Things = dict[str, str]
"""Ids by the names of path parameters, and `part_id` of the upload."""


@dataclass(frozen=True)
class Rule:
    """`ok` is what somebody gets who may; `body` makes what is sent; `hidden`: whose object it is about is not seen."""

    ok: tuple[int, ...] = (200,)
    body: Callable[[Things], Any] | None = None
    query: str = ""
    hidden: bool = False  # a foreign object is as an absent one: 404
    lists: bool = False  # its answer must not name a foreign object
    streams: bool = False  # its answer has no end


def _form(content: bytes, field: str = "file") -> tuple[bytes, str]:
    return form({"purpose": "batch"}, "in.jsonl", content, {}, field), FORM


OBJECT = Rule(hidden=True)
LIST = Rule(lists=True, query="order=asc&limit=100")
BY_BATCH = Rule(lists=True, query="group_by=batch")
ENDED = Rule(hidden=True, ok=(409,))  # the batches here have not ended and wait for nothing
ADMIN = Rule()

RULES: dict[str, Rule] = {
    # Files
    "createFile": Rule(body=lambda _: _form(jsonl(1))),
    "listFiles": LIST,
    "retrieveFile": OBJECT,
    "deleteFile": OBJECT,
    "downloadFile": OBJECT,
    # Uploads
    "createUpload": Rule(body=lambda _: UPLOAD),
    "retrieveUpload": OBJECT,
    "addUploadPart": Rule(hidden=True, body=lambda _: _form(b"{}\n", "data")),
    "completeUpload": Rule(hidden=True, body=lambda things: {"part_ids": [things["part_id"]]}),
    "cancelUpload": OBJECT,
    # Batches
    "createBatch": Rule(body=lambda things: {**BATCH, "input_file_id": things["file_id"]}),
    "listBatches": LIST,
    "estimateBatch": Rule(body=lambda things: {"input_file_id": things["file_id"]}, hidden=True),
    "adoptBatch": Rule(ok=(400,), body=lambda _: {"provider": "local", "remote_id": "b"}),
    "retrieveBatch": OBJECT,
    "cancelBatch": OBJECT,
    "resumeBatch": ENDED,
    "retryBatch": ENDED,
    "batchResults": OBJECT,
    "batchEvents": Rule(hidden=True, streams=True),
    # Models
    "listModels": Rule(),
    "retrieveModel": Rule(),
    # Keys, projects and the gateway
    "createKey": Rule(body=lambda _: {"name": "n"}),
    "listKeys": ADMIN,
    "retrieveKey": ADMIN,
    "updateKey": Rule(body=lambda _: {"name": "m"}),
    "rotateKey": Rule(body=lambda _: {}),
    "deleteKey": ADMIN,
    "createProject": Rule(body=lambda _: {"name": "new"}, ok=(200, 409)),
    "listProjects": ADMIN,
    "retrieveProject": ADMIN,
    "updateProject": Rule(body=lambda _: {"sharing": True}),
    "deleteProject": Rule(ok=(409,)),
    "retrieveBudget": ADMIN,
    "setBudget": Rule(body=lambda _: {"budget": None}),
    "listAudit": ADMIN,
    "listReceivers": ADMIN,
    "retryReceiver": Rule(ok=(404,)),  # nobody is told of events here
    # Costs
    "listCosts": BY_BATCH,
    "listUsage": BY_BATCH,
    "organizationCosts": BY_BATCH,
    "organizationUsage": BY_BATCH,
    "correctCosts": Rule(
        body=lambda things: {"batch_id": things["batch_id"], "amount_usd": "0.01", "kind": "correction", "note": "n"},
        ok=(200, 400, 409),
    ),
    # Webhooks
    "createWebhook": Rule(body=lambda _: {"url": HOOK}),
    "listWebhooks": LIST,
    "retrieveWebhook": OBJECT,
    "updateWebhook": Rule(hidden=True, body=lambda _: {"events": ["job.*"]}),
    "rotateWebhook": Rule(hidden=True, body=lambda _: {}),
    "testWebhook": OBJECT,
    "deleteWebhook": OBJECT,
    "listDeliveries": OBJECT,
    "retryDeliveries": OBJECT,
    "retryDelivery": OBJECT,
    # The process
    "live": Rule(),
    "ready": Rule(),
    "metrics": Rule(),
}
