"""System call filters: from an OCI `linux.seccomp` object to the classic BPF program that the kernel loads.

The program looks at the machine type, searches the call's number in a binary tree of ranges, and compares
arguments where a rule asks for it. Sources: seccomp(2), the OCI runtime specification (config-linux,
"Seccomp"), and libseccomp's behaviour where the specification is silent; the tests compare with it.

Compiling takes milliseconds and needs the tables of call names, so results are kept by content
(`compile_cached`, `default_cached`): a start then costs one stat.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import marshal
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from orchestrator.kernel import bpf
from orchestrator.kernel.bpf import OPERATORS, Code, Comparison, Rule

# include/uapi/linux/audit.h, include/uapi/linux/elf-em.h
_AUDIT_ARCH: Final = {
    "x86_64": 0xC000003E,
    "x86": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
_X32_BIT: Final = 0x40000000
_FAMILY: Final = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}
_OCI_ARCHES: Final = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}

# include/uapi/linux/seccomp.h
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_TRACE: Final = 0x7FF00000
_LOG: Final = 0x7FFC0000
_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
_FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_EPERM: Final = 1
_ENOSYS: Final = 38

# On i386 these calls have a second way in, through one call that takes their number first
# (include/uapi/linux/net.h, include/uapi/linux/ipc.h).
_MULTIPLEXED: Final = {
    "socketcall": (
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom "
        "shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
    ),
    "ipc": (
        "semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - "
        "shmat shmdt shmget shmctl"
    ),
}


class ProfileError(ValueError):
    """A seccomp profile that says something impossible; the message names it."""


# --- reading a profile -------------------------------------------------------------------------------


@functools.cache
def _data(name: str) -> Mapping[str, object]:
    document: Mapping[str, object] = json.loads(Path(__file__).with_name(name).read_bytes())
    return document


@functools.cache
def numbers(arch: str) -> Mapping[str, int]:
    """System call numbers by name for x86_64, x86, x32 (without its bit), aarch64 or arm."""
    runs = _data("syscall_table.json")[arch]
    assert isinstance(runs, dict)
    return {
        name: number
        for start, names in runs.items()
        for number, name in enumerate(str(names).split(), int(start))
    }


def _verdict(action: object, errno_ret: object) -> int:
    if not isinstance(action, str) or action not in _ACTIONS:
        raise ProfileError(f"unknown seccomp action {action!r}")
    value = _ACTIONS[action]
    if value not in (_ERRNO, _TRACE):
        return value
    number = _EPERM if errno_ret is None else _whole(errno_ret, "errnoRet", 0xFFFF)
    return value | number


def _whole(value: object, name: str, most: int = (1 << 64) - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ProfileError(f"seccomp {name} must be a whole number from 0 to {most}, not {value!r}")
    return value


def _mappings(value: object, name: str) -> Sequence[Mapping[str, object]]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise ProfileError(f"seccomp {name} must be a list of objects")
    return value


def _strings(value: object, name: str) -> Sequence[str]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ProfileError(f"seccomp {name} must be a list of strings")
    return value


def _rules(entry: Mapping[str, object]) -> Iterable[Rule]:
    verdict = _verdict(entry.get("action"), entry.get("errnoRet"))
    comparisons = []
    for arg in _mappings(entry.get("args"), "args"):
        op = arg.get("op")
        if not isinstance(op, str) or op not in OPERATORS:
            raise ProfileError(f"unknown seccomp operator {op!r}")
        comparisons.append(
            Comparison(
                _whole(arg.get("index"), "args.index", 5),
                op,
                _whole(arg.get("value"), "args.value"),
                _whole(arg.get("valueTwo", 0), "args.valueTwo"),
            )
        )
    # Two conditions on one argument mean "or", as runc has always read them (opencontainers/runc#2735).
    if len({comparison.index for comparison in comparisons}) < len(comparisons):
        return [Rule(verdict, (comparison,)) for comparison in comparisons]
    return [Rule(verdict, tuple(comparisons))]


def _table(arch: str, profile: Mapping[str, object], default: int) -> dict[int, list[Rule]]:
    """The rules for each call number. Names that this kernel interface lacks are skipped."""
    known = numbers(arch)
    gates = _gates() if arch == "x86" else {}
    table: dict[int, list[Rule]] = {}
    for entry in _mappings(profile.get("syscalls"), "syscalls"):
        rules = _rules(entry)
        for name in _strings(entry.get("names"), "names"):
            if name in known:
                table.setdefault(known[name], []).extend(rules)
            if name in gates:
                # Rules on arguments can't be had there: the arguments are behind a pointer.
                gate, number = gates[name]
                condition = (Comparison(0, "SCMP_CMP_EQ", number, 0),)
                table.setdefault(gate, []).extend(
                    Rule(rule.verdict, condition) for rule in rules if not rule.comparisons
                )
    return {number: _settle(rules, default) for number, rules in table.items() if rules}


@functools.cache
def _gates() -> Mapping[str, tuple[int, int]]:
    """i386 only: for each call with a second way in, the number of the gate and what it is called there."""
    known = numbers("x86")
    return {
        name: (known[gate], number)
        for gate, calls in _MULTIPLEXED.items()
        for number, name in enumerate(calls.split(), 1)
        if name != "-"
    }


def _settle(rules: list[Rule], default: int) -> list[Rule]:
    """The rules of one call in the order to try them; the last one always applies.

    As libseccomp has it: a rule without conditions beats those with; exact values are tried before ranges;
    otherwise the first in the file wins.
    """
    if not rules[0].comparisons:
        return rules[:1]
    plain = next((rule for rule in rules if not rule.comparisons), None)
    if plain is not None:
        return [plain]

    def is_range(rule: Rule) -> bool:
        return any(comparison.op != "SCMP_CMP_EQ" for comparison in rule.comparisons)

    return [*sorted(rules, key=is_range), Rule(default)]


def _search(arch: str, profile: Mapping[str, object], default: int) -> Code:
    # A call newer than everything the profile knows does not exist for it: programs try new calls and fall
    # back on ENOSYS but give up on EPERM. Not for defaults that let calls pass, nor for tracers.
    lenient = default in (_ALLOW, _LOG) or default & 0xFFFF0000 == _TRACE
    beyond = default if lenient else _ERRNO | _ENOSYS
    return bpf.tree(bpf.ranges(_table(arch, profile, default), between=default, beyond=beyond))


def compile_profile(profile: Mapping[str, object], machine: str | None = None) -> bytes:
    """The BPF program (an array of struct sock_filter) for an OCI `linux.seccomp` object.

    `machine` is this one's uname -m unless given. Its own architecture is always covered; calls of one that
    the profile does not list kill the process. Raises ProfileError.
    """
    machine = machine or os.uname().machine
    if machine not in _FAMILY:
        raise ProfileError(f"seccomp: the machine type {machine} is not supported")
    default = _verdict(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    listed = {_OCI_ARCHES.get(name) for name in _strings(profile.get("architectures"), "architectures")}
    arches = [arch for arch in _FAMILY[machine] if arch in listed or arch == machine]
    code: Code = [(bpf.RETURN, 0, 0, _KILL_PROCESS)]
    for arch in reversed([arch for arch in arches if arch != "x32"]):
        search: Code = [(bpf.LOAD, 0, 0, bpf.NUMBER), *_search(arch, profile, default)]
        if arch == "x86_64":
            x32 = (
                [(bpf.AND, 0, 0, _X32_BIT - 1), *_search("x32", profile, default)]
                if "x32" in arches
                else [(bpf.RETURN, 0, 0, _KILL_PROCESS)]
            )
            # x32 calls come under the same architecture, told apart by one bit of the number.
            search[1:1] = [(bpf.MORE_EQUAL, 0, 1, _X32_BIT), (bpf.JUMP, 0, 0, len(search) - 1)]
            search += x32
        code = [(bpf.EQUAL, 1, 0, _AUDIT_ARCH[arch]), (bpf.JUMP, 0, 0, len(search)), *search, *code]
    code.insert(0, (bpf.LOAD, 0, 0, bpf.ARCH))
    if len(code) > bpf.MOST:
        raise ProfileError(
            f"seccomp profile is too long: {len(code)} instructions, the kernel takes {bpf.MOST}"
        )
    return bpf.pack(code)


def filter_flags(profile: Mapping[str, object]) -> int:
    """The flags for seccomp(2). Raises ProfileError for a flag that is not known."""
    flags = 0
    for name in _strings(profile.get("flags"), "flags"):
        if name not in _FLAGS:
            raise ProfileError(f"unknown seccomp flag {name!r}")
        flags |= _FLAGS[name]
    return flags


# --- profiles of the user's ---------------------------------------------------------------------------

_DOCKER_ARCHES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def resolve_profile(
    document: Mapping[str, object], capabilities: Collection[str], machine: str | None = None
) -> dict[str, object]:
    """A profile file as Docker takes it (`seccomp=FILE`) -> an OCI object for this container.

    Docker's form adds `archMap`, and `includes`/`excludes` (caps, arches, minKernel) to each rule. An OCI
    object comes out as it is. Raises ProfileError.
    """
    machine = machine or os.uname().machine
    if not isinstance(document, Mapping):  # straight from a file of the user's
        raise ProfileError("a seccomp profile must be an object")
    architectures = list(_strings(document.get("architectures"), "architectures"))
    for entry in _mappings(document.get("archMap"), "archMap"):
        if _OCI_ARCHES.get(str(entry.get("architecture"))) == machine:
            architectures += [str(entry["architecture"]), *_strings(entry.get("subArchitectures"), "archMap")]
    syscalls = []
    for entry in _mappings(document.get("syscalls"), "syscalls"):
        includes, excludes = (_filter(entry.get(key), key) for key in ("includes", "excludes"))
        if includes and not all(_holds(includes, capabilities, machine, every=True)):
            continue
        if any(_holds(excludes, capabilities, machine, every=False)):
            continue
        # Before `names` a rule had one `name`.
        names = entry.get("names") or ([entry["name"]] if "name" in entry else [])
        kept = {key: entry[key] for key in ("action", "errnoRet", "args") if entry.get(key) is not None}
        syscalls.append({"names": names, **kept})
    keep = ("defaultAction", "defaultErrnoRet", "flags")
    profile: dict[str, object] = {key: document[key] for key in keep if document.get(key) is not None}
    return {**profile, "architectures": architectures, "syscalls": syscalls}


def _filter(value: object, name: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProfileError(f"seccomp {name} must be an object")
    return value


def _holds(
    wanted: Mapping[str, object], capabilities: Collection[str], machine: str, *, every: bool
) -> Iterable[bool]:
    """Whether each part of an `includes` (every capability) or `excludes` (any capability) holds."""
    caps = _strings(wanted.get("caps"), "caps")
    if caps:
        yield (all if every else any)(cap in capabilities for cap in caps)
    arches = _strings(wanted.get("arches"), "arches")
    if arches:
        yield _DOCKER_ARCHES.get(machine) in arches
    least = wanted.get("minKernel")
    if least:
        try:
            major, minor = str(least).split(".")
            yield _kernel_version() >= (int(major), int(minor))
        except ValueError as error:
            raise ProfileError(f"seccomp minKernel must be like 4.8, not {least!r}") from error


# --- the default policy ------------------------------------------------------------------------------

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. In clone(2) the bit of NEWTIME is part
# of the exit signal, so that one can't be made with it.
_NAMESPACES: Final = 0x7E020000
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, 32 bit, uname 2.6, both, "tell me"
_AF_ALG, _AF_VSOCK, _AF_MAX = 38, 40, 46


def default_profile(
    capabilities: Collection[str] = (), arch: str | None = None, kernel_version: tuple[int, int] | None = None
) -> dict[str, object]:
    """Docker's default policy as an OCI `linux.seccomp` object, for a bounding set such as {"CAP_CHOWN"}.

    `arch` and `kernel_version` are this machine's unless given. Everything that is not named gets EPERM.
    """
    arch = arch or os.uname().machine
    if arch not in _FAMILY:
        raise ProfileError(f"seccomp: the machine type {arch} is not supported")
    data = _data("default_seccomp.json")
    always, since_4_8 = data["always"], str(data["since 4.8"])
    machine, capability = data["machine"], data["capability"]
    assert isinstance(always, dict)
    assert isinstance(machine, dict)
    assert isinstance(capability, dict)
    names = [name for group in always.values() for name in group.split()]
    names += str(machine[arch]).split()
    if (kernel_version or _kernel_version()) >= (4, 8):
        # Before 4.8 ptrace could change a call after the filter had seen it (seccomp(2)).
        names += since_4_8.split()
    for name in sorted(set(capabilities) & set(capability)):
        names += capability[name].split()
    by_arguments = [
        # An allow-list: the kernel cuts the family to 32 bits, so "anything but 38" would let 2**32+38 in.
        _allow("socket", 0, "SCMP_CMP_LT", _AF_ALG),
        *(_allow("socket", 0, "SCMP_CMP_EQ", n) for n in range(_AF_ALG + 1, _AF_MAX) if n != _AF_VSOCK),
        *(_allow("personality", 0, "SCMP_CMP_EQ", value) for value in _PERSONALITIES),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        by_arguments += [
            _allow("clone", 0, "SCMP_CMP_MASKED_EQ", _NAMESPACES),
            # Its flags are behind a pointer; on ENOSYS libraries fall back to clone, which can be checked.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ]
    oci = {value: name for name, value in _OCI_ARCHES.items()}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": [oci[name] for name in _FAMILY[arch]],
        "syscalls": [{"names": list(dict.fromkeys(names)), "action": "SCMP_ACT_ALLOW"}, *by_arguments],
    }


def _allow(name: str, index: int, op: str, value: int) -> dict[str, object]:
    condition = {"index": index, "value": value, "valueTwo": 0, "op": op}
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}


def _kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


# --- keeping programs --------------------------------------------------------------------------------


def compile_cached(profile: Mapping[str, object], cache_dir: Path) -> Path:
    """A file with the compiled program, found again by its content. Raises ProfileError, OSError."""
    try:
        # Version 2 is without references between equal objects, so that equal profiles give equal bytes; ten
        # times faster than JSON. The same profile in another order is compiled once more, which harms nobody.
        content = marshal.dumps(profile, 2)  # type: ignore[arg-type]  # checked by marshal itself
    except ValueError as error:
        raise ProfileError("a seccomp profile must be made of objects, lists, strings and numbers") from error
    return _cached(content, cache_dir, lambda: profile)


def default_cached(capabilities: Collection[str], cache_dir: Path, *, one_id: bool = False) -> Path:
    """A file with the compiled default policy for these capabilities, without building the policy again.

    `one_id`: see `for_one_id`.
    """
    version = _kernel_version() >= (4, 8)
    key = f"default {sorted(capabilities)} {version} {one_id}".encode()
    dressed = for_one_id if one_id else dict
    return _cached(key, cache_dir, lambda: dressed(default_profile(capabilities)))


def for_one_id(profile: Mapping[str, object]) -> dict[str, object]:
    """The profile where only one user and group exist: giving files or oneself to another does nothing, and
    says that it went well, so that programs made for more users run."""
    pretence = {"names": _ID_CALLS.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    return {**profile, "syscalls": [pretence, *_mappings(profile.get("syscalls"), "syscalls")]}


_ID_CALLS: Final = (
    "chown fchown lchown fchownat chown32 fchown32 lchown32 "
    "setuid setgid setreuid setregid setresuid setresgid setgroups "
    "setuid32 setgid32 setreuid32 setregid32 setresuid32 setresgid32 setgroups32"
)


@functools.lru_cache(maxsize=64)
def cached_policy(program: Path) -> str:
    """What a cached program was compiled from, an OCI `linux.seccomp` object as JSON. Raises OSError."""
    return program.with_suffix(".json").read_text("utf-8")


def _cached(key: bytes, cache_dir: Path, profile: Callable[[], Mapping[str, object]]) -> Path:
    name = hashlib.sha256(f"{_edition()}{os.uname().machine} ".encode() + key).hexdigest()
    path = cache_dir / f"{name}.bpf"
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > 0:
            return path
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    policy = profile()
    program = compile_profile(policy)
    # The program last: where it is, its policy is.
    _keep(cache_dir, f"{name}.json", json.dumps(policy, separators=(",", ":")).encode())
    _keep(cache_dir, path.name, program)
    return path


def _keep(directory: Path, name: str, content: bytes) -> None:
    draft = directory / f".{name}.{os.getpid()}.{threading.get_ident()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            # Without it a machine that stops now may come back with the name and no content.
            os.fsync(fd)
        draft.rename(directory / name)
    finally:
        draft.unlink(missing_ok=True)


@functools.cache
def _edition() -> str:
    """What, besides the profile, decides the program: this compiler and its tables."""
    digest = hashlib.sha256()
    for source in (__file__, bpf.__file__):
        digest.update(Path(source).read_bytes())
    for name in ("syscall_table.json", "default_seccomp.json"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()
