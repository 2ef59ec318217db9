"""The checking of an input file while it streams: its hash, its faults, its tallies and its line index.

`LineCheck` is fed with pieces of any size and holds no more than one of them, one unfinished line and the fingerprints
of the custom_ids. The invariant: a line without a fault can be decoded by `wire/lines.py` and read again through the
index, and every other line has exactly one fault, the most basic one.

A missing model is the one fault that a batch may waive, by naming a model itself (`linefaults.waivable`). Such lines
are tallied under the model `""`, so a waiving batch has `fault_count - models[""].lines` faults left.

Speed: a clean line costs one decode and some two microseconds of Python; any other is looked at a second time, slowly,
in `linefaults.py`. `feed` holds the interpreter for about a millisecond per 64 KiB of short lines, so callers on an
event loop feed no larger pieces and yield between them. In a thread the loop would wait for the same lock, and a check
took twice as long. One line is never divided: 16 MB in a single line take some 25 ms.
"""

from __future__ import annotations

import hashlib
import math
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
    RequestBody,
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
from batchway.core.tokenguess import guess
from batchway.wire.errors import LineFault

MAX_FAULTS = 10_000
LONG = 32 << 10  # bytes of a line that is guessed for: a longer one stands for as many more
SAMPLED = 16  # the tokens of one line in n // 16 are guessed, behind n lines: 200 of a million
SHORTEST = 60  # bytes that no clean line gets by with
MAX_OUTPUT = 1 << 31  # of one line: a sum over any file fits into 64 bits


_pack = msgspec.msgpack.Encoder().encode


class ModelStats(msgspec.Struct, gc=False):
    """What a file asks of one model.

    `bytes` are those of whole lines. `input_tokens` is a guess, made of some of the lines. `output_limit` sums the
    tokens that lines allow themselves (limit x n); `unlimited` counts lines that set none.
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


class Sample(msgspec.Struct, gc=False):
    """What was guessed of some lines: their tokens, and the bytes of their contents. A line stands for those behind."""

    tokens: float = 0.0
    bytes: int = 0


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
        self._clean: list[tuple[RequestLine, int, int]] = []  # up to that one
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
        self._samples: dict[str, Sample] = {}
        self._taken = self._sample_at = 0  # lines counted so far, and the next of them whose tokens are guessed
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
        for name, stats in self._models.items():
            sample = self._samples[name]
            stats.input_tokens = math.ceil(stats.input_tokens * sample.tokens / sample.bytes)
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
        self._lines = self._number
        self._refuse(too_long(size, self._line_bytes))

    def _check(self, window: bytes) -> None:
        """Looks at each line of a window; the newline behind the last one is not part of it."""
        if window and window.isspace():  # a file of newlines costs no more than any other
            self._number += window.count(b"\n") + 1
            self._offset += len(window) + 1
            return
        # No part of a UTF-8 sequence is a newline: a sound window has sound lines.
        sound = window.isascii() or is_utf8(window)
        for raw in window.split(b"\n"):
            size = len(raw) + 1
            if not raw or raw.isspace():
                self._number += 1
                self._offset += size
                continue
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
            else:
                self._lines = self._number
                self._clean.append((line, content, size))
        self._take_clean()

    def _take_clean(self) -> None:
        """Counts the lines up to the present one that were put aside as clean, all but those with a used custom_id.

        They are put aside because a whole run of them costs half the time a line.
        """
        clean = self._clean
        if not clean:
            return
        self._clean = []
        first = self._lines - len(clean) + 1
        repeated = self._seen.add_all([line.custom_id for line, _, _ in clean])
        for position in reversed(repeated):
            line, _, _ = clean.pop(position)
            self._refuse(duplicate(line.custom_id), first + position)
        self._take(clean)

    def _sample_some(self, lines: list[tuple[RequestLine, int, int]]) -> None:
        """Guesses the tokens of those of the next lines whose turn it is, however the file was cut into pieces."""
        first, self._taken = self._taken, self._taken + len(lines)
        while self._sample_at < self._taken:
            line, content, size = lines[self._sample_at - first]
            step = max(1, self._sample_at // SAMPLED, size // LONG)
            self._sample(line, content, step)
            self._sample_at += step

    def _sample(self, line: RequestLine, content: int, stands_for: int = 1) -> None:
        """Guesses the tokens of a line with so many bytes of content, which stands for some lines."""
        body = line.body
        sample = self._samples.setdefault(body.model or "", Sample())
        sample.tokens += guess(CONTENT[line.url][1](body), body.instructions, body.tools) * stands_for
        sample.bytes += content * stands_for

    def _take(self, lines: list[tuple[RequestLine, int, int]]) -> None:
        """Counts lines that are clean, or want nothing but a model; each with its bytes of content and of all."""
        self._sample_some(lines)
        name: str | None = None
        stats = ModelStats()
        urls = self._urls
        for line, content, size in lines:
            body = line.body
            if body.model != name or name is None:
                name = body.model or ""
                stats = self._block.setdefault(name, ModelStats())
            urls[line.url] += 1
            stats.lines += 1
            stats.bytes += size
            stats.input_tokens += content  # bytes as yet: `finish` makes tokens of the sum
            limit = _output_limit(body)
            if limit:
                stats.output_limit += limit
            else:
                stats.unlimited += 1

    def _look_again(self, raw: bytes, size: int) -> None:
        """Finds out what is wrong with a line that is not plainly clean, if anything."""
        self._take_clean()
        self._refuse_blanks()
        self._lines = self._number
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
        content = len(CONTENT[found.url][1](found.body))
        self._take([(found, content, size)])
        if name not in self._samples:
            self._sample(found, content)

    def _refuse(self, found: LineFault | None, number: int | None = None) -> None:
        """Counts a line as faulty, the present one unless `number` says otherwise."""
        self._fault_count += 1
        if found and len(self._faults) < MAX_FAULTS:
            self._faults.append(msgspec.structs.replace(found, line=number or self._number))

    def _refuse_blanks(self) -> None:
        """Blank lines are faults once another line follows them; at the end of a file they do no harm."""
        first, behind = self._lines + 1, self._number
        self._fault_count += behind - first
        self._unreadable |= first == 1 < behind
        for number in range(first, min(behind, first + MAX_FAULTS - len(self._faults))):
            self._faults.append(LineFault(code=INVALID_JSON, message=BLANK, line=number))

    def _next_block(self, size: int) -> None:
        """Begins a block with the coming line of `size` bytes."""
        self._take_clean()
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


def _output_limit(body: RequestBody) -> int:
    """The output tokens that a body allows, 0 when it sets no limit that makes sense."""
    limit = body.max_completion_tokens or body.max_tokens or body.max_output_tokens
    if type(limit) is not int or limit < 0:
        return 0
    answers = body.n if type(body.n) is int and body.n > 0 else 1
    return min(limit * answers, MAX_OUTPUT)
