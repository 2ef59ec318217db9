"""Where a webhook may lead: to public addresses over https, so that nobody reaches our own network through us.

A URL is taken apart here by a grammar so narrow that no other parser can read another host in it. Its name is resolved
here, refused when any of its addresses is not public, and the connection then goes to an address that was checked,
whatever DNS says a moment later. The check is made when a webhook is stored, and again for every message.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import msgspec

from batchway.core.errors import RequestError

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Answers the addresses of a host at a port; OSError when there are none."""

LONGEST = 2048
RESOLVERS = 128  # threads, apart from all others and more than one project can keep busy with names that hang
URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][!$-;=?-Z_a-z~\[\]@]*)?",  # no space, quote, backslash, '#', '<', '>', '^', '`', '{', '|', '}'
    re.ASCII,
)
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# Beyond what Python's `is_global` leaves out: relays, and what some clouds answer at.
ODD = [IPv4Network(text) for text in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")]
PLATFORM = IPv4Network("168.63.129.16/32")  # a cloud's own services, at a public address
GLOBAL_6 = IPv6Network("2000::/3")  # all that is given out; the rest is refused unread
ODD_6 = [IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20")]
TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: an IPv4 address in other clothes
NEVER = [IPv4Network(text) for text in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "192.0.0.192/32")]
NEVER_6 = [IPv6Network(text) for text in ("::/128", "fe80::/10", "ff00::/8", "fd00:ec2::/32")]


class Refused(Exception):
    """The URL leads where no message may go, or nowhere; the message names no address."""


class Place(msgspec.Struct, frozen=True):
    """A URL that passed the grammar; `host` is lower case, and an address in it has no brackets."""

    url: str
    host: str
    port: int


def place_of(url: str, *, allow_private: bool, param: str = "url") -> Place:
    """The parts of a URL; RequestError when it is none that a webhook may have."""
    head, mark, rest = url.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    lowered = head.lower() + mark + authority.lower() + rest[len(authority) :]
    found = URL.fullmatch(lowered) if len(url) <= LONGEST else None
    place = Place(lowered, found["host"].strip("[]"), _port(found)) if found else None
    if found is None or place is None or not _well_named(found["host"]) or not 1 <= place.port <= 65535:
        message = (
            f"Invalid '{param}': a webhook's URL is 'https://host/path' of at most {LONGEST} ASCII characters, with "
            "the host as a name or an address as it is usually written, without user, password or fragment."
        )
        raise RequestError(message, code="invalid_url", param=param)
    if found["scheme"] == "http" and not allow_private:
        message = f"Invalid '{param}': it must begin with 'https://'; http is for private hosts that an admin allows."
        raise RequestError(message, code="invalid_url", param=param)
    return place


class Guard:
    """Finds the address that a message may go to. `close` lets go of its threads."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="batchway-names")
        self._resolve = resolve or self._by_the_system

    def close(self) -> None:
        """Waits for nothing: a name server that hangs must not keep the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def address(self, place: Place, *, allow_private: bool, turn: int = 0) -> str:
        """An address of the place; Refused unless each of them may be reached. Tries take turns among several."""
        try:
            found = [ip_address(text) for text in await self._addresses(place)]
        except (OSError, ValueError):  # said in the same words, or it would tell which names our network knows
            found = []
        allowed = _reachable if allow_private else is_public
        if not found or not all(map(allowed, found)):
            raise Refused("the host does not resolve, or not to a public address alone")
        return str(found[turn % len(found)])

    async def _addresses(self, place: Place) -> Sequence[str]:
        try:
            return [str(ip_address(place.host))]
        except ValueError:
            return await self._resolve(place.host, place.port)

    async def _by_the_system(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
        return [str(one[4][0]) for one in found]


def is_public(address: Address) -> bool:
    """Whether this is an address of the public internet, in whatever clothes."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in net for net in (*ODD, PLATFORM))
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    return address in GLOBAL_6 and address.is_global and not any(address in network for network in ODD_6)


def _reachable(address: Address) -> bool:
    """Whether an admin may allow it: anything but link-local, multicast and what clouds hand credentials out at."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in (*NEVER, PLATFORM))
    inner = _embedded(address)
    if inner is not None:
        return _reachable(inner)
    return address.scope_id is None and not any(address in network for network in NEVER_6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _port(found: re.Match[str]) -> int:
    return int(found["port"]) if found["port"] else {"http": 80, "https": 443}[found["scheme"]]


def _well_named(host: str) -> bool:
    """Whether every parser reads the same in it: an address in its usual form, or a name that is surely none."""
    if host.startswith("["):
        return _is_address(host.strip("[]"))
    labels = host.split(".")
    if NUMBER.fullmatch(labels[-1]):  # browsers and libc read addresses such as 0x7f.1 in these
        return _is_address(host)
    return len(host) <= 253 and all(LABEL.fullmatch(label) for label in labels)


def _is_address(text: str) -> bool:
    try:
        return str(ip_address(text)) == text or ":" in text
    except ValueError:
        return False
