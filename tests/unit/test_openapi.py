"""The OpenAPI document is valid, complete and made of the table alone."""

from __future__ import annotations

import json

import pytest
from openapi_spec_validator import validate

from batchway.server.openapi import document
from batchway.server.routes import OPERATIONS


@pytest.fixture(scope="module")
def made():
    return json.loads(json.dumps(document(OPERATIONS, "1.2.3")))


def operations(made):
    return [operation for path in made["paths"].values() for operation in path.values()]


def test_it_is_valid_openapi(made):
    validate(made)


def test_every_operation_says_what_it_takes_and_answers(made):
    ids = [operation["operationId"] for operation in operations(made)]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)
    for operation in operations(made):
        assert operation["summary"].endswith((".", "not."))
        assert operation["tags"]
        (content,) = operation["responses"]["200"]["content"].values()
        assert "schema" in content
        assert {"400", "500"} <= set(operation["responses"])


def test_references_lead_somewhere(made):
    text = json.dumps(made)
    for part in ("schemas", "responses"):
        for name in made["components"][part]:
            assert f"#/components/{part}/{name}" in text, f"{name} is in no use"


def test_an_answer_always_holds_its_fields(made):
    batch = made["components"]["schemas"]["Batch"]
    assert set(batch["required"]) == set(batch["properties"])
    create = made["components"]["schemas"]["BatchCreate"]
    assert set(create["required"]) == {"endpoint", "completion_window"}


def test_filters_and_bounds_are_documented(made):
    parameters = {one["name"]: one for one in made["paths"]["/v1/batches"]["get"]["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert parameters["metadata"]["style"] == "deepObject"
    files = {one["name"]: one for one in made["paths"]["/v1/files"]["get"]["parameters"]}
    assert files["limit"]["schema"]["maximum"] == 10_000
    form = made["components"]["schemas"]["FileForm"]
    assert form["properties"]["file"]["contentMediaType"] == "application/octet-stream"


def test_only_health_needs_no_key(made):
    free = {operation["operationId"] for operation in operations(made) if operation.get("security") == []}
    assert free == {"live", "ready"}
