"""Under which names a listener may be addressed (security rule 18).

Guarantees: a set of hosts is lower case and says the port wherever the port is not HTTP's own. Leaves the comparison to
`gateway.edge.headers.check_host`, and names given by people to the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bundles.loopback import is_loopback

HTTP_PORT: Final = 80
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


def own_hosts(address: str, port: int) -> frozenset[str]:
    """The hosts that mean this very address (a name or an IP address without brackets) and port.

    A loopback address is known by all loopback names. **Security**: none of these can be bound to another address by
    whoever owns a domain, so a page in a browser cannot reach the gate through them from a foreign origin.
    """
    names = {f"[{address}]" if ":" in address else address}
    if is_loopback(address):
        names.update(LOOPBACK_NAMES)
    return with_port(names, port)


def with_port(names: Iterable[str], port: int) -> frozenset[str]:
    """`names` as clients write them for a port; with HTTP's own port also without it."""
    plain = {name.lower() for name in names}
    hosts = {f"{name}:{port}" for name in plain}
    return frozenset(hosts | plain if port == HTTP_PORT else hosts)
