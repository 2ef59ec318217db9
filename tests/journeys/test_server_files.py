"""Files and uploads over real HTTP: the official client, streaming, ranges, tags, compression, repeats."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import openai
import pytest
import zstandard

from tests.journeys.serving import FORM, MASTER, form, jsonl, line, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway"), max_file_bytes=32 << 20) as running:
        yield running


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=MASTER, max_retries=0) as made:
        yield made


def test_the_official_client_uploads_reads_lists_and_deletes(client):
    content = jsonl(40)
    file = client.files.create(
        file=("Größe 1.jsonl", content),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (file.bytes, file.filename, file.purpose, file.object) == (len(content), "Größe 1.jsonl", "batch", "file")
    assert file.expires_at - file.created_at == 3600
    assert client.files.retrieve(file.id).id == file.id
    assert client.files.content(file.id).content == content
    assert file.id in [one.id for one in client.files.list(purpose="batch", limit=2)]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_the_purpose_may_stand_behind_the_file(served):
    answer = served.upload(jsonl(2), after_purpose="batch", **{"after_expires_after[anchor]": "created_at",
                                                               "after_expires_after[seconds]": "7200"})  # fmt: skip
    assert answer.status == 200
    assert answer.json["purpose"] == "batch"
    assert answer.json["expires_at"] - answer.json["created_at"] == 7200
    assert answer.json["batchway"]["models"] == {"gpt-4o-mini": 2}
    other = served.upload(b"anything at all", "notes.jsonl", after_purpose="user_data")
    assert (other.status, other.json["purpose"], other.json["batchway"]) == (200, "user_data", None)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "purpose", "missing_required_parameter"),
        ({"purpose": "bach"}, "purpose", "invalid_value"),
        ({"after_purpose": "bach"}, "purpose", "invalid_value"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "10"},
         "expires_after.seconds", "invalid_value"),
        ({"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
         "expires_after.anchor", "invalid_value"),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor", "missing_required_parameter"),
        ({"purpose": "batch", "expires_after": "never"}, "expires_after", "invalid_type"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(served, fields, param, code):
    answer = served.upload(jsonl(1), **fields)
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (param, code)


def test_a_form_without_a_file_or_broken_is_a_400(served):
    for body, kind in [
        (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n', "x"),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}', "x"),
        (b"nothing", "x"),
        (b"", "x"),
    ]:
        answer = served.ask("POST", "/v1/files", body, Content_Type=f"multipart/form-data; boundary={kind}")
        assert answer.status == 400, body
        assert answer.error["type"] == "invalid_request_error"
    assert served.ask("POST", "/v1/files", {"purpose": "batch"}).status == 400


def test_faults_are_told_at_upload_and_refuse_it_when_strict(served):
    bad = b"\n".join([line(1), b"{not json}", line(1), line(2, stream=True)]) + b"\n"
    answer = served.upload(bad, purpose="batch")
    assert answer.status == 200
    listed = served.ask("GET", f"/v1/files/{answer.json['id']}").json["batchway"]
    assert [fault["line"] for fault in listed["faults"]] == [2, 3, 4]
    strict = served.upload(bad, purpose="batch", path="/v1/files?validate=strict")
    assert strict.status == 400
    assert [fault["code"] for fault in strict.json["faults"]] == [
        "invalid_json_line", "duplicate_custom_id", "streaming_unsupported"]  # fmt: skip
    assert served.upload(bad, purpose="batch", path="/v1/files?validate=lax").error["param"] == "validate"


def test_a_file_over_the_limit_is_a_413_at_once_and_leaves_nothing(served):
    before = served.ask("GET", "/v1/files").json["data"]
    connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.putrequest("POST", "/v1/files")
    for name, value in {
        "Authorization": f"Bearer {MASTER}",
        "Content-Type": FORM,
        "Content-Length": str(1 << 40),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert served.ask("GET", "/v1/files").json["data"] == before


def test_a_client_that_leaves_in_the_middle_leaves_nothing(served, client):
    before = {file.id for file in client.files.list()}
    body = form({"purpose": "batch"}, "in.jsonl", jsonl(5000), {})
    connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.putrequest("POST", "/v1/files")
    for name, value in {
        "Authorization": f"Bearer {MASTER}",
        "Content-Type": FORM,
        "Content-Length": str(len(body)),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[: len(body) // 2])
    connection.close()
    assert {file.id for file in client.files.list()} == before

    async def kept() -> set[str]:
        return {key.split("/")[1].split(".")[0] async for key in served.gateway.storage.list("files")}

    assert served.run(kept()) == before


@pytest.fixture(scope="module")
def stored(served):
    content = jsonl(3000)
    return served.upload(content, "a 'b'; ü.jsonl", purpose="user_data").json["id"], content


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("0-9", (0, 10)), ("10-", (10, None)), ("-7", (-7, None)), ("0-", (0, None)), ("5-99999999999", (5, None))],
)
def test_a_range_is_served(served, stored, wanted, expected):
    file_id, content = stored
    answer = served.ask("GET", f"/v1/files/{file_id}/content", Range=f"bytes={wanted}", Accept_Encoding="gzip")
    start, end, _ = slice(*expected).indices(len(content))
    assert answer.status == 206
    assert answer.body == content[start:end]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(content)}"


def test_ranges_beyond_the_end_are_416_and_unreadable_or_outdated_ones_are_ignored(served, stored):
    file_id, content = stored
    path = f"/v1/files/{file_id}/content"
    beyond = served.ask("GET", path, Range=f"bytes={len(content)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
    assert beyond.error["param"] == "Range"
    for wanted in ("bytes=9-3", "lines=1-2", "bytes=1-2,5-6", "bytes=-", "bytes=" + "9" * 5000 + "-"):
        assert served.ask("GET", path, Range=wanted).status == 200, wanted
    assert served.ask("GET", path, Range="bytes=0-1", If_Range='"other"').status == 200


def test_the_tag_is_the_hash_and_saves_the_trip(served, stored):
    file_id, content = stored
    path = f"/v1/files/{file_id}/content"
    tag = served.ask("HEAD", path).headers["ETag"]
    assert tag == f'"{hashlib.sha256(content).hexdigest()}"'
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*", tag[:-1] + '-zstd"'):
        answer = served.ask("GET", path, If_None_Match=known)
        assert (answer.status, answer.body) == (304, b"")
    assert served.ask("GET", path, If_None_Match='"other"').body == content


def test_contents_are_compressed_when_asked(served, stored):
    file_id, content = stored
    path = f"/v1/files/{file_id}/content"
    plain = served.ask("GET", path)
    assert (plain.body, plain.headers["Content-Encoding"]) == (content, None)
    gzipped = served.ask("GET", path, Accept_Encoding="gzip, deflate")
    assert (gzip.decompress(gzipped.body), gzipped.headers["Content-Encoding"]) == (content, "gzip")
    packed = served.ask("GET", path, Accept_Encoding="gzip, zstd")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed.body) == content
    assert served.ask("GET", path, Accept_Encoding="zstd;q=0, gzip;q=0.0").headers["Content-Encoding"] is None
    assert served.ask("HEAD", path, Accept_Encoding="gzip").body == b""


def test_the_filename_is_the_users_and_cannot_break_the_header(served, stored):
    file_id, _ = stored
    name = served.ask("GET", f"/v1/files/{file_id}").json["filename"]
    assert name == "a 'b'; ü.jsonl"
    header = served.ask("GET", f"/v1/files/{file_id}/content").headers["Content-Disposition"]
    assert header == "attachment; filename=\"a 'b'; _.jsonl\"; filename*=UTF-8''a%20%27b%27%3B%20%C3%BC.jsonl"
    assert served.upload(jsonl(1), "a\tb.jsonl", purpose="batch").error["param"] == "filename"


def test_pages_of_files_do_not_overlap_and_bad_values_are_named(served, client):
    ids = [served.upload(jsonl(1), purpose="evals").json["id"] for _ in range(5)]
    paged = [file.id for file in client.files.list(purpose="evals", limit=2)]
    assert paged == ids[::-1]
    assert [file.id for file in client.files.list(purpose="evals", limit=2, order="asc")] == ids
    for query, param in [("limit=0", "limit"), ("limit=10001", "limit"), ("limit=x", "limit"), ("order=up", "order"),
                         ("after=file-none", "id"), ("purpose=a%00b", "purpose")]:  # fmt: skip
        answer = served.ask("GET", f"/v1/files?{query}")
        assert answer.status in (400, 404), query
        assert answer.error["param"] == param
    assert served.ask("GET", "/v1/files?limit=1&unknown=1").status == 200


def test_a_repeated_upload_is_answered_once_also_when_both_run_at_once(served):
    content = jsonl(50)
    key = "upload-1"
    first = served.upload(content, purpose="batch", Idempotency_Key=key)
    again = served.upload(content, purpose="batch", Idempotency_Key=key)
    assert again.body == first.body
    other = served.upload(content + line(99), purpose="batch", Idempotency_Key=key)
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
    before = len(served.ask("GET", "/v1/files").json["data"])
    start = threading.Barrier(6)

    def together(_: int) -> bytes:
        start.wait()
        return served.upload(content, purpose="batch", Idempotency_Key="upload-2").body

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(together, range(6)))) == 1
    assert len(served.ask("GET", "/v1/files").json["data"]) == before + 1


def test_the_official_client_uploads_in_parts(client):
    content = jsonl(500)
    upload = client.uploads.create(
        bytes=len(content), filename="parts.jsonl", mime_type="application/jsonl", purpose="batch"
    )
    assert (upload.status, upload.expires_at - upload.created_at) == ("pending", 3600)
    pieces = [content[at : at + 20_000] for at in range(0, len(content), 20_000)]
    parts = [client.uploads.parts.create(upload.id, data=piece).id for piece in reversed(pieces)][::-1]
    done = client.uploads.complete(upload.id, part_ids=parts, md5=hashlib.md5(content).hexdigest())
    assert done.status == "completed"
    assert client.files.content(done.file.id).content == content


def test_the_chunked_helper_of_the_official_client_works(client):
    content = jsonl(200)
    done = client.uploads.upload_file_chunked(
        file=content,
        filename="c.jsonl",
        bytes=len(content),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=9000,
    )
    assert done.file.bytes == len(content)


def test_an_upload_ends_once_and_only_whole(served, client):
    def begin(size: int) -> str:
        return client.uploads.create(bytes=size, filename="u.jsonl", mime_type="x/y", purpose="batch").id

    content = jsonl(3)
    upload = begin(len(content))
    part = client.uploads.parts.create(upload, data=content).id
    path = f"/v1/uploads/{upload}"
    for body, param in [
        ({"part_ids": ["part_none"]}, "part_ids"),
        ({"part_ids": [part, part]}, "part_ids"),
        ({"part_ids": []}, "part_ids"),
        ({"part_ids": part}, "part_ids"),
        ({"part_ids": [part], "md5": "0" * 32}, "md5"),
        ({}, "part_ids"),
    ]:
        answer = served.ask("POST", f"{path}/complete", body)
        assert (answer.status, answer.error["param"]) == (400, param), body
    done = served.ask("POST", f"{path}/complete", {"part_ids": [part]}, Idempotency_Key="complete-1")
    assert done.json["status"] == "completed"
    repeat = served.ask("POST", f"{path}/complete", {"part_ids": [part]}, Idempotency_Key="complete-1")
    assert repeat.body == done.body
    assert served.ask("POST", f"{path}/complete", {"part_ids": [part]}).status == 409
    assert served.ask("POST", f"{path}/cancel").status == 409
    gone = begin(9)
    assert client.uploads.cancel(gone).status == "cancelled"
    assert client.uploads.cancel(gone).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.uploads.parts.create(gone, data=b"late")

    async def left() -> list[str]:
        return [key async for key in served.gateway.storage.list("uploads")]

    assert served.run(left()) == []


def test_wrong_uploads_are_refused(served):
    good = {"bytes": 9, "filename": "u.jsonl", "mime_type": "x/y", "purpose": "batch"}
    for change, status, param in [
        ({"bytes": 0}, 400, "bytes"),
        ({"bytes": 1 << 40}, 413, "bytes"),
        ({"bytes": "9"}, 400, "bytes"),
        ({"purpose": "no"}, 400, "purpose"),
        ({"filename": "a\nb"}, 400, "filename"),
        ({"filename": "a\0b"}, 400, "filename"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "expires_after.seconds"),
        ({"expires_after": "null"}, 400, "expires_after"),
    ]:
        answer = served.ask("POST", "/v1/uploads", {**good, **change})
        assert (answer.status, answer.error["param"]) == (status, param), change


def test_a_file_that_is_downloaded_while_others_are_served_stays_flat_and_whole(served, client):
    content = b"x" * (20 << 20)
    file = client.files.create(file=("big.bin", io.BytesIO(content)), purpose="user_data")
    with client.files.with_streaming_response.content(file.id) as streamed:
        got = hashlib.sha256()
        for piece in streamed.iter_bytes(1 << 20):
            got.update(piece)
    assert got.hexdigest() == hashlib.sha256(content).hexdigest()
    assert json.loads(json.dumps(file.model_dump()))["bytes"] == len(content)
