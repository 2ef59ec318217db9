"""The checking of an input file while it streams: its hash, its faults, its tallies and its line index.

`LineCheck` is fed with pieces of any size and holds no more than one of them, one unfinished line and the fingerprints
of the custom_ids. The invariant: a line without a fault can be decoded by `wire/lines.py` and read again through the
index, and every other line has exactly one fault, the most basic one.

A missing model is the one fault that a batch may waive, by naming a model itself (`linefaults.waivable`). Such lines
are tallied under the model `""`, so a waiving batch has `fault_count - models[""].lines` faults left.

Speed: a clean line costs one decode and about a microsecond of Python; any other is looked at a second time, slowly, in
`linefaults.py`. `feed` holds the interpreter for about a millisecond per 256 KiB, so callers on an event loop feed no
larger pieces and yield between them; a thread would hold the same lock and gain nothing. One line is never divided:
16 MB in a single line take some 25 ms.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

from batchway.core.fingerprints import Fingerprints
from batchway.core.linefaults import (
    BLANK,
    CONTENT,
    INVALID_JSON,
    NOT_JSON,
    NOT_UTF8,
    UNREADABLE,
    RequestLine,
    decode_request,
    diagnose,
    duplicate,
    fault,
    is_utf8,
    model_missing,
    name_fault,
    too_long,
)
from batchway.core.spans import BLOCK_BYTES, BLOCK_LINES, MAX_LINE_BYTES, Block, Tally
from batchway.wire.errors import LineFault

MAX_FAULTS = 10_000
BYTES_PER_TOKEN = 4  # the declared estimate: bytes of JSON per input token, English text and its punctuation
SHORTEST = 60  # bytes that no clean line gets by with
MAX_OUTPUT = 1 << 31  # of one line: a sum over any file fits into 64 bits


_pack = msgspec.msgpack.Encoder().encode


class ModelStats(msgspec.Struct, gc=False):
    """What a file asks of one model.

    `bytes` are those of whole lines. `input_tokens` is an estimate. `output_limit` sums the tokens that lines allow
    themselves (limit x n); `unlimited` counts lines that set none.
    """

    lines: int = 0
    bytes: int = 0
    input_tokens: int = 0
    output_limit: int = 0
    unlimited: int = 0

    def add(self, other: ModelStats) -> None:
        self.lines += other.lines
        self.bytes += other.bytes
        self.input_tokens += other.input_tokens
        self.output_limit += other.output_limit
        self.unlimited += other.unlimited


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file after its last byte.

    `lines` counts to the last line that is not blank. `faults` are the first 10,000 by line, `fault_count` counts all.
    `unreadable`: the first line is no JSON at all, so this is hardly a JSONL file. `index` is an encoded `LineIndex`.
    """

    bytes: int
    sha256: str
    lines: int
    urls: dict[str, int]
    models: dict[str, ModelStats]
    faults: list[LineFault]
    fault_count: int
    unreadable: bool
    index: bytes


class LineCheck:
    """One file on its way in: `feed` its bytes in order, then `finish`. With `look=False` it is only hashed."""

    def __init__(self, *, look: bool = True, line_bytes: int = MAX_LINE_BYTES) -> None:
        self._look = look
        self._line_bytes = line_bytes
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._held: list[bytes] = []  # pieces of the unfinished line, joined once: no quadratic copying
        self._held_size = 0
        self._number = 0  # lines seen
        self._lines = 0  # the last of them that was not blank
        self._offset = 0  # where the next line begins
        self._seen = Fingerprints()
        self._urls = dict.fromkeys(CONTENT, 0)
        self._models: dict[str, ModelStats] = {}
        self._named: set[str | None] = set()  # the models without ""
        self._faults: list[LineFault] = []
        self._waivable: list[LineFault] = []
        self._fault_count = 0
        self._unreadable = False
        self._block_offset = self._block_line = 0
        self._block_full = 0  # the line number, and below the offset, behind which the next block begins
        self._block_end = 0
        self._block: dict[str, ModelStats] = {}
        self._blocks = bytearray()
        self._block_count = 0

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the file."""
        self._sha256.update(chunk)
        self._bytes += len(chunk)
        if not self._look:
            return
        first = chunk.find(b"\n")
        if first < 0:
            self._hold(chunk)
            return
        last = chunk.rfind(b"\n")
        self._hold(chunk[:first])
        self._end_line()
        if first < last:
            self._check(chunk[first + 1 : last])
        self._hold(chunk[last + 1 :])

    def finish(self) -> Findings:
        """Everything found; the last line needs no newline."""
        if self._held_size:
            self._end_line()
        if self._look and not self._lines:
            self._fault_count, self._faults = 1, [fault("empty_file", "The file holds no lines.")]
        self._close_block()
        for stats in self._models.values():
            stats.input_tokens = -(-stats.input_tokens // BYTES_PER_TOKEN)
        kept = [*self._faults, *self._waivable[: MAX_FAULTS - len(self._faults)]]
        return Findings(
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
            lines=self._lines,
            urls={url: lines for url, lines in self._urls.items() if lines},
            models=self._models,
            faults=sorted(kept, key=lambda one: one.line or 0),
            fault_count=self._fault_count,
            unreadable=self._unreadable,
            index=self._encoded_index(),
        )

    def _hold(self, piece: bytes) -> None:
        self._held_size += len(piece)
        if self._held_size > self._line_bytes:
            self._held.clear()
        elif piece:
            self._held.append(piece)

    def _end_line(self) -> None:
        size, held = self._held_size, self._held
        self._held, self._held_size = [], 0
        if size <= self._line_bytes:
            self._check(held[0] if len(held) == 1 else b"".join(held))
            return
        self._number += 1
        self._offset += size + 1
        self._refuse_blanks()
        self._refuse(too_long(size, self._line_bytes))

    def _check(self, window: bytes) -> None:
        """Looks at each line of a window; the newline behind the last one is not part of it."""
        if not window or window.isspace():  # a file of newlines costs no more than any other
            self._number += window.count(b"\n") + 1
            self._offset += len(window) + 1
            return
        # No part of a UTF-8 sequence is a newline: a sound window has sound lines.
        sound = window.isascii() or is_utf8(window)
        for raw in window.split(b"\n"):
            size = len(raw) + 1
            if self._number >= self._block_full or self._offset + size > self._block_end:
                self._next_block(size)
            self._number += 1
            self._offset += size
            if size < SHORTEST or not sound:
                self._look_again(raw, size)
                continue
            try:
                line = decode_request(raw)
                content = len(CONTENT[line.url][1](line.body))
            except (*UNREADABLE, KeyError):
                self._look_again(raw, size)
                continue
            if (
                content <= len("null")
                or line.method != "POST"
                or line.body.stream
                or line.body.model not in self._named
                or not line.custom_id
                or self._number - self._lines != 1
                or size > self._line_bytes + 1
            ):
                self._look_again(raw, size)
            elif self._seen.add(line.custom_id):
                self._take(line, content, size)
            else:
                self._refuse(duplicate(line.custom_id))

    def _take(self, line: RequestLine, content: int, size: int) -> None:
        """Counts a line that is clean, or wants nothing but a model."""
        self._lines = self._number
        self._urls[line.url] += 1
        body = line.body
        name = body.model or ""
        stats = self._block.get(name)
        if stats is None:
            stats = self._block[name] = ModelStats()
        stats.lines += 1
        stats.bytes += size
        stats.input_tokens += content  # bytes as yet: `finish` divides the sum
        limit = body.max_completion_tokens or body.max_tokens or body.max_output_tokens
        if limit is None:
            stats.unlimited += 1
        elif body.n is None and 0 < limit < MAX_OUTPUT:
            stats.output_limit += limit
        else:
            stats.output_limit += min(max(limit, 0) * max(body.n or 1, 1), MAX_OUTPUT)

    def _look_again(self, raw: bytes, size: int) -> None:
        """Finds out what is wrong with a line that is not plainly clean, if anything."""
        if not raw or raw.isspace():
            return
        self._refuse_blanks()
        if size < SHORTEST and len(self._faults) == MAX_FAULTS:
            self._refuse(None)  # no line is that short, and its fault would not be kept
            return
        if size > self._line_bytes + 1:
            self._refuse(too_long(size - 1, self._line_bytes))
            return
        found = diagnose(raw, self._seen, first=self._number == 1)
        if isinstance(found, LineFault):
            self._unreadable |= self._number == 1 and found.message in (NOT_JSON, NOT_UTF8)
            self._refuse(found)
            return
        name = found.body.model or ""
        if not name:
            self._fault_count += 1
            if len(self._waivable) < MAX_FAULTS:
                self._waivable.append(model_missing(self._number))
        elif name not in self._named:
            unfit = name_fault(name, len(self._named))
            if unfit:
                self._refuse(unfit)
                return
            self._named.add(name)
        self._models.setdefault(name, ModelStats())
        self._take(found, len(CONTENT[found.url][1](found.body)), size)

    def _refuse(self, found: LineFault | None) -> None:
        """Counts the present line as faulty."""
        self._lines = self._number
        self._fault_count += 1
        if found and len(self._faults) < MAX_FAULTS:
            self._faults.append(msgspec.structs.replace(found, line=self._number))

    def _refuse_blanks(self) -> None:
        """Blank lines are faults once another line follows them; at the end of a file they do no harm."""
        first, behind = self._lines + 1, self._number
        self._fault_count += behind - first
        self._unreadable |= first == 1 < behind
        for number in range(first, min(behind, first + MAX_FAULTS - len(self._faults))):
            self._faults.append(LineFault(code=INVALID_JSON, message=BLANK, line=number))
        self._lines = behind - 1

    def _next_block(self, size: int) -> None:
        """Begins a block with the coming line of `size` bytes."""
        self._close_block()
        self._block_line, self._block_offset = self._number + 1, self._offset
        self._block_full = self._number + BLOCK_LINES
        self._block_end = self._offset + max(BLOCK_BYTES, size)

    def _close_block(self) -> None:
        if self._block_full:
            tallies = {name: Tally(stats.lines, stats.bytes) for name, stats in self._block.items()}
            self._blocks += _pack(Block(self._block_offset, self._block_line, tallies))
            self._block_count += 1
        for name, stats in self._block.items():
            self._models[name].add(stats)
        self._block.clear()

    def _encoded_index(self) -> bytes:
        # A `LineIndex` put together by hand: its blocks were packed one by one, as objects they are ten times larger.
        head = b"\x82" + _pack("bytes") + _pack(self._bytes) + _pack("blocks")
        return head + struct.pack(">BI", 0xDD, self._block_count) + self._blocks
