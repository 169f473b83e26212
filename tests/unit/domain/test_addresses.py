"""Addresses that are never called, however another address carries them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.addresses import is_refused

_METADATA = (
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fe80::a9fe:a9fe"),
)
_MULTICAST = (
    *("224.0.0.1", "ff02::1"),
    *("64:ff9b:1::224.0.0.1", "2001:db8::5efe:e000:1", "2001:0:4100:1::1fff:fffe"),
)
_ALLOWED = (
    *("127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "93.184.216.34", "::1", "fd12::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "2001:db8::5efe:a00:1", "64:ff9b:1::10.0.0.1"),
)


def _rfc6052(prefix: str, length: int) -> Callable[[int], int]:
    """Put an IPv4 address after a prefix as RFC 6052 draws it, bit by bit."""

    def embed(address: int) -> int:
        bits = f"{int(IPv6Address(prefix)):0128b}"[:length]
        for bit in f"{address:032b}":
            if len(bits) == 64:
                bits += "0" * 8
            bits += bit
        return int(bits.ljust(128, "0"), 2)

    return embed


_EMBEDDINGS: dict[str, Callable[[int], int]] = {
    "mapped": _rfc6052("::ffff:0:0", 96),
    "compatible": _rfc6052("::", 96),
    "translated": _rfc6052("::ffff:0:0:0", 96),
    "nat64": _rfc6052("64:ff9b::", 96),
    **{f"local nat64 /{length}": _rfc6052("64:ff9b:1::", length) for length in (48, 56, 64, 96)},
    "a site's nat64": _rfc6052("2001:db8:64::", 96),
    "6to4": lambda address: 0x2002 << 112 | address << 80,
    "6to4 with a host": lambda address: 0x2002 << 112 | address << 80 | 1 << 64 | 5,
    "teredo client": lambda address: 0x20010000 << 96 | 0x41000001 << 64 | address ^ 0xFFFFFFFF,
    "teredo server": lambda address: 0x20010000 << 96 | address << 64 | 0xF5FFFFFE,
    "isatap": lambda address: 0x20010DB8 << 96 | 0x5EFE << 32 | address,
    "isatap, universal": lambda address: 0x20010DB8 << 96 | 0x02005EFE << 32 | address,
}
_LINK_LOCAL = st.integers(int(IPv4Address("169.254.0.0")), int(IPv4Address("169.254.255.255")))
_NEVER = st.one_of(_LINK_LOCAL, st.sampled_from([int(IPv4Address(one)) for one in _METADATA if ":" not in one]))


@pytest.mark.parametrize("address", [*_METADATA, "fe80::1", "fe80::1%lo", "fd00:ec2::254%1", *_MULTICAST])
def test_an_address_of_no_service_is_refused(address: str) -> None:
    """Link-local, multicast and metadata addresses, also with a zone."""
    assert is_refused(address)


@pytest.mark.parametrize("address", _ALLOWED)
def test_an_address_of_a_service_is_allowed(address: str) -> None:
    """Private and loopback addresses are those of services; so is one that carries them."""
    assert not is_refused(address)


@pytest.mark.parametrize("embed", _EMBEDDINGS.values(), ids=_EMBEDDINGS)
@given(address=_NEVER)
def test_no_embedding_hides_an_address(embed: Callable[[int], int], address: int) -> None:
    """Every way to carry an IPv4 address in an IPv6 address is unwrapped."""
    assert is_refused(str(IPv6Address(embed(address))))


@given(address=st.ip_addresses(v=4))
def test_an_embedding_is_judged_as_what_it_carries(address: IPv4Address) -> None:
    """The well-known prefixes and tunnels refuse exactly what plain IPv4 refuses."""
    for name in ("compatible", "mapped", "translated", "nat64", "6to4", "teredo server", "isatap", "isatap, universal"):
        assert is_refused(str(IPv6Address(_EMBEDDINGS[name](int(address))))) == is_refused(str(address))
