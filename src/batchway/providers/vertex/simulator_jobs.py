"""The simulator's batchPredictionJobs: create, get, list, cancel, delete; and the routes about the simulator itself.

Invariant: a created job is stored before anything is answered, so the lies (`accept_then_500`, `accept_then_reset`) are
lies about a job that exists and runs. Source: discovery `aiplatform.v1`, read November 2026.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from batchway.providers.shared.simulation import faults_from, parse_faults
from batchway.providers.vertex.simulator_http import (
    ApiError,
    BrokenConnection,
    JsonResponse,
    json_object,
    listed,
    table,
)
from batchway.providers.vertex.simulator_life import TERMINAL, Job, Simulation, cancel, progress
from batchway.providers.vertex.simulator_models import stamp
from batchway.providers.vertex.statuses import CODES

FIELDS = frozenset(
    (
        "name displayName model modelVersionId inputConfig outputConfig instanceConfig labels encryptionSpec "
        "serviceAccount manualBatchTuningParameters dedicatedResources modelParameters generateExplanation "
        "disableContainerLogging"
    ).split()
)
MODEL = re.compile(r"(publishers/[\w.-]+/models/[\w.@-]+|projects/[^/]+/locations/[^/]+/models/[\w@.-]+)")
LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
TERM = re.compile(r"(labels\.[\w-]+|display_name|displayName|state|model)\s*(!?=)\s*\"?([^\"\s]*)\"?")
NOT_FOUND = "The BatchPredictionJob does not exist."


def _simulation(request: Request) -> Simulation:
    return request.app.state.simulation


async def create(request: Request) -> Response:
    """`POST {parent}/batchPredictionJobs`."""
    simulation = _simulation(request)
    body = await json_object(request)
    _check(simulation, body)
    job = simulation.create(body, request.path_params["project"], request.path_params["location"])
    if simulation.hits("accept_then_500", job.ordinal):
        return ApiError("INTERNAL", "Internal error encountered.").response(request.url.path)
    if simulation.hits("accept_then_reset", job.ordinal):
        return BrokenConnection()
    return JsonResponse(shown(simulation, simulation.look(job)))


def _check(simulation: Simulation, body: dict[str, Any]) -> None:
    for name in body:
        if name not in FIELDS:
            text = (
                f"Invalid JSON payload received. Unknown name \"{name}\" at 'batch_prediction_job': Cannot find field."
            )
            raise ApiError("INVALID_ARGUMENT", text)
    if not isinstance(body.get("displayName"), str) or not 0 < len(body["displayName"]) <= 128:
        raise ApiError("INVALID_ARGUMENT", "display_name is required, up to 128 characters.")
    model = body.get("model")
    if not isinstance(model, str) or MODEL.fullmatch(model) is None:
        raise ApiError("INVALID_ARGUMENT", f"The model resource name {model} is invalid.")
    if simulation.settings.models and model.rpartition("/")[2] not in simulation.settings.models:
        raise ApiError("NOT_FOUND", f"Publisher Model `{model}` is not found.")
    _check_places(body)
    labels = table(body, "labels")
    for label, value in labels.items():
        if not (LABEL.fullmatch(label) and isinstance(value, str) and LABEL_VALUE.fullmatch(value)):
            raise ApiError("INVALID_ARGUMENT", f"Invalid label: {label}.")
    if len(labels) > 64:
        raise ApiError("INVALID_ARGUMENT", "At most 64 labels are allowed.")


def _check_places(body: dict[str, Any]) -> None:
    source, target = table(body, "inputConfig"), table(body, "outputConfig")
    if source.get("instancesFormat") != "jsonl" or target.get("predictionsFormat") != "jsonl":
        raise ApiError("INVALID_ARGUMENT", "The simulator knows the formats jsonl only.")
    uris = listed(table(source, "gcsSource"), "uris")
    prefix: object = table(target, "gcsDestination").get("outputUriPrefix")
    for uri in [*uris, prefix]:
        if not isinstance(uri, str) or re.fullmatch(r"gs://[^/]+(/.*)?", uri) is None:
            raise ApiError("INVALID_ARGUMENT", f"Invalid Cloud Storage URI: {uri}")
    if not uris:
        raise ApiError("INVALID_ARGUMENT", "input_config.gcs_source.uris is required.")


def _found(request: Request) -> Job:
    simulation = _simulation(request)
    job = simulation.jobs.get(request.path_params["job"])
    if job is None or job.location != request.path_params["location"]:
        raise ApiError("NOT_FOUND", NOT_FOUND)
    return simulation.look(job)


async def retrieve(request: Request) -> Response:
    """`GET {name}`."""
    return JsonResponse(shown(_simulation(request), _found(request)))


async def act(request: Request) -> Response:
    """`POST {name}:cancel`; a job that has ended refuses."""
    job = _found(request)
    if job.state in TERMINAL:
        raise ApiError("FAILED_PRECONDITION", f"The job is in the terminal state {job.state}.")
    if job.cancelled is None:
        cancel(_simulation(request), job)
    return JsonResponse({})


async def delete(request: Request) -> Response:
    """`DELETE {name}`: only of a job that has ended; the answer is an operation that is done."""
    job, simulation = _found(request), _simulation(request)
    if job.state not in TERMINAL:
        raise ApiError("FAILED_PRECONDITION", f"The job is in the state {job.state}; cancel it first.")
    simulation.forget(job)
    now = stamp(simulation.clock.now())
    about = {"@type": "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata"}
    return JsonResponse(
        {
            "name": f"projects/{job.project}/locations/{job.location}/operations/{job.ordinal}",
            "metadata": {**about, "genericMetadata": {"createTime": now, "updateTime": now}},
            "done": True,
            "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
        }
    )


async def listing(request: Request) -> Response:
    """`GET {parent}/batchPredictionJobs`: newest first."""
    simulation, query = _simulation(request), request.query_params
    terms = _terms(query.get("filter", ""))
    here = [job for job in simulation.jobs.values() if job.location == request.path_params["location"]]
    here = [simulation.look(job) for job in sorted(here, key=lambda job: -job.ordinal)]
    found = [job for job in here if all(_fits(job, *term) for term in terms)]
    size = min(int(query.get("pageSize", 100)) or 100, 1000)
    start = int(query.get("pageToken") or 0)
    answer: dict[str, Any] = {}
    if page := found[start : start + size]:
        answer["batchPredictionJobs"] = [shown(simulation, job) for job in page]
    if len(found) > start + size:
        answer["nextPageToken"] = str(start + size)
    return JsonResponse(answer)


def _terms(text: str) -> list[tuple[str, str, str]]:
    terms: list[tuple[str, str, str]] = []
    for part in filter(None, (part.strip() for part in re.split(r"\s+AND\s+", text))):
        if (term := TERM.fullmatch(part)) is None:
            raise ApiError("INVALID_ARGUMENT", f"Invalid filter: {part}")
        terms.append((term[1], term[2], term[3]))
    return terms


def _fits(job: Job, field: str, sign: str, wanted: str) -> bool:
    if field.startswith("labels."):
        value = table(job.body, "labels").get(field.removeprefix("labels."))
    elif field == "state":
        value = job.state
    else:
        value = job.body.get("model" if field == "model" else "displayName")
    return (value == wanted) is (sign == "=")


def shown(simulation: Simulation, job: Job) -> dict[str, Any]:
    """The BatchPredictionJob of the API; what is empty is left out."""
    answer = {"name": job.name, **{name: value for name, value in job.body.items() if name != "name"}}
    answer |= {"state": job.state, "createTime": stamp(job.created), "updateTime": stamp(job.updated)}
    if job.started is not None:
        answer["startTime"] = stamp(job.started)
        answer["completionStats"] = _stats(job, simulation.clock.now())
    if job.ended is not None:
        answer["endTime"] = stamp(job.ended)
    if job.output is not None and job.written:
        answer["outputInfo"] = {"gcsOutputDirectory": job.output}
    if job.state == "JOB_STATE_FAILED":
        answer["error"] = {"code": job.fault_code, "message": job.fault or CODES[job.fault_code][0]}
    return answer


def _stats(job: Job, now: float) -> dict[str, str]:
    """Counts as JSON strings; zeros are left out, as protobuf's JSON does."""
    done, total = progress(job, now), job.total or 0
    failed = job.failed if job.written else round(done * job.failing / total) if total else 0
    successful = job.successful if job.written else done - failed
    counts = {"successfulCount": successful, "failedCount": failed, "incompleteCount": total - done}
    return {name: str(count) for name, count in counts.items() if count}


async def overview(request: Request) -> Response:
    """`GET /_sim`."""
    simulation = _simulation(request)
    drawn = {name: simulation.drawn[name] for name in sorted(simulation.drawn)}
    seen = {"requests": simulation.requests, "jobs": len(simulation.jobs), "tokens_issued": len(simulation.tokens)}
    return JsonResponse({**seen, "faults_drawn": drawn})


async def revoke(request: Request) -> Response:
    """`POST /_sim/revoke`: no token issued so far is good any more."""
    simulation = _simulation(request)
    simulation.tokens = dict.fromkeys(simulation.tokens, 0.0)
    return JsonResponse({})


async def jobs(request: Request) -> Response:
    """`GET /_sim/jobs`: every job there is, also those whose creation was denied."""
    simulation = _simulation(request)
    found = [shown(simulation, simulation.look(job)) for job in list(simulation.jobs.values())]
    return JsonResponse({"data": found})


async def faults(request: Request) -> Response:
    """`POST /_sim/faults` with `{"spec": "line=0.1"}` or rates by name."""
    body = await json_object(request)
    simulation = _simulation(request)
    try:
        spec = body.pop("spec", None)
        simulation.faults = parse_faults(spec) if isinstance(spec, str) else faults_from(body)
    except ValueError as error:
        raise ApiError("INVALID_ARGUMENT", str(error)) from None
    return JsonResponse(simulation.faults.named())


async def advance(request: Request) -> Response:
    """`POST /_sim/advance` with `{"seconds": n}`: moves the clock; returns when every job is where it then is."""
    simulation = _simulation(request)
    simulation.clock.advance(float((await json_object(request)).get("seconds", 0)))
    simulation.keep_clock()
    await simulation.settle()
    return JsonResponse({"now": simulation.clock.now()})
