"""The SDK against a small gateway over real HTTP: every operation in both flavours."""

from __future__ import annotations

import asyncio
import inspect
import io
import threading

import pytest

import batchway
from batchway import AsyncClient, Client
from batchway.sdk import access, calls, costs, events, functions, webhooks
from tests.tiny_gateway import JSONL, KEY, LINE, client, gateway, naps, served

__all__ = ["gateway", "naps", "served"]


# The documented examples ----------------------------------------------------------------------------------------------


async def test_litellms_documented_example_runs_unchanged(gateway, tmp_path):
    import batchway as litellm

    file_path = tmp_path / "openai_batch_completions.jsonl"
    file_path.write_bytes(JSONL)
    with file_path.open("rb") as opened:
        file_obj = await litellm.acreate_file(file=opened, purpose="batch", custom_llm_provider="openai")
    create_batch_response = await litellm.acreate_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=file_obj.id,
        custom_llm_provider="openai",
        metadata={"key1": "value1", "key2": "value2"},
    )
    retrieved_batch = await litellm.aretrieve_batch(batch_id=create_batch_response.id, custom_llm_provider="openai")
    assert retrieved_batch.id == create_batch_response.id
    file_content = await litellm.afile_content(file_id=file_obj.id, custom_llm_provider="openai")
    assert file_content.content == JSONL
    listed = await asyncio.to_thread(litellm.list_batches, custom_llm_provider="openai", limit=2)
    assert listed.data[0].metadata == {"key1": "value1", "key2": "value2"}
    assert gateway.files[file_obj.id]["provider"] == "openai"


def test_the_files_in_the_blocking_flavour(gateway, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(JSONL)
    with path.open("rb") as opened:
        file = batchway.create_file(
            file=opened, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert (file.filename, file.bytes, file.object) == ("in.jsonl", len(JSONL), "file")
    assert file.form.to_dict() == {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert file.batchway.models == {"m": 3}
    assert batchway.file_retrieve(file.id) == file
    assert [one.id for one in batchway.file_list(purpose="batch", limit=10_000)] == [file.id]
    assert batchway.file_content(file.id).text.startswith("{")
    assert batchway.file_delete(file.id).deleted is True
    with pytest.raises(batchway.NotFoundError):
        batchway.file_retrieve(file.id)


def test_a_batch_in_the_blocking_flavour(gateway):
    with client(gateway) as ours:
        file = ours.create_file(JSONL)
        batch = ours.create_batch("24h", "/v1/chat/completions", file.id, model="m2", extra_body={"extra": {"a": 1}})
        assert batch.sent.model == "m2"
        assert batch.sent.extra == {"a": 1}
        while batch.status != "completed":
            batch = ours.retrieve_batch(batch.id)
        assert [line.text for line in ours.batch_results(batch.id)] == ["to a"]
        assert ours.list_batches(status="completed", metadata={"k": "v"}, limit=1).asked.to_dict() == {
            "limit": "1", "status": "completed", "metadata[k]": "v",
        }  # fmt: skip
        with pytest.raises(batchway.ConflictError) as refused:
            ours.cancel_batch(batch.id)
        assert refused.value.request_id == "req-1"
        other = ours.create_batch("1h", "/v1/chat/completions", file.id)
        assert ours.cancel_batch(batch_id=other.id).status == "cancelled"
        assert ours.estimate_batch(input_file_id=file.id).amount_usd.likely == "0.2"
        assert ours.adopt_batch("main", "batch_far", metadata={"k": "v"}).status == "in_progress"
        assert [model.id for model in ours.list_models()] == ["m"]
        assert ours.create_key("n", project="p").key == "sk-bw-secret"
        assert ours.list_keys().data[0].key is None
        assert ours.delete_key("key_1").deleted


async def test_a_batch_in_the_suspending_flavour(gateway):
    async with AsyncClient(base_url=gateway.url, api_key=KEY) as ours:
        file = await ours.create_file(("named.jsonl", io.BytesIO(JSONL)))
        assert file.filename == "named.jsonl"
        batch = await ours.create_batch("24h", "/v1/chat/completions", file.id)
        while batch.status != "completed":
            batch = await ours.retrieve_batch(batch.id)
        assert [line.custom_id async for line in ours.batch_results(batch.id)] == ["a"]
        assert len(await ours.list_batches()) == 1
        assert (await ours.file_content(batch.output_file_id)).content.endswith(b"\n")
        assert (await ours.estimate_batch(requests=[LINE])).sent.requests[0].custom_id == "a"


def test_the_functions_work_from_one_event_loop_after_another(gateway):
    for _ in range(2):
        assert asyncio.run(batchway.alist_models()).data[0].id == "m"


def test_threads_may_share_the_functions(gateway):
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(batchway.list_models().data[0].id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["m"] * 8


def test_a_base_url_of_openais_form_is_understood(gateway):
    assert batchway.list_models(base_url=f"{gateway.url}/v1/").data
    assert batchway.list_models(api_base=gateway.url, api_key=KEY, timeout=5).data


def test_pages_lead_on(gateway):
    file = batchway.create_file(JSONL)
    made = [batchway.create_batch("24h", "/v1/chat/completions", file.id).id for _ in range(3)]
    first = batchway.list_batches(limit=2)
    second = batchway.list_batches(limit=2, after=first.last_id)
    assert [batch.id for batch in (*first, *second)] == made[::-1]
    assert (first.has_more, second.has_more) == (True, False)


def test_an_unknown_id_with_a_provider_is_adopted(gateway):
    assert batchway.retrieve_batch("batch_far", custom_llm_provider="main").id == "batch_adopted"
    with pytest.raises(batchway.NotFoundError, match="No batch found"):
        batchway.retrieve_batch("batch_far")
    with pytest.raises(batchway.NotFoundError, match="The provider knows no such batch"):
        batchway.retrieve_batch("batch_unknown", custom_llm_provider="main")


# The surface ----------------------------------------------------------------------------------------------------------


def test_every_operation_has_a_twin_and_a_method_with_the_same_signature():
    operations = [
        name
        for module in (calls, access, costs, events, webhooks)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
        if "options" in value.__annotations__
    ]
    public = [name for name in operations if not name.startswith("_")]
    assert {"create_batch", "rotate_key", "set_budget"} <= set(public)
    for name in (*public, "run"):
        one, twin = getattr(batchway, name), getattr(batchway, f"a{name}")
        assert inspect.signature(one) == inspect.signature(twin) == inspect.signature(getattr(Client(), name))
        assert inspect.signature(getattr(AsyncClient(), name)) == inspect.signature(one)
        assert "custom_llm_provider" in inspect.signature(one).parameters
        assert one.__doc__ == getattr(functions, f"a{name}").__doc__
        assert {name, f"a{name}"} <= set(batchway.__all__)
