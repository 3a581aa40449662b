"""Which proxy the environment names for a URL. Pure.

The variables are those of curl and of Go's net/http: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, in
capitals or not. A loopback address never goes through a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """The URL of the proxy, "" for none. A proxy without a scheme is an http one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or _PORTS.get(parts.scheme, 0)
    proxy = _value(environment, f"{parts.scheme}_proxy") or _value(environment, "all_proxy")
    if not proxy or is_loopback(host) or _excepted(host, port, _value(environment, "no_proxy")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """Whether a host (no port, no brackets) can only be this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _value(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _excepted(host: str, port: int, listed: str) -> bool:
    """NO_PROXY: names stand for their subdomains as well; addresses and networks; a port narrows it."""
    return any(_fits(host, port, entry.strip().lower()) for entry in listed.split(",") if entry.strip())


def _fits(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and ("]" in name or ":" not in name):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))
