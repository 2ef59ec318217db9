"""The shape of the source: what the linters cannot say about layers, names, sizes and the weight of an import.

The layers themselves stand in pyproject.toml for import-linter (`make check`); complexity and statements are ruff's.
Each check here is a function over a source text, and has a test of its own that it can fail.
"""

from __future__ import annotations

import ast
import json
import re
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "batchway"
PROVIDERS = PACKAGE / "providers"

MAX_FILE_LINES = 400
MAX_STAGE_LINES = 250
MAX_P95_FUNCTION_LINES = 40

# `shared` is no provider, and `executed` is our own lane, which core code may know.
NOT_A_PROVIDER = {"shared", "executed", "__pycache__"}
# The kind of an endpoint that speaks OpenAI's wire, whoever runs it (api: `kind: openai_compatible`).
# A kind of provider, and a variable of a cloud's storage: neither names a provider of batches.
WIRE_WORDS = {"openai_compatible", "azure_storage_endpoint"}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc"}

SOURCES = sorted(PACKAGE.rglob("*.py"))
HAND_WRITTEN = SOURCES + sorted((ROOT / "tests").glob("**/*.py")) + sorted((ROOT / "docs").glob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project_files() -> list[Path]:
    """What git tracks or would track; on an unpacked archive, everything."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = listed.stdout.splitlines() if listed.returncode == 0 else [named(path) for path in HAND_WRITTEN]
    return [path for path in (ROOT / name for name in names) if path.is_file()]


# Names of providers ---------------------------------------------------------------------------------------------------


def provider_names() -> set[str]:
    return {path.name for path in PROVIDERS.iterdir() if path.is_dir()} - NOT_A_PROVIDER


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the constants that are docstrings, or strings standing alone as a comment on a name."""
    alone = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {id(value) for value in alone if isinstance(value, ast.Constant)}


def texts_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in skipped and isinstance(node.value, str | bytes):
            yield node.lineno, node.value if isinstance(node.value, str) else node.value.decode("latin-1")


def identifiers_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=str(word)):
                yield node.lineno, word
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.ClassDef(name=word):
                yield node.lineno, word
            case ast.ImportFrom(module=str(module)) if module.startswith("batchway.dialects"):
                pass  # a dialect may share a provider's name
            case ast.Import(names=aliases):
                yield from ((node.lineno, part) for alias in aliases for part in alias.name.split("."))
            case ast.ImportFrom(module=module, names=aliases):
                parts = [*(module or "").split("."), *(alias.name for alias in aliases)]
                yield from ((node.lineno, part) for part in parts)
            case _:
                pass


def provider_mentions(source: str, providers: set[str]) -> list[tuple[int, str]]:
    """(line, text) of each place where code, not prose, names a provider.

    A string names one when it is the name, starts with it as a prefix of something (`openai/gpt-4o`, `OPENAI_API_KEY`),
    or is a path into its folder. An identifier names one when the name is one of its snake_case words. Prose
    (docstrings, messages such as "OpenAI's shape") and a URL path such as `/openai/files` are no names: the wire is
    OpenAI's.
    """
    word = "|".join(sorted(map(re.escape, providers)))
    prefix = re.compile(rf"({word})($|[/:._-])|.*\bproviders[./]({word})\b", re.IGNORECASE | re.DOTALL)
    tree = ast.parse(source)
    strings = [(line, text) for line, text in texts_of(tree) if text.lower() not in WIRE_WORDS and prefix.match(text)]
    names = [(line, text) for line, text in identifiers_of(tree) if providers & set(text.lower().split("_"))]
    return sorted(strings + names)


def names_providers_lawfully(path: Path) -> bool:
    """A provider's own folder may name it; a dialect only happens to share its name, and the wire is OpenAI's."""
    folders = [PACKAGE / "dialects", PACKAGE / "wire", *(PROVIDERS / name for name in provider_names())]
    return any(path.is_relative_to(folder) for folder in folders)


def test_no_source_outside_a_providers_folder_names_it() -> None:
    found = [
        f"{named(path)}:{line}: {text}"
        for path in SOURCES
        if not names_providers_lawfully(path)
        for line, text in provider_mentions(path.read_text(), provider_names())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        'if provider == "openai": ...',
        'if model.startswith("openai/"): ...',
        'route = f"openai/{model}"',
        'key = env["OPENAI_API_KEY"]',
        "import openai",
        "from batchway.providers import openai",
        "from batchway.providers.openai.native import rows",
        'load("batchway.providers.openai")',
        "def is_openai(name): ...",
        "submit(openai_key=1)",
    ],
)
def test_a_provider_named_in_code_is_found(code: str) -> None:
    assert provider_mentions(code, {"openai", "azure"})


@pytest.mark.parametrize(
    "code",
    [
        '"""OpenAI\'s envelope: openai/x is prose here."""',
        'raise ValueError("OpenAI allows 50000 lines")',
        'path = "/openai/files"',
        'kind = "openai_compatible"',
        "# openai",
        "class OpenAIError: ...",
        "from batchway.dialects import openai as dialect",
    ],
)
def test_the_shape_of_the_wire_is_no_provider(code: str) -> None:
    assert not provider_mentions(code, {"openai", "azure"})


# Sizes ----------------------------------------------------------------------------------------------------------------


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def statements_of(node: ast.AST) -> int:
    return sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1


def too_long(path: Path) -> bool:
    limit = MAX_STAGE_LINES if path.parent == PACKAGE / "pipeline" else MAX_FILE_LINES
    return len(path.read_text().splitlines()) > limit


def test_no_hand_written_file_is_too_long() -> None:
    found = [f"{named(path)}: {len(path.read_text().splitlines())} lines" for path in HAND_WRITTEN if too_long(path)]
    assert not found, "\n".join(found)


def test_functions_are_short() -> None:
    found = [(path, node) for path in SOURCES for node in functions_of(ast.parse(path.read_text()))]
    p95 = statistics.quantiles((lines_of(node) for _, node in found), n=20)[-1]
    longest = sorted(((lines_of(node), f"{named(path)}: {node.name}") for path, node in found), reverse=True)[:10]
    assert p95 < MAX_P95_FUNCTION_LINES, longest
    assert not [f"{named(path)}: {node.name}" for path, node in found if statements_of(node) > 40]


def test_sizes_are_counted_as_a_reader_counts() -> None:
    (function,) = functions_of(ast.parse("def f():\n    if x:\n        a = 1\n    return a\n"))
    assert (lines_of(function), statements_of(function)) == (4, 3)


# Words ----------------------------------------------------------------------------------------------------------------


def test_every_module_says_what_it_is() -> None:
    found = [named(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not found, "\n".join(found)


def test_no_file_has_a_name_that_says_nothing() -> None:
    found = [
        named(path)
        for path in HAND_WRITTEN
        if any(VAGUE_NAMES & set(part.split("_")) for part in path.relative_to(ROOT).with_suffix("").parts)
    ]
    assert not found, "\n".join(found)


def test_no_file_leaves_work_for_later_or_names_a_registry_host() -> None:
    # The brackets keep this file from finding itself.
    unwanted = re.compile(r"TOD[O]\b|FIXM[E]\b|pypi[.]org|pythonhoste[d]|registry[.]npm")
    found = [
        f"{named(path)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if unwanted.search(line)
    ]
    assert not found, "\n".join(found)


# The weight of an import ----------------------------------------------------------------------------------------------

HEAVY = {"dbos", "genai_prices", "obstore", "openai", "psycopg", "pydantic", "rich", "sqlalchemy", "starlette"}
LIGHT_PARTS = {"sdk", "wire"}


def test_importing_batchway_loads_no_gateway() -> None:
    code = "import sys, json, batchway; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(answer.stdout))
    ours = {name.split(".")[1] for name in loaded if name.startswith("batchway.")}
    assert not ours - LIGHT_PARTS
    assert not loaded & HEAVY


def cpu_of(code: str) -> float:
    """The least CPU of five interpreters that run this code, in seconds."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def once() -> float:
        before = spent()
        subprocess.run([sys.executable, "-c", code], check=True)
        return spent() - before

    return min(once() for _ in range(5))


def test_importing_batchway_costs_little_beside_starting_python() -> None:
    assert cpu_of("import batchway") < 6 * cpu_of("pass")
