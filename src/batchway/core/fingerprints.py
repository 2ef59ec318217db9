"""A set of strings for millions of them: 128 bits of each are kept, about 19 bytes a string in all.

Two different strings look alike with a chance of n * n / 2**129, for ten million 1e-25: never in practice, so a
duplicate may be named without looking back. The hashes are Python's own, keyed at random in each process.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_two = struct.Struct("<qq")


class Fingerprints:
    """What was added. Linear hashing: the table grows by one bucket at a time, so no `add` stops to move millions."""

    FILL = 20  # strings a bucket, on average: fewer cost memory, more cost time

    def __init__(self) -> None:
        self._buckets = [b""] * 64
        self._mask = 63
        self._next = 0  # buckets below have been split already
        self._room = 64 * self.FILL

    def add(self, text: str) -> bool:
        """True when `text` was not there before."""
        return not self.add_all((text,))

    def add_all(self, texts: Sequence[str]) -> list[int]:
        """The positions of those that were there before, or earlier in `texts`."""
        repeated: list[int] = []
        buckets, pack = self._buckets, _two.pack
        for position, text in enumerate(texts):
            first = hash(text)
            fingerprint = pack(first, hash(text + "\0"))
            at = first & self._mask
            if at < self._next:
                at = first & (2 * self._mask + 1)
            bucket = buckets[at]
            if bucket.find(fingerprint) >= 0:  # `in` takes twice the time
                repeated.append(position)
                continue
            buckets[at] = bucket + fingerprint
            self._room -= 1
            if not self._room:
                self._split()
        return repeated

    def _split(self) -> None:
        byte, bit = divmod(self._mask.bit_length(), 8)  # the next bit of `first`, as packed
        bucket = self._buckets[self._next]
        held = [bucket[at : at + _two.size] for at in range(0, len(bucket), _two.size)]
        self._buckets[self._next] = b"".join([one for one in held if not one[byte] >> bit & 1])
        self._buckets.append(b"".join([one for one in held if one[byte] >> bit & 1]))
        self._room = self.FILL
        self._next += 1
        if self._next > self._mask:
            self._next, self._mask = 0, 2 * self._mask + 1
