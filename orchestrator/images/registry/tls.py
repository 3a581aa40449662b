"""What a connection trusts and shows, and the SSL context made of it. Workers use it as well."""

from __future__ import annotations

import ssl

from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of certificates. `roots` stand in place of the system's own, `extra` beside them."""

    verify: bool = True
    roots: tuple[str, ...] = ()
    """Files or directories (SSL_CERT_FILE, SSL_CERT_DIR)."""
    extra: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    """What we show when asked: files of a certificate and its key."""


def context(tls: Tls) -> ssl.SSLContext:
    """Raises UserError when a file is missing, or is no certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif not tls.roots:
        made.load_default_certs()
    for path in tls.roots + tls.extra if tls.verify else ():
        try:
            _load(made, path)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(path, error) from None
    for certificate, key in tls.pairs:
        try:
            # Without this an encrypted key would ask on the terminal.
            made.load_cert_chain(certificate, key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise _unusable(certificate, error) from None
    return made


def _load(into: ssl.SSLContext, path: str) -> None:
    import os

    if os.path.isdir(path):
        into.load_verify_locations(capath=path)
    else:
        into.load_verify_locations(cafile=path)


def _unusable(path: str, error: Exception) -> UserError:
    why = getattr(error, "strerror", "") or getattr(error, "reason", "") or str(error)
    return UserError(f"{path}: not a certificate that can be used: {why}", exit_code=ExitCode.FILE_NOT_FOUND)
