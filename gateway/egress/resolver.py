"""Names to addresses, once per connection.

Guarantees: a literal address is itself; a name is asked for once and the answer is what gets checked and dialled.
Leaves the check to `addresses` and the dialling to `dialer`: a name that changes its answer in between gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final, Protocol

from gateway.egress.errors import UpstreamNotSent

ADDRESSES_MAX: Final = 16


class Resolver(Protocol):
    """Where addresses of names come from."""

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """Addresses of a host in the order to try. Raises `UpstreamNotSent` when there are none."""


class SystemResolver:
    """The operating system's resolver."""

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """See `Resolver`."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as error:
            raise UpstreamNotSent("the upstream's name does not resolve") from error
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not addresses:
            raise UpstreamNotSent("the upstream's name has no address")
        return addresses[:ADDRESSES_MAX]


async def addresses_of(resolver: Resolver, host: str, port: int) -> tuple[str, ...]:
    """The addresses of a host, which may be a literal address."""
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        return await resolver.resolve(host, port)
