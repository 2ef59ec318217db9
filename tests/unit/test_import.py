"""`import batchway` is for notebooks and lambdas: it loads next to nothing; every public name is there when asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import batchway

HEAVY = {
    "asyncio", "dbos", "genai_prices", "httptools", "msgspec", "obstore", "psycopg", "pydantic", "pyreqwest", "rich",
    "sqlalchemy", "starlette", "uvicorn", "yaml",
}  # fmt: skip
SERVER_SIDE = HEAVY - {"asyncio", "msgspec", "pyreqwest"}


def modules_after(code: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(told.stdout))


def test_the_import_loads_no_library_and_two_small_modules():
    loaded = modules_after("import batchway")
    assert {name for name in loaded if name.startswith("batchway")} == {
        "batchway",
        "batchway.sdk",
        "batchway.sdk.place",
    }
    assert not loaded & HEAVY


def test_a_client_of_a_remote_gateway_loads_no_gateway():
    loaded = modules_after("import batchway; batchway.Client(base_url='http://127.0.0.1:1'); batchway.run")
    assert not loaded & SERVER_SIDE
    parts = {name.split(".")[1] for name in loaded if name.startswith("batchway.")}
    assert parts <= {"sdk", "wire"}


def test_the_import_costs_little_beside_starting_python():
    def seconds(code: str) -> float:
        def once() -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            return time.perf_counter() - began

        return min(once() for _ in range(5))

    assert seconds("import batchway") - seconds("pass") < 0.15


def test_every_public_name_is_there():
    for name in batchway.__all__:
        assert getattr(batchway, name) is not None
        assert name in dir(batchway)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'completion'"):
        batchway.completion  # noqa: B018


def test_a_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from batchway import *", names)
    assert set(batchway.__all__) <= set(names)
