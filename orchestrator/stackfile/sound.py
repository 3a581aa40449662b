"""Values that have the right form but that no container could be started with.

Docker Compose hands them on and fails, or ignores them, while containers are being started; here they are
known, with their place, before anything is touched. What depends on the machine or the image (does it have
that CPU, that user?) can't be known here.
"""

from __future__ import annotations

import re

from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.reader import Reader

CAPABILITIES = (
    "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE "
    "DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE "
    "MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG "
    "SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG WAKE_ALARM"
).split()
"""capabilities(7), as of Linux 5.9; there has been none since."""
_SECURITY = ("seccomp", "no-new-privileges", "apparmor", "label", "systempaths")
_SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN "
    "TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_OTHER_SIGNALS = ("IOT", "POLL", "CLD", "RTMIN", "RTMAX")
_REAL_TIME = r"RTMIN\+([1-9]|[12][0-9]|30)|RTMAX-([1-9]|[12][0-9]|30)"
_LAST_SIGNAL = 64
_CPUS = r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*"
_CONTAINER = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
NAME_LIMIT = 200
_HOST = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?"
"""sethostname(2) takes 64 bytes; a blank would make two names of it in /etc/hosts."""
_SIZE = r"[0-9]+(\.[0-9]+)?\s*[bkmgtBKMGT]?([iI]?[bB])?"
_PRIVATE_SYSCTLS = ("net.", "kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.")
LEAST_MEMORY = 6 * 1024 * 1024
"""Docker's least: below it a program may be killed before it comes to run."""


def _fits(pattern: str, text: str) -> bool:
    """Compiled when it is first asked for: few stacks say any of these."""
    return re.fullmatch(pattern, text, re.ASCII) is not None


def sound(said: Reader) -> None:
    """Report what of a service can't work on any machine."""
    _program(said)
    _names(said)
    _security(said)
    _limits(said)


def _program(said: Reader) -> None:
    directory = said.text("working_dir")
    if directory is not None and not directory.startswith("/"):
        _wrong(said, "working_dir", f"{directory!r} must be an absolute path in the container")
    signal = said.text("stop_signal")
    if signal is not None and not is_signal(signal):
        hint = nearest(signal.upper(), [f"SIG{name}" for name in _SIGNALS])
        _wrong(said, "stop_signal", f"{signal!r} is not a signal", hint or "as SIGTERM, USR1 or 15")
    for name in said.pairs("environment"):
        if not name or "=" in name:
            _wrong(said.part("environment"), name, f"{name!r} can't be the name of a variable")
    options = said.part("logging").part("options")
    size, count = options.text("max-size"), options.text("max-file")
    if size is not None and size != "-1" and not _fits(_SIZE, size.strip()):
        _wrong(options, "max-size", f"{size!r} is not a size such as 10m")
    if count is not None and not (count.isdecimal() and int(count[:9]) > 0):
        _wrong(options, "max-file", f"{count!r} is not a number of files")


def is_signal(text: str) -> bool:
    if text.isdecimal():
        return 0 < int(text[:9]) <= _LAST_SIGNAL
    name = text.upper().removeprefix("SIG")
    return name in _SIGNALS or name in _OTHER_SIGNALS or _fits(_REAL_TIME, name)


def _names(said: Reader) -> None:
    own = said.text("container_name")
    if own is not None and (not _fits(_CONTAINER, own) or len(own) > NAME_LIMIT):
        hint = f"at most {NAME_LIMIT} letters, digits, _, . and -, the first a letter or digit"
        _wrong(said, "container_name", f"{own:.24} can't be a name on this machine", hint)
    host = said.text("hostname")
    if host is not None and not _fits(_HOST, host):
        hint = "at most 64 letters, digits, '.', - and _"
        _wrong(said, "hostname", f"{host!r} can't be the name of a machine", hint)
    for server, spot in said.each("dns"):
        if not _is_address(server):
            spot.refuse(f"{server!r} is not an IP address")
    for line, spot in said.each("extra_hosts"):
        name, _, address = line.partition("=")
        if address != "host-gateway" and not _is_address(address):
            hint = "lines look like name=10.0.0.1 or name=host-gateway"
            spot.refuse(f"{address!r}, for {name}, is not an IP address", hint=hint)


def _is_address(text: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _security(said: Reader) -> None:
    for key in ("cap_add", "cap_drop"):
        for name, spot in said.each(key):
            bare = name.upper().removeprefix("CAP_")
            if bare not in CAPABILITIES:
                hint = nearest(bare, CAPABILITIES)
                spot.refuse(f"{name!r} is not a capability of Linux", hint=hint)
    for option, spot in said.each("security_opt"):
        key = option.partition("=" if "=" in option else ":")[0]
        if key not in _SECURITY:
            hint = nearest(key, _SECURITY) or f"one of {', '.join(_SECURITY)}"
            spot.refuse(f"{option!r} is not an option of security", hint=hint)
    for name, value in said.named("sysctls"):
        if not name.replace("/", ".").startswith(_PRIVATE_SYSCTLS):
            value.refuse(
                "belongs to the whole machine, not to a container",
                hint="a container has its own net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*",
            )


def _limits(said: Reader) -> None:
    cpus = said.text("cpuset")
    if cpus is not None and not _fits(_CPUS, cpus):
        _wrong(said, "cpuset", f"{cpus!r} is not a list of CPUs such as 0-2,4")
    for reader, key in (
        (said, "mem_limit"),
        (said.part("deploy").part("resources").part("limits"), "memory"),
    ):
        memory = reader.bytes(key)
        if memory is not None and 0 < memory < LEAST_MEMORY:
            bytes_meant = "; a number without a unit counts bytes" if memory < 64 * 1024 else ""
            reader.warn(f"hardly a program runs with less than 6m{bytes_meant}", key=key)
    for key, least in (("shm_size", 0), ("mem_limit", -1), ("mem_reservation", -1), ("memswap_limit", -1)):
        if (said.bytes(key) or 0) < least:
            _wrong(said, key, "a size can't be negative")


def _wrong(said: Reader, key: str, message: str, hint: str = "") -> None:
    said.refuse(message, key=key, hint=hint)
