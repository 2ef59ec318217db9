"""The official Python client against a gateway, with nothing changed but the address; any version can run this script.

`openai_journey.py URL KEY MODEL` uses whichever `openai` it can import. Every answer is validated strictly against the
client's own types.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import openai
import pytest
from openai.types import Batch
from openai.types.chat import ChatCompletion

FINAL = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"


def jsonl(count: int, model: str) -> bytes:
    requests = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": CHAT,
            "body": {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}]},
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)


def expect(error: type[openai.APIStatusError], code: str | None, call) -> openai.APIStatusError:
    with pytest.raises(error) as caught:
        call()
    found = caught.value
    assert (found.code, found.type) == (code, "invalid_request_error")
    assert found.request_id, "x-request-id"
    return found


def files(client: openai.OpenAI, model: str) -> None:
    content = jsonl(3, model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "größe 1.jsonl"
        path.write_bytes(content)
        made = [
            client.files.create(file=path, purpose="batch"),
            client.files.create(file=("b.jsonl", io.BytesIO(content)), purpose="batch"),
            client.files.create(
                file=("c.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
            ),
        ]
    assert [file.filename for file in made] == ["größe 1.jsonl", "b.jsonl", "c.jsonl"]
    assert {(file.object, file.bytes, file.purpose) for file in made} == {("file", len(content), "batch")}
    assert made[2].expires_at == made[2].created_at + 3600
    assert made[0].expires_at == made[0].created_at + 30 * 86400
    ids = [file.id for file in made]
    assert all(name.startswith("file-") for name in ids)
    assert [file.id for file in client.files.list(limit=2, purpose="batch")][:3] == ids[::-1]
    forward = [file.id for file in client.files.list(limit=1, order="asc", purpose="batch")]
    assert forward[-3:] == ids
    assert len(forward) == len(set(forward)), "a page that repeats"
    assert client.files.retrieve(ids[0]).filename == "größe 1.jsonl"
    assert client.files.content(ids[0]).content == content
    assert client.files.content(ids[0]).text == content.decode()
    with client.files.with_streaming_response.content(ids[0]) as streamed:
        assert b"".join(streamed.iter_bytes(100)) == content
    assert client.files.delete(ids[0]).deleted is True
    expect(openai.NotFoundError, None, lambda: client.files.retrieve(ids[0]))
    expect(openai.NotFoundError, None, lambda: client.files.content(ids[0]))
    assert client.files.wait_for_processing(ids[1]).status == "processed"


def finished(client: openai.OpenAI, batch_id: str) -> Batch:
    deadline = time.monotonic() + 40
    while (batch := client.batches.retrieve(batch_id)).status not in FINAL:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    return batch


def batches(client: openai.OpenAI, model: str) -> None:
    file = client.files.create(file=("in.jsonl", jsonl(5, model)), purpose="batch")
    wanted = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    batch = client.batches.create(
        **wanted,
        metadata={"job": "a", "of": openai.__version__},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (batch.status, batch.object, batch.endpoint, batch.input_file_id) == ("validating", "batch", CHAT, file.id)
    assert batch.expires_at == batch.created_at + 86400
    assert batch.request_counts.total == 0
    doomed = client.batches.create(**wanted, metadata={"job": "b", "of": openai.__version__})
    cancelled = client.batches.cancel(doomed.id)
    assert cancelled.status in ("cancelling", "cancelled")
    assert cancelled.cancelling_at
    mine = [found.id for found in client.batches.list(limit=1, extra_query={"metadata[of]": openai.__version__})]
    assert mine == [doomed.id, batch.id]

    batch = finished(client, batch.id)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (5, 5, 0)
    assert batch.metadata == {"job": "a", "of": openai.__version__}
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).iter_lines()]
    assert [line["custom_id"] for line in lines] == [f"row-{number}" for number in range(5)]
    answers = [ChatCompletion.model_validate(line["response"]["body"], strict=True) for line in lines]
    assert all(answer.choices[0].message.content for answer in answers)
    assert batch.usage.total_tokens == sum(answer.usage.total_tokens for answer in answers)
    assert batch.usage.input_tokens == sum(answer.usage.prompt_tokens for answer in answers)
    output = client.files.retrieve(batch.output_file_id)
    assert output.purpose == "batch_output"
    assert output.expires_at == output.created_at + 3600
    assert finished(client, doomed.id).status in ("cancelled", "completed")
    failed = finished(client, client.batches.create(**{**wanted, "endpoint": "/v1/embeddings"}).id)
    assert failed.status == "failed"
    assert [(fault.line, fault.code, fault.param) for fault in failed.errors.data] == [
        (number, "invalid_url", "url") for number in range(1, 6)
    ]
    error = expect(openai.ConflictError, None, lambda: client.batches.cancel(batch.id))
    assert error.body["message"] == "Cannot cancel a batch with status 'completed'."


def refusals(client: openai.OpenAI, url: str) -> None:
    expect(openai.NotFoundError, None, lambda: client.batches.retrieve("batch_none"))
    wanted = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    error = expect(
        openai.BadRequestError, "invalid_value", lambda: client.batches.create(**{**wanted, "endpoint": "/x"})
    )
    assert error.param == "endpoint"
    error = expect(openai.BadRequestError, "invalid_type", lambda: client.batches.create(**wanted, metadata={"a": 1}))
    assert error.param == "metadata.a"
    error = expect(openai.BadRequestError, "integer_above_max_value", lambda: client.batches.list(limit=101))
    assert error.param == "limit"
    expect(openai.BadRequestError, None, lambda: client.files.create(file=("a.txt", b"{}"), purpose="batch"))
    with openai.OpenAI(base_url=url, api_key="sk-wrong", max_retries=0) as stranger:
        expect(openai.AuthenticationError, "invalid_api_key", stranger.batches.list)


def uploads(client: openai.OpenAI, model: str) -> None:
    content = jsonl(400, model)
    described = {"bytes": len(content), "filename": "p.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    upload = client.uploads.create(**described, expires_after={"anchor": "created_at", "seconds": 7200})
    assert (upload.status, upload.expires_at) == ("pending", upload.created_at + 3600)
    pieces = [content[at : at + 30_001] for at in range(0, len(content), 30_001)]
    parts = [client.uploads.parts.create(upload.id, data=piece) for piece in reversed(pieces)][::-1]
    assert {part.object for part in parts} == {"upload.part"}
    done = client.uploads.complete(
        upload.id, part_ids=[part.id for part in parts], md5=hashlib.md5(content).hexdigest()
    )
    assert done.status == "completed"
    assert client.files.content(done.file.id).content == content
    assert done.file.expires_at == done.file.created_at + 7200
    batch = client.batches.create(input_file_id=done.file.id, endpoint=CHAT, completion_window="24h")
    whole = client.uploads.upload_file_chunked(
        file=content, filename="q.jsonl", bytes=len(content), mime_type="text/jsonl", purpose="batch", part_size=50_000
    )
    assert client.files.content(whole.file.id).content == content
    assert client.uploads.cancel(client.uploads.create(**described).id).status == "cancelled"
    assert finished(client, batch.id).request_counts.completed == 400


async def asynchronous(url: str, key: str, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, _strict_response_validation=True) as client:

        async def one(count: int) -> None:
            file = await client.files.create(file=("in.jsonl", jsonl(count, model)), purpose="batch")
            batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            while (batch := await client.batches.retrieve(batch.id)).status not in FINAL:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # a client can only ask again
            text = (await client.files.content(batch.output_file_id)).text
            assert len(text.splitlines()) == count
            assert (await client.files.delete(file.id)).deleted

        await asyncio.wait_for(asyncio.gather(*(one(count) for count in (1, 2, 7))), 40)
        assert [batch.status async for batch in client.batches.list(limit=2, extra_query={"status": "completed"})]


def azure(url: str, key: str, model: str) -> None:
    root = url.removesuffix("/v1")
    with openai.AzureOpenAI(
        azure_endpoint=root,
        api_key=key,
        api_version="2025-04-01-preview",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        file = client.files.create(file=("in.jsonl", jsonl(2, model)), purpose="batch")
        assert client.files.retrieve(file.id).id == file.id
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        assert batch.id in [found.id for found in client.batches.list(limit=5)]
        batch = finished(client, batch.id)
        assert len(client.files.content(batch.output_file_id).text.splitlines()) == 2
        assert client.files.delete(file.id).deleted
    with openai.OpenAI(base_url=f"{root}/openai/v1/", default_query={"api-version": "preview"}, api_key=key) as client:
        assert client.batches.retrieve(batch.id).id == batch.id


def main(url: str, key: str, model: str) -> None:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, _strict_response_validation=True) as client:
        for step in (files, batches, uploads):
            step(client, model)
        refusals(client, url)
    asyncio.run(asynchronous(url, key, model))
    azure(url, key, model)
    print(openai.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
