"""Which addresses the remediator never calls: link-local, multicast, and the metadata services of clouds.

An IPv6 address can carry an IPv4 address that a translator or a tunnel delivers to. Every address that is carried is
judged like the one that carries it. Private and loopback addresses are allowed: services of a cluster live there.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Metadata services that no property of an address tells; the others are link-local. Whole networks where the cloud
# keeps the network for its own services: the credentials of EKS are at fd00:ec2::23.
_METADATA = tuple(
    map(
        ip_network,
        (
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::/32",  # AWS
            "fd00:c1::/32",  # Oracle
            "fd00:42::/32",  # Scaleway
            "fd20:ce::/64",  # Google
        ),
    )
)
# Prefixes whose last 32 bits are an IPv4 address: compatible, mapped, translated, and NAT64's well-known one.
_BEFORE_IPV4 = tuple(map(ip_network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
# https://www.rfc-editor.org/rfc/rfc8215: a site divides this prefix for NAT64 as it likes.
_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
_LOW_32, _LOW_56 = 2**32 - 1, 2**56 - 1


def is_refused(text: str) -> bool:
    """Whether an address, or one that it carries, is link-local, multicast or a metadata service."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return _is_refused(address)
    bare = IPv6Address(int(address))  # an address with a zone equals no other
    # A site may choose any prefix for its NAT64, so the last 32 bits are judged with any prefix.
    return _is_refused(bare) or any(map(_is_refused, _carried(bare))) or _is_never_called(_low(bare))


def _is_refused(address: Address) -> bool:
    return address.is_multicast or _is_never_called(address)


def _is_never_called(address: Address) -> bool:
    return address.is_link_local or any(address in network for network in _METADATA)


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that this one is translated or tunnelled to."""
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _LOCAL_NAT64:
        yield from (_after_prefix(address, length) for length in (48, 56, 64))
        yield _low(address)
    if int(address) >> 32 & _LOW_32 in _ISATAP or any(address in network for network in _BEFORE_IPV4):
        yield _low(address)


def _after_prefix(address: IPv6Address, length: int) -> IPv4Address:
    """The IPv4 address after a prefix of this length, where RFC 6052 puts it: it leaves out bits 64 to 71."""
    joined = int(address) >> 64 << 56 | int(address) & _LOW_56
    return IPv4Address(joined >> (88 - length) & _LOW_32)


def _low(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & _LOW_32)
