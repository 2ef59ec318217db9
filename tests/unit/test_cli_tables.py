"""Tables in and out: rows become request lines, and answers find their rows again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from batchway.cli import inputs, outputs
from batchway.cli.failures import CommandError
from batchway.cli.inputs import Shape, Template
from batchway.sdk.results import Result

ROWS = 'text,label\ngood,1\n"bad, ""very""\nbad",2\n,3\n'


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(ROWS)
    return path


def lines(path: Path, **shape: Any) -> list[dict[str, Any]]:
    found: Any = inputs.lines_of(str(path), Shape(**shape))
    return list(found)


def answered(number: int, content: str) -> Result:
    body = {
        "choices": [{"message": {"content": content}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    return Result({"custom_id": inputs.row_id(number), "response": {"status_code": 200, "body": body}, "error": None})


def failed(number: int) -> Result:
    told = {"code": "batch_expired", "message": "too late"}
    return Result({"custom_id": inputs.row_id(number), "response": None, "error": told})


def test_each_row_becomes_a_line_that_names_its_row(table: Path) -> None:
    found = lines(table, prompt="Classify: {text}", model="m", system="Be brief.", body={"max_tokens": 5})
    assert [line["custom_id"] for line in found] == ["row-1", "row-2", "row-3"]
    assert found[1]["body"] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": 'Classify: bad, "very"\nbad'},
        ],
        "max_tokens": 5,
    }
    assert found[2]["body"]["messages"][1]["content"] == "Classify: "


@pytest.mark.parametrize(
    ("endpoint", "content"),
    [
        ("/v1/embeddings", {"input": "good"}),
        ("/v1/completions", {"prompt": "good"}),
        ("/v1/responses", {"input": "good"}),
    ],
)
def test_the_endpoint_shapes_the_body(table: Path, endpoint: str, content: dict[str, str]) -> None:
    first = lines(table, prompt="{text}", model="m", endpoint=endpoint)[0]
    assert (first["url"], first["body"]) == (endpoint, {"model": "m", **content})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{text}: {label}", "good: 1"),
        ('as JSON: {{"a": {label}}}', 'as JSON: {"a": 1}'),
        ("nothing", "nothing"),
    ],
)
def test_a_prompt_is_filled_from_the_row(text: str, filled: str) -> None:
    assert Template(text, ["text", "label"]).fill({"text": "good", "label": 1}) == filled


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{txt}", "did you mean {text}?"),
        ("{text.__class__}", "no column {text.__class__}"),
        ("{text!r}", "no column"),
        ("{}", "no column {}"),
        ("{text", "a brace of the text itself is written twice"),
    ],
)
def test_a_prompt_that_no_row_can_fill_is_refused(text: str, told: str) -> None:
    with pytest.raises(CommandError, match=r".*") as caught:
        Template(text, ["text", "label"])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "must name the columns"),
        (b"a,a\n1,2\n", "must name the columns, each once"),
        (b"a,b\n1,2,3\n", "line 2 has more cells"),
        (b"a\n\xff\n", "in.csv"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        lines(path, prompt="x", model="m")
    assert told in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbftext\r\ngood\r\n")
    assert inputs.columns(path) == ["text"]


@pytest.mark.parametrize("shape", [{"model": "m"}, {"prompt": "x"}])
def test_rows_need_a_prompt_and_a_model(table: Path, shape: dict[str, str]) -> None:
    with pytest.raises(CommandError, match=r"--prompt .* and --model"):
        lines(table, **shape)


def test_request_lines_take_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("{}")
    with pytest.raises(CommandError, match="--prompt is for rows"):
        inputs.lines_of(str(path), Shape(prompt="x"))


def test_a_suffix_that_says_nothing_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="suffix must be one of"):
        outputs.check(str(tmp_path / "out.xlsx"))
    with pytest.raises(CommandError, match="is not there"):
        outputs.check(str(tmp_path / "nowhere" / "out.csv"))


def test_answers_stand_beside_their_rows(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    results = [answered(1, "yes"), failed(2), answered(3, "maybe")]
    outputs.write(results, "/v1/chat/completions", str(table), str(out))
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["text"] for row in found] == ["good", 'bad, "very"\nbad', ""]
    assert [row["answer"] for row in found] == ["yes", "", "maybe"]
    assert [row["error"] for row in found] == ["", "batch_expired: too late", ""]
    assert found[0]["input_tokens"] == "3"


def test_a_column_of_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("answer\nmine\n")
    outputs.write([answered(1, "theirs")], "/v1/chat/completions", str(path), str(out))
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["answer"], row["batchway_answer"]) == ("mine", "theirs")


def test_a_table_that_changed_meanwhile_is_told_and_leaves_no_file(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(CommandError, match="changed while the batch ran"):
        outputs.write([answered(2, "yes")], "/v1/chat/completions", str(table), str(out))
    with pytest.raises(CommandError, match="changed while the batch ran"):
        outputs.write([answered(1, "yes")], "/v1/chat/completions", str(table), str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_request_lines_become_rows_of_their_names(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text("{}")
    outputs.write([answered(1, "yes")], "/v1/chat/completions", str(source), str(out))
    assert out.read_text().splitlines()[0] == "custom_id,answer,error,input_tokens,output_tokens,amount_usd"


@pytest.mark.parametrize("amounts", [True, False])
def test_each_line_tells_its_amount_where_that_is_wanted(tmp_path: Path, amounts: bool) -> None:
    result = Result({**answered(1, "yes").line, "amount_usd": "0.00000005", "cursor": "1.1"})
    for name in ("out.csv", "out.jsonl"):
        outputs.write([result], "/v1/chat/completions", "-", str(tmp_path / name), amounts=amounts)
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row.get("amount_usd") == ("0.00000005" if amounts else None)
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert line == {**answered(1, "yes").line, **({"amount_usd": "0.00000005"} if amounts else {})}


def test_lines_are_written_whole_as_jsonl(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    results = [answered(1, "näh"), failed(2)]
    streamed = [Result({**result.line, "cursor": "1"}) for result in results]
    outputs.write(streamed, "/v1/chat/completions", str(table), str(out))
    assert [json.loads(line) for line in out.read_text().splitlines()] == [result.line for result in results]


def test_parquet_keeps_the_types_of_the_input(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    given = pa.table({"text": ["a", None], "number": pa.array([1, 2], pa.int16())})
    pq.write_table(given, source)
    assert lines(source, prompt="{text}{number}", model="m")[1]["body"]["messages"][0]["content"] == "2"
    vectors = [{"data": [{"embedding": [0.5, 1.0]}]}, {"data": [{"embedding": [0.25]}]}]
    results = [
        Result({"custom_id": inputs.row_id(number), "response": {"status_code": 200, "body": body}})
        for number, body in enumerate(vectors, 1)
    ]
    outputs.write(results, "/v1/embeddings", str(source), str(out))
    found = pq.read_table(out)
    assert found.schema.field("number").type == pa.int16()
    assert found.column("embedding").to_pylist() == [[0.5, 1.0], [0.25]]


def test_without_pyarrow_parquet_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(inputs, "import_module", missing)
    with pytest.raises(CommandError, match=r"pip install 'batchway\[parquet\]'"):
        outputs.check(str(tmp_path / "out.parquet"))
