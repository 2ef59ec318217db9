"""Queries become structs: bounds, words, mappings, and what is refused by name."""

from __future__ import annotations

import pytest

from batchway.core.errors import RequestError
from batchway.server import decoding
from batchway.server.pagination import FileQuery
from batchway.server.routes import OPERATIONS
from batchway.server.routing import Table
from batchway.wire.batches import BatchFilter, ResultsFilter


def test_defaults_are_openais():
    assert decoding.query(FileQuery, b"") == FileQuery(limit=10_000, after=None, order="desc", purpose=None)
    assert decoding.query(BatchFilter, b"").limit == 20


def test_values_are_read_and_unknown_ones_ignored():
    query = b"limit=5&after=file-1&order=asc&purpose=batch&sort=x&page[a]=1"
    assert decoding.query(FileQuery, query) == FileQuery(limit=5, after="file-1", order="asc", purpose="batch")


def test_a_mapping_is_read_from_brackets():
    wanted = decoding.query(BatchFilter, b"metadata%5Bjob%5D=a%20b&metadata[x%5B%5D]=&status=completed")
    assert wanted.metadata == {"job": "a b", "x[]": ""}
    assert wanted.status == "completed"


@pytest.mark.parametrize(
    ("struct", "query", "param", "code"),
    [
        (FileQuery, b"limit=0", "limit", "integer_below_min_value"),
        (FileQuery, b"limit=10001", "limit", "integer_above_max_value"),
        (BatchFilter, b"limit=101", "limit", "integer_above_max_value"),
        (BatchFilter, b"limit=1e400", "limit", None),
        (BatchFilter, b"limit=", "limit", "invalid_type"),
        (BatchFilter, b"limit=" + b"9" * 5000, "limit", None),
        (BatchFilter, b"order=newest", "order", "invalid_value"),
        (ResultsFilter, b"status=failing", "status", "invalid_value"),
        (BatchFilter, b"after=%00", "after", "invalid_value"),
        (BatchFilter, b"after[x]=1", "after", "invalid_type"),
        (BatchFilter, b"metadata=1&metadata[a]=1", "metadata", None),
    ],
)
def test_bad_values_are_refused_by_name(struct, query, param, code):
    with pytest.raises(RequestError) as refused:
        decoding.query(struct, query)
    assert refused.value.param == param
    if code is not None:
        assert refused.value.code == code


def test_a_supported_word_is_named():
    with pytest.raises(RequestError, match="'asc', 'desc'"):
        decoding.query(FileQuery, b"order=up")


@pytest.mark.parametrize(
    ("path", "name", "provider"),
    [
        ("/v1/files", "listFiles", None),
        ("/files/", "listFiles", None),
        ("/azure-east/v1/files", "listFiles", "azure-east"),
        ("/openai/files", "listFiles", None),
        ("/openai/v1/files", "listFiles", "openai"),
        ("/v1/models/a/b", "retrieveModel", None),
        ("/files/v1/content", "downloadFile", None),
        ("/health/live", "live", None),
    ],
)
def test_the_table_finds_operations_in_every_spelling(path, name, provider):
    found, _, named = Table(OPERATIONS).find(path)
    assert (found["GET"].name, named) == (name, provider)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1//files", "/v1/health/live", "/a/b/v1/files", "/v1/files/a/b/c"]
)
def test_the_table_finds_nothing_where_nothing_is(path):
    assert Table(OPERATIONS).find(path) == ({}, {}, None)
