"""The texts of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container (hosts(5), resolv.conf(5))."""

from __future__ import annotations

from collections.abc import Sequence

EMBEDDED_RESOLVER = "127.0.0.11"

_LOOPBACK = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def hosts(
    *, hostname: str, domainname: str | None, addresses: Sequence[str], extra: Sequence[tuple[str, str]]
) -> str:
    """`extra` holds (name, address) pairs; host-gateway is resolved already."""
    own = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines = [*_LOOPBACK, *(f"{address}\t{name}" for name, address in extra)]
    lines += [f"{address}\t{own}" for address in addresses]
    return "\n".join(lines) + "\n"


def embedded(*, search: Sequence[str], options: Sequence[str]) -> str:
    """For a container whose names we serve. A user's own ndots wins over ours, which is docker's."""
    chosen = list(options)
    if not any(option.startswith("ndots:") for option in chosen):
        chosen.append("ndots:0")
    return _text([EMBEDDED_RESOLVER], search, chosen)


def plain(*, host_text: str, servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """For a container without our resolver: the host's file, or what the service says instead."""
    if not (servers or search or options):
        return host_text
    kept = {"nameserver": [], "search": [], "options": []}  # type: dict[str, list[str]]
    for line in host_text.splitlines():
        words = line.split()
        if words and words[0] in kept:
            kept[words[0]] += words[1:]
    return _text(
        list(servers) or kept["nameserver"], list(search) or kept["search"], list(options) or kept["options"]
    )


def _text(servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    lines = [f"nameserver {server}" for server in servers]
    if search and list(search) != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"
