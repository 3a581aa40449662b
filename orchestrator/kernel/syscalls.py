"""The one door to ctypes: Linux system calls that Python 3.11 has no name for, or hides.

Every function is synchronous, takes and returns plain values, and raises OSError whose text starts
with the name of the call. Numbers are given for x86-64 and aarch64; calls from number 424 on are the
same everywhere (Linux, scripts/syscall.tbl). Standard library only: the keeper imports this, and its
size decides what a fork costs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module itself brings `enum` along, which costs 8 ms
import ctypes
import errno
import fcntl
import os
import struct

# unshare(2), setns(2): include/uapi/linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# mount(2): include/uapi/linux/mount.h
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# the fd-based mount interface, same header
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_BENEATH = 0x200
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# openat2(2): include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# prctl(2): include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SPLICE_F_NONBLOCK = 2
CLOSE_RANGE_CLOEXEC = 4
SECCOMP_SET_MODE_FILTER = 1
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522

# _IOWR(0xFF, 11, struct pidfd_info) with the 64 bytes of its first version, and the bit that asks for
# the exit status of a reaped process (include/uapi/linux/pidfd.h; the bit needs Linux 6.15).
_PIDFD_INFO_SIZE = 64
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_SIZE << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_EXIT_CODE_OFFSET = 60
_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h

_NUMBERS = {
    "x86_64": {
        "rt_sigaction": 13,
        "pivot_root": 155,
        "getcwd": 79,
        "capset": 126,
        "keyctl": 250,
        "seccomp": 317,
    },
    "aarch64": {
        "rt_sigaction": 134,
        "pivot_root": 41,
        "getcwd": 17,
        "capset": 91,
        "keyctl": 219,
        "seccomp": 277,
    },
}
_EVERYWHERE = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}

# PyDLL keeps the interpreter lock during a call: none of these wait for long, and giving the lock away
# and back costs more than the call (measured 0.4 us a call).
_libc = ctypes.PyDLL(None, use_errno=True)
_long = ctypes.c_long
_text = ctypes.c_char_p
_unshare = _libc.unshare
_unshare.argtypes = [ctypes.c_int]
_setns = _libc.setns
_setns.argtypes = [ctypes.c_int, ctypes.c_int]
_mount = _libc.mount
_mount.argtypes = [_text, _text, _text, ctypes.c_ulong, _text]
_umount2 = _libc.umount2
_umount2.argtypes = [_text, ctypes.c_int]
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_tee = _libc.tee
_tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
_tee.restype = ctypes.c_ssize_t
_sethostname = _libc.sethostname
_sethostname.argtypes = [_text, ctypes.c_size_t]
_fstatfs = _libc.fstatfs
_fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]
_setdomainname = _libc.setdomainname
_setdomainname.argtypes = [_text, ctypes.c_size_t]

# Once: a new array type costs 0.1 ms.
_PathBuffer = ctypes.c_char * 4096

Path = str | bytes


def machine() -> str:
    """The kernel's name of this architecture: x86_64, aarch64, ..."""
    return os.uname().machine


_numbers: dict[str, int] = {**_EVERYWHERE, **_NUMBERS.get(machine(), {})}


def _fail(name: str, path: Path | None = None) -> OSError:
    number = ctypes.get_errno()
    return failure(name, number, path)


def failure(name: str, number: int, path: Path | None = None) -> OSError:
    """An OSError for errno `number` that names the call that failed, and the path it was about."""
    place = f" {os.fsdecode(path)}" if path else ""
    return OSError(number, f"{name}{place}: {os.strerror(number)}")


def _declare(name: str, *types: type) -> None:
    """A prototype of its own for each call: with one, ctypes converts plain values by itself."""
    function = _libc["syscall"]
    function.restype = _long
    function.argtypes = (_long, *types)
    _functions[name] = (_numbers.get(name, -1), function)


_functions: dict[str, tuple[int, ctypes._FuncPointer]] = {}
_declare("rt_sigaction", _long, _text, _text, _long)
_declare("pivot_root", _text, _text)
_declare("getcwd", ctypes.c_void_p, _long)
_declare("capset", _text, _text)
_declare("keyctl", _long, _text)
_declare("seccomp", _long, _long, _text)
_declare("open_tree", _long, _text, _long)
_declare("move_mount", _long, _text, _long, _text, _long)
_declare("fsopen", _text, _long)
_declare("fsconfig", _long, _long, _text, _text, _long)
_declare("fsmount", _long, _long, _long)
_declare("close_range", _long, _long, _long)
_declare("openat2", _long, _text, _text, _long)
_declare("mount_setattr", _long, _text, _long, _text, _long)


def _invoke(name: str, *arguments: object, path: Path | None = None) -> int:
    """syscall(2) by name."""
    number, function = _functions[name]
    if number < 0:
        raise failure(name, errno.ENOSYS)
    result = int(function(number, *arguments))
    if result < 0:
        raise _fail(name, path)
    return result


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2)); NEWPID takes effect for its children."""
    if _unshare(flags) != 0:
        raise _fail("unshare")


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace behind `fd`, or, when `fd` is a pidfd, all those named by the CLONE_NEW* bits."""
    if _setns(fd, nstype) != 0:
        raise _fail("setns")


def mount(
    source: Path | None,
    target: Path,
    fstype: str | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """mount(2). Where a path can be hostile give "/proc/self/fd/N" of a descriptor from openat2, or "."."""
    done = _mount(
        os.fsencode(source) if source is not None else None,
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        os.fsencode(data) if data else None,
    )
    if done != 0:
        raise _fail(f"mount {fstype}" if fstype else "mount", target)


def umount(target: Path, flags: int = 0) -> None:
    """umount2(2)."""
    if _umount2(os.fsencode(target), flags) != 0:
        raise _fail("umount", target)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """pivot_root(2). With (".", ".") the old root lands on top of the new one, to be detached at once."""
    _invoke("pivot_root", os.fsencode(new_root), os.fsencode(put_old), path=new_root)


def openat2(dirfd: int, path: Path, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` below `dirfd` (openat2(2)) and return the descriptor, always close-on-exec.

    By default `dirfd` counts as "/": links and ".." cannot lead out of it. RESOLVE_NO_MAGICLINKS is
    always added: no path out of a container may go through /proc/PID/fd.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    while True:
        try:
            return _invoke("openat2", dirfd, name, how, len(how), path=path)
        except OSError as error:
            # EAGAIN: a rename or mount elsewhere raced with ".." (openat2(2)); the call is to be repeated.
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise


def open_tree(dirfd: int, path: Path, flags: int = OPEN_TREE_CLOEXEC) -> int:
    """A descriptor of a mount; with OPEN_TREE_CLONE of a detached copy of it."""
    flags |= OPEN_TREE_CLOEXEC
    return _invoke("open_tree", dirfd, os.fsencode(path), flags, path=path)


def move_mount(
    from_fd: int, to_fd: int, *, from_path: Path = "", to_path: Path = "", beneath: bool = False
) -> None:
    """Attach the mount behind `from_fd` at the place behind `to_fd`: no path is resolved unless given.

    `beneath`: below what is mounted there, which goes on covering it (Linux 6.5; EINVAL before).
    """
    extra = MOVE_MOUNT_BENEATH if beneath else 0
    flags = (0 if from_path else MOVE_MOUNT_F_EMPTY_PATH) | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    source, target = os.fsencode(from_path), os.fsencode(to_path)
    _invoke("move_mount", from_fd, source, to_fd, target, flags | extra)


def mount_setattr(
    fd: int,
    *,
    flags: int = AT_EMPTY_PATH,
    add: int = 0,
    remove: int = 0,
    userns_fd: int = 0,
    propagation: int = 0,
) -> None:
    """Change the attributes (MOUNT_ATTR_*) of the mount behind `fd`; AT_RECURSIVE takes those below along."""
    attributes = struct.pack("QQQQ", add, remove, propagation, userns_fd)
    size = len(attributes)
    _invoke("mount_setattr", fd, b"", flags | AT_EMPTY_PATH, attributes, size)


def fsopen(fstype: str) -> int:
    """A configuration descriptor for a new filesystem of that type (fsopen(2))."""
    return _invoke("fsopen", fstype.encode(), FSOPEN_CLOEXEC, path=fstype)


def fsconfig(fd: int, key: str, value: str | None = None) -> None:
    """Set an option: a string, or a flag when there is no value. The kernel's own words join the error."""
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    text = os.fsencode(value) if value is not None else None
    try:
        _invoke("fsconfig", fd, command, key.encode(), text, 0)
    except OSError as error:
        raise _explained(fd, f"fsconfig {key}", error) from None


def fsmount(fd: int, attributes: int = 0) -> int:
    """Create the configured filesystem and return a descriptor of its detached mount."""
    try:
        _invoke("fsconfig", fd, FSCONFIG_CMD_CREATE, None, None, 0)
        return _invoke("fsmount", fd, FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        raise _explained(fd, "fsmount", error) from None


def _explained(fd: int, name: str, error: OSError) -> OSError:
    """The error with what the kernel wrote to the log of the fs descriptor ("e overlay: ...")."""
    number = error.errno or 0
    try:
        said = os.read(fd, 1024).decode("utf-8", "replace").strip()[2:]
    except OSError:
        return failure(name, number)
    return OSError(number, f"{name}: {os.strerror(number)} ({said})")


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """prctl(2) with integer arguments."""
    result = int(_prctl(option, second, third, fourth, fifth))
    if result < 0:
        raise _fail("prctl")
    return result


def reset_signal(number: int) -> None:
    """SIG_DFL by the raw rt_sigaction(2): also for 32 and 33, which the C library keeps for itself.

    Its posix_spawn(3) starts programs with those two ignored, and what is ignored stays so over execve.
    """
    _invoke("rt_sigaction", number, bytes(32), None, 8)


def set_name(name: str) -> None:
    """The name of this process as `ps` shows it, at most 15 bytes (PR_SET_NAME)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set three of the five capability sets of this process, each a bit mask (capset(2))."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    words = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in (effective, permitted, inheritable)]
    _invoke("capset", header, struct.pack("6I", *words))


def namespace_type(fd: int) -> int:
    """The CLONE_NEW* bit of the namespace behind `fd` (NS_GET_NSTYPE, ioctl_ns(2))."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        raise failure("namespace_type", error.errno or 0) from None


def load_seccomp(program: bytes, flags: int = 0) -> int:
    """Filter this process's calls with a compiled classic BPF program (array of struct sock_filter).

    With SECCOMP_FILTER_FLAG_NEW_LISTENER it returns the listener's descriptor, close-on-exec.
    """
    if not program or len(program) % 8:
        raise failure("seccomp", errno.EINVAL)
    code = ctypes.cast(_text(program), ctypes.c_void_p)
    head = struct.pack("HxxxxxxP", len(program) // 8, code.value)
    return _invoke("seccomp", SECCOMP_SET_MODE_FILTER, flags, head)


def close_range(first: int, last: int = 0x7FFFFFFF, flags: int = 0) -> None:
    """Close a range of descriptors, or mark them close-on-exec (CLOSE_RANGE_CLOEXEC)."""
    _invoke("close_range", first, last, flags)


def join_session_keyring() -> None:
    """A new, anonymous session keyring, so that containers don't share the caller's."""
    _invoke("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)


def getcwd() -> str:
    """The raw getcwd(2): starts with "(unreachable)" when the directory lies outside the root."""
    buffer = _PathBuffer()
    _invoke("getcwd", buffer, len(buffer))
    return os.fsdecode(buffer.value)


def tee(source: int, target: int, length: int) -> int:
    """Copy up to `length` bytes from one pipe to another; the first still holds them (tee(2)).

    Never waits: raises BlockingIOError when there is nothing to copy or no room for it.
    """
    copied = int(_tee(source, target, length, _SPLICE_F_NONBLOCK))
    if copied < 0:
        raise _fail("tee")
    return copied


def sethostname(name: str) -> None:
    """The host name of this uts namespace, at most 64 bytes."""
    raw = os.fsencode(name)
    if _sethostname(raw, len(raw)) != 0:
        raise _fail("sethostname")


def setdomainname(name: str) -> None:
    """The NIS domain name of this uts namespace."""
    raw = os.fsencode(name)
    if _setdomainname(raw, len(raw)) != 0:
        raise _fail("setdomainname")


def filesystem_type(fd: int) -> int:
    """The magic number of the filesystem that a descriptor, O_PATH as well, is on (fstatfs(2))."""
    buffer = _PathBuffer()
    if _fstatfs(fd, buffer) != 0:
        raise _fail("fstatfs")
    return int(struct.unpack_from("l", buffer)[0]) & 0xFFFFFFFF


def pidfd_open(pid: int) -> int:
    """A descriptor that stays with this very process (pidfd_open(2)), close-on-exec."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise failure("pidfd_open", error.errno or 0) from None


def pidfd_pid(fd: int) -> int:
    """The number of the process behind a pidfd, in our pid namespace. ESRCH when it was reaped."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Pid:") and int(line[4:]) > 0:
                return int(line[4:])
    raise failure("pidfd_pid", errno.ESRCH)


def pidfd_send_signal(fd: int, signal_number: int) -> None:
    """Signal the process behind a pidfd: never another one that got its number. ESRCH once it was reaped."""
    try:
        _signal.pidfd_send_signal(fd, signal_number)
    except OSError as error:
        raise failure("pidfd_send_signal", error.errno or 0) from None


def pidfd_exit_status(fd: int) -> int | None:
    """The wait status (see os.waitstatus_to_exitcode) of a process that was reaped, by whomever.

    None while it runs or is a zombie, on a kernel before 6.15, and when the kernel has no record. It can
    be asked again and again, by any process (PIDFD_GET_INFO with PIDFD_INFO_EXIT).
    """
    record = bytearray(_PIDFD_INFO_SIZE)
    struct.pack_into("Q", record, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, record)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.ENOTTY, errno.EINVAL, errno.EREMOTE):
            return None
        raise failure("pidfd_exit_status", error.errno or 0) from None
    if not struct.unpack_from("Q", record, 0)[0] & _PIDFD_INFO_EXIT:
        return None
    return int(struct.unpack_from("i", record, _PIDFD_EXIT_CODE_OFFSET)[0])
