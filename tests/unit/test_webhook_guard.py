"""Where webhooks may lead: every way known to reach a private network through a URL is tried."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from batchway.core.errors import RequestError
from batchway.integrations.webhook.guard import Guard, Refused, is_public, place_of

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "::ffff:8.8.8.8"]
PRIVATE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.9",
    "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "2001:db8::1", "2001::1", "2001:20::1", "100::1", "3fff::1", "5f00::1", "64:ff9b:1::1", "4000::1",
    # IPv4 in other clothes.
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::1",
]  # fmt: skip
METADATA = ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "168.63.129.16", "192.0.0.192", "::ffff:a9fe:a9fe"]

HARD_TO_READ = [
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/", "https://017700000001/",
    "https://127.0.0.1./", "https://0177.0.0.1/", "https://1.1.1.0x7f/", "https://good.example.com.0x7f/",
    "https://user@good.example.com/", "https://user:password@good.example.com/", "https://@good.example.com/",
    "https://good.example.com\\@127.0.0.1/", "https://good.example.com\\.evil.com/", "https://good.example.com /",
    "https://good.example.com\t/", "https://good.example.com\n/", "\nhttps://good.example.com/",
    "https://good.example.com#@127.0.0.1/", "https://good.example.com/#top", "https://%31%32%37.0.0.1/",
    "https://gооd.example.com/", "https://①②⑦.⓪.⓪.①/", "https://good。example。com/", "https://good..example.com/",
    "https://.example.com/", "https://example.com./", "https:///path", "https://", "https:/good.example.com/",
    "https:good.example.com", "//good.example.com/", "good.example.com", "", "ftp://good.example.com/", "file:///etc",
    "gopher://good.example.com/", "https://good.example.com:0/", "https://good.example.com:65536/",
    "https://good.example.com:99999999/", "https://good.example.com:/", "https://good.example.com:80a/",
    "https://[::1/", "https://[::1]extra/", "https://[v1.fe]/", "https://[::1%25lo]/", "https://[fe80::1%eth0]/",
    "https://-good.example.com/", f"https://{'a' * 64}.example.com/", f"https://good.example.com/{'a' * 2048}",
    'https://good.example.com/"', "https://good.example.com/<x>", "https://good.example.com/\x7f", "https://exa_mple.1/",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_may_be_told(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE + METADATA)
def test_private_and_reserved_addresses_may_not(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("url", HARD_TO_READ)
def test_a_url_that_parsers_may_read_differently_is_refused(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        place_of(url, allow_private=True)
    assert (caught.value.code, caught.value.param) == ("invalid_url", "url")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443),
        ("https://hooks.example.com?x=1&y=%20", "hooks.example.com", 443),
        ("HTTPS://Hooks.Example.COM:8443/Path/~a;b=c?Q=Z", "hooks.example.com", 8443),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://a_b.example.com/", "a_b.example.com", 443),
        ("https://93.184.216.34/x", "93.184.216.34", 443),
        ("https://[2606:2800:220::1]:444/x", "2606:2800:220::1", 444),
    ],
)
def test_a_plain_url_is_taken_apart(url: str, host: str, port: int) -> None:
    place = place_of(url, allow_private=False)
    assert (place.host, place.port) == (host, port)
    assert place.url.lower() == url.lower()
    assert "/Path/~a;b=c?Q=Z" in place.url or "Path" not in url


def test_http_is_for_those_whom_an_admin_allows_private_hosts() -> None:
    assert place_of("http://hooks.local/", allow_private=True).port == 80
    with pytest.raises(RequestError, match="https"):
        place_of("http://hooks.example.com/", allow_private=False)


def answering(*addresses: str) -> Guard:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return Guard(resolve)


async def test_a_host_with_public_addresses_alone_is_reached_at_one_of_them_in_turn() -> None:
    place = place_of("https://hooks.example.com/", allow_private=False)
    guard = answering("93.184.216.34", "8.8.8.8")
    found = [await guard.address(place, allow_private=False, turn=turn) for turn in range(3)]
    assert found == ["93.184.216.34", "8.8.8.8", "93.184.216.34"]


@pytest.mark.parametrize("private", ["10.0.0.1", "::1", "::ffff:127.0.0.1", "not an address"])
async def test_one_private_address_among_public_ones_is_enough_to_refuse(private: str) -> None:
    place = place_of("https://hooks.example.com/", allow_private=False)
    for addresses in (["93.184.216.34", private], [private, "93.184.216.34"], []):
        with pytest.raises(Refused) as caught:
            await answering(*addresses).address(place, allow_private=False)
        assert private not in str(caught.value)


async def test_a_name_that_is_unknown_and_one_that_is_private_look_the_same() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    place = place_of("https://hooks.example.com/", allow_private=False)
    said = []
    for guard in (Guard(unknown), answering("10.0.0.1")):
        with pytest.raises(Refused) as caught:
            await guard.address(place, allow_private=False)
        said.append(str(caught.value))
    assert said[0] == said[1]


async def test_an_address_in_the_url_is_checked_without_asking_anybody() -> None:
    guard = answering()
    assert await guard.address(place_of("https://8.8.8.8/", allow_private=False), allow_private=False) == "8.8.8.8"
    with pytest.raises(Refused):
        await guard.address(place_of("https://[::ffff:7f00:1]/", allow_private=False), allow_private=False)


@pytest.mark.parametrize("text", METADATA)
async def test_nobody_reaches_metadata_services_not_even_where_private_hosts_are_allowed(text: str) -> None:
    place = place_of("http://metadata.internal/", allow_private=True)
    with pytest.raises(Refused):
        await answering(text).address(place, allow_private=True)


@pytest.mark.parametrize("text", ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd12::1", "100.64.0.1"])
async def test_private_hosts_are_reached_where_an_admin_allows_them(text: str) -> None:
    place = place_of("http://hooks.local/", allow_private=True)
    assert await answering(text).address(place, allow_private=True) == text


async def test_the_systems_own_names_are_resolved() -> None:
    guard = Guard()
    place = place_of("http://localhost/", allow_private=True)
    assert ip_address(await guard.address(place, allow_private=True)).is_loopback
    with pytest.raises(Refused):
        await guard.address(place, allow_private=False)
    guard.close()
