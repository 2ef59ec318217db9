"""Vertex's batchPredictionJobs as a `Provider`: rows go to a bucket, a job turns them into rows beside them.

Everything of a job lies under `{prefix}/{token}/`: `input.jsonl`, and `out/` which Vertex fills. The token is also the
job's label and part of its name, so a submit can be found again. A line that the dialect refuses is never sent; it is
answered by its error. A job of which every line is refused submits nothing: its remote id says so.
Sources stand in README.md beside this file.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import Counts, JobSpec, Limits, Look
from batchway.core.states import Outcome
from batchway.http import SAFE
from batchway.providers.protocol import Answer, Source
from batchway.providers.vertex import statuses
from batchway.providers.vertex.buckets import Bucket, split_uri
from batchway.providers.vertex.families import family, resource
from batchway.providers.vertex.google import Google, decoded
from batchway.providers.vertex.lines import answers, sendable

LABEL = "batchway_token"
NOTHING_SENT = "nothing-sent:"  # the remote id of a job without a single line that could be sent
PAGE = 100

OUTCOMES = {
    "JOB_STATE_SUCCEEDED": Outcome.SUCCEEDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": Outcome.SUCCEEDED,
    "JOB_STATE_CANCELLED": Outcome.CANCELLED,
    "JOB_STATE_EXPIRED": Outcome.EXPIRED,
    "JOB_STATE_FAILED": Outcome.FAILED,
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an account's jobs run and what they carry. `base_url` stands in for the location's own host."""

    project: str
    location: str
    limits: Limits
    prefix: str  # of the names of all staged objects; may be empty
    base_url: str | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    service_account: str | None = None
    kms_key: str | None = None

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"

    def host(self, location: str) -> str:
        """The address of a location's API."""
        if self.base_url:
            return self.base_url
        if location == "global":
            return "https://aiplatform.googleapis.com"
        if location in ("us", "eu"):
            return f"https://aiplatform.{location}.rep.googleapis.com"
        return f"https://{location}-aiplatform.googleapis.com"


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Stats(msgspec.Struct, rename="camel"):
    successful_count: int | str = 0
    failed_count: int | str = 0


class _OutputInfo(msgspec.Struct, rename="camel"):
    gcs_output_directory: str | None = None


class _Job(msgspec.Struct, rename="camel"):
    name: str
    state: str = ""
    labels: dict[str, str] = {}
    error: _Status | None = None
    partial_failures: list[_Status] = []
    completion_stats: _Stats | None = None
    output_info: _OutputInfo | None = None
    create_time: str | None = None


class _Jobs(msgspec.Struct, rename="camel"):
    batch_prediction_jobs: list[_Job] = []
    next_page_token: str | None = None


class _Endpoint(msgspec.Struct, rename="camel"):
    deployed_models: list[dict[str, Any]] = []


class VertexJobs:
    """A `Provider` over one project and location."""

    def __init__(self, place: Place, google: Google, bucket: Bucket) -> None:
        self._place = place
        self._google = google
        self._bucket = bucket

    def limits(self, model: str) -> Limits:
        """The account's limits with the endpoints of the model's family; all endpoints without a model."""
        if not model:
            return self._place.limits
        of_family = family(model)
        endpoints = of_family.endpoints if of_family else frozenset[str]()
        return msgspec.structs.replace(self._place.limits, endpoints=endpoints)

    async def submit(self, job: JobSpec, source: Source) -> str:
        """Uploads the rows and creates the job; only the second call is paid, and it is never repeated blindly."""
        model = await self._model(job)
        name = self._name(job, "input.jsonl")
        if not await self._bucket.upload(name, sendable(job, source, self._place.limits)):
            return NOTHING_SENT + job.token
        body = msgspec.json.encode(self._described(job, model, name))
        url = f"{self._host()}/v1/{self._place.parent}/batchPredictionJobs"
        try:
            return msgspec.json.decode((await self._google.request("POST", url, json=body)).body, type=_Job).name
        except msgspec.DecodeError:
            raise ProviderError("the job was created but the answer is unreadable", fault=Fault.LOST) from None
        except ProviderError as error:
            if error.status is not None and (error.status >= 500 or error.status in (408, 499)):
                # it may have been created all the same
                raise ProviderError(error.message, fault=Fault.LOST, status=error.status, code=error.code) from None
            if error.fault in (Fault.REJECTED, Fault.DENIED):  # there will be no job whose clean-up finds the rows
                with suppress(ProviderError):  # the refusal is what must be told
                    await self._bucket.delete(name)
            raise

    async def find(self, job: JobSpec) -> str | None:
        """Asks for the jobs with our label."""
        label = _label(job.token)
        query: dict[str, str | int | bool] = {"filter": f'labels.{LABEL}="{label}"', "pageSize": PAGE}
        while True:
            url = f"{self._host()}/v1/{self._place.parent}/batchPredictionJobs"
            page = decoded(await self._google.request("GET", url, query=query), _Jobs)
            for remote in page.batch_prediction_jobs:
                if remote.labels.get(LABEL) == label:
                    return remote.name
            if not page.next_page_token:
                return None
            query["pageToken"] = page.next_page_token

    async def look(self, job: JobSpec) -> Look:
        """One GET; states that we do not know count as running."""
        remote_id = str(job.remote_id)
        if remote_id.startswith(NOTHING_SENT):
            counts = Counts(failed=job.lines)
            return Look(remote_id=remote_id, outcome=Outcome.SUCCEEDED, status="NOTHING_SENT", counts=counts)
        remote = decoded(await self._google.request("GET", self._url(remote_id)), _Job)
        failure = _failure(remote)
        outcome = OUTCOMES.get(remote.state)
        if outcome is Outcome.FAILED and failure and failure.status < 500:
            outcome = Outcome.REJECTED  # the input or the rights are at fault: the same job would fail again
        directory = remote.output_info.gcs_output_directory if remote.output_info else None
        return Look(
            remote_id=remote.name,
            outcome=outcome,
            status=remote.state,
            counts=_counts(remote.completion_stats, job.lines),
            code=failure.name.lower() if failure else None,
            message=failure.message if failure else None,
            created_at=_seconds(remote.create_time),
            results=(directory or self._bucket.uri(self._name(job, "out")),),
        )

    async def cancel(self, job: JobSpec) -> None:
        """A job that has ended refuses, which is what was wanted."""
        remote_id = str(job.remote_id)
        if remote_id.startswith(NOTHING_SENT):
            return
        try:
            await self._google.request("POST", f"{self._url(remote_id)}:cancel", json=b"{}", retry=SAFE)
        except ProviderError as error:
            if error.code != "FAILED_PRECONDITION":
                raise

    async def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        """The lines that were never sent, then what Vertex wrote, in its order."""
        async for found in answers(job, source, lambda: self._rows(look)):
            yield found

    async def clean(self, job: JobSpec, look: Look) -> None:
        """Deletes the job and all its objects; the job first, for a job that lives could still write."""
        del look
        remote_id = str(job.remote_id)
        if not remote_id.startswith(NOTHING_SENT):
            await self._google.request("DELETE", self._url(remote_id), ok=(200, 404))
        async for name in self._bucket.names(self._name(job, "")):
            await self._bucket.delete(name)

    async def _rows(self, look: Look) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of every output object there is."""
        for place in look.results:
            _, prefix = split_uri(place)
            async for name in self._bucket.names(f"{prefix}/"):
                if name.endswith(".jsonl"):
                    yield self._bucket.read(name)

    async def _model(self, job: JobSpec) -> str:
        """The resource name of the model; that of an endpoint is resolved to the model deployed there."""
        name = resource(job.route.model)
        if "/endpoints/" not in name:
            return name
        found = decoded(await self._google.request("GET", self._url(name)), _Endpoint)
        model = next((deployed.get("model") for deployed in found.deployed_models), None)
        if not isinstance(model, str):
            raise ProviderError(f"no model is deployed at {name}", fault=Fault.REJECTED, code="model_not_found")
        return model

    def _described(self, job: JobSpec, model: str, name: str) -> dict[str, Any]:
        """The body of the create call."""
        body: dict[str, Any] = {
            "displayName": f"batchway-{_label(job.token)}",
            "model": model,
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [self._bucket.uri(name)]}},
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": self._bucket.uri(self._name(job, "out"))},
            },
            "labels": {**self._place.labels, LABEL: _label(job.token)},
        }
        if self._place.service_account:
            body["serviceAccount"] = self._place.service_account
        if self._place.kms_key:
            body["encryptionSpec"] = {"kmsKeyName": self._place.kms_key}
        return body

    def _name(self, job: JobSpec, name: str) -> str:
        return "/".join(filter(None, (self._place.prefix, job.token))) + f"/{name}"

    def _host(self) -> str:
        return self._place.host(self._place.location)

    def _url(self, name: str) -> str:
        """A job keeps its location in its name, so it is found after the settings have moved on to another."""
        if found := re.match(r"projects/[^/]+/locations/([^/]+)/", name):
            return f"{self._place.host(found[1])}/v1/{name}"
        return f"{self._host()}/v1/{self._place.parent}/batchPredictionJobs/{name}"


def _label(token: str) -> str:
    """The token as the value of a label: lower-case letters, digits, _ and -, at most 63."""
    return re.sub(r"[^a-z0-9_-]", "_", token.lower())[:63]


def _failure(remote: _Job) -> statuses.Failure | None:
    found = remote.error or next(iter(remote.partial_failures), None)
    return statuses.of_rpc(found.code, found.message) if found and (found.code or found.message) else None


def _counts(stats: _Stats | None, lines: int) -> Counts:
    """Counts come as strings and count rows, of which an embeddings line has several."""
    if stats is None:
        return Counts()
    completed, failed = (max(0, int(count)) for count in (stats.successful_count, stats.failed_count))
    failed = min(failed, lines)
    return Counts(min(completed, lines - failed), failed)


def _seconds(stamp: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time; its nanoseconds are beyond Python's parser."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", stamp or "")
    return datetime.fromisoformat(f"{found[1]}+00:00").timestamp() if found else None
