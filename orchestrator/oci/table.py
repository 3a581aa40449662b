"""The commands of `pystack-oci` and their options, by runc's names, as conmon and podman use them."""

from __future__ import annotations

from orchestrator.oci.arguments import HELP, Command, Option

COMMON = (
    Option(("root",), "text", "where the state of containers is kept"),
    Option(("log",), "text", "write errors and warnings to this file too"),
    Option(("log-format",), "text", "of the log: text or json", ("text", "json")),
    Option(("debug",), "", "also log what is done"),
    Option(("systemd-cgroup",), "", "control groups through systemd: refused, see docs/oci.md"),
    Option(
        ("cgroup-manager",), "text", "cgroupfs, or disabled for none", ("cgroupfs", "systemd", "disabled")
    ),
    Option(
        ("rootless",),
        "text",
        "whether control groups may be missing: true, false, auto",
        ("true", "false", "auto"),
    ),
    Option(("version", "v"), "", "show the version"),
    HELP,
)

_BUNDLE = Option(("bundle", "b"), "text", "directory with config.json, else the current one")
_CONFIG = Option(("config", "f"), "text", "another file than config.json")
_CONSOLE = Option(("console-socket",), "text", "Unix socket that is sent the master of the terminal")
_PID_FILE = Option(("pid-file",), "text", "write the process id to this file")
_PRESERVE = Option(("preserve-fds",), "number", "leave so many more descriptors open, from 3 on")
_CREATE = (
    _BUNDLE,
    _CONFIG,
    _CONSOLE,
    _PID_FILE,
    _PRESERVE,
    Option(("no-pivot",), "", "change the root without pivot_root(2), for a root on an initramfs"),
    Option(("no-new-keyring",), "", "keep the caller's session keyring"),
)
_DETACH = Option(("detach", "d"), "", "do not wait for the end")
_ID = "the id of a container"
_FORMAT = Option(("format", "f"), "text", "table or json", ("table", "json"))

COMMANDS = {
    "create": Command("create:create", "build a container that waits for start", _ID, 1, 1, _CREATE),
    "start": Command("start:start", "run the program of a created container", _ID, 1, 1),
    "run": Command(
        "run:run",
        "create, start, wait and delete",
        _ID,
        1,
        1,
        (*_CREATE, _DETACH, Option(("keep",), "", "do not delete it at the end")),
    ),
    "kill": Command(
        "kill:kill",
        "send a signal (TERM) to the first process",
        f"{_ID}, and perhaps a signal",
        1,
        2,
        (
            Option(("all", "a"), "", "to every process of the container"),
            Option(("signal", "s"), "text", "the signal, instead of a second word"),
        ),
    ),
    "delete": Command(
        "delete:delete",
        "take away a stopped container",
        _ID,
        1,
        1,
        (Option(("force", "f"), "", "kill it first; one that is not there is no error"),),
    ),
    "state": Command("state:state", "what a container is, as JSON", _ID, 1, 1),
    "exec": Command(
        "execute:execute",
        "run another program in a running container",
        f"{_ID} and a command (or --process)",
        1,
        None,
        (
            _CONSOLE,
            Option(("cwd",), "text", "working directory"),
            Option(("env", "e"), "texts", "NAME=VALUE"),
            Option(("tty", "t"), "", "give it a terminal"),
            Option(("user", "u"), "text", "UID[:GID]"),
            Option(("additional-gids", "g"), "texts", "further groups, by number"),
            Option(("process", "p"), "text", "file with OCI's `process` instead of a command"),
            _DETACH,
            _PID_FILE,
            Option(("process-label",), "text", "SELinux label"),
            Option(("apparmor",), "text", "AppArmor profile"),
            Option(("no-new-privs",), "", "no privileges by set-user-id programs"),
            Option(("cap", "c"), "texts", "add a capability"),
            _PRESERVE,
            Option(("cgroup",), "texts", "run in a group below the container's"),
            Option(("ignore-paused",), "", "also when the container is paused: waits until it is resumed"),
        ),
        strict=True,
    ),
    "ps": Command(
        "processes:processes",
        "the processes of a container",
        f"{_ID}, and perhaps options of ps(1)",
        1,
        None,
        (_FORMAT,),
        strict=True,
    ),
    "update": Command(
        "update:update",
        "change the limits of a container",
        _ID,
        1,
        1,
        (
            Option(("resources", "r"), "text", "JSON file with OCI's linux.resources, - for standard input"),
            Option(("blkio-weight",), "number", "share of block IO, 10 to 1000"),
            Option(("cpu-period",), "number", "microseconds"),
            Option(("cpu-quota",), "number", "microseconds of CPU time a period"),
            Option(("cpu-burst",), "number", "microseconds that may be saved up"),
            Option(("cpu-share", "cpu-shares"), "number", "relative weight"),
            Option(("cpu-rt-period",), "number", "microseconds, realtime"),
            Option(("cpu-rt-runtime",), "number", "microseconds, realtime"),
            Option(("cpu-idle",), "number", "1: run only when nobody else wants to"),
            Option(("cpuset-cpus",), "text", "which CPUs, such as 0-2,4"),
            Option(("cpuset-mems",), "text", "which memory nodes"),
            Option(("memory",), "text", "bytes"),
            Option(("memory-reservation",), "text", "bytes"),
            Option(("memory-swap",), "text", "bytes of memory and swap together, -1 for any"),
            Option(("kernel-memory",), "text", "refused: kernels have it no more"),
            Option(("kernel-memory-tcp",), "text", "bytes, v1 only"),
            Option(("pids-limit",), "number", "processes, -1 for any number"),
        ),
    ),
    "pause": Command("pause:pause", "freeze every process", _ID, 1, 1),
    "resume": Command("pause:resume", "let them go on", _ID, 1, 1),
    "list": Command(
        "state:list_all",
        "the containers below --root",
        "",
        0,
        0,
        (_FORMAT, Option(("quiet", "q"), "", "ids only")),
    ),
    "events": Command(
        "events:events",
        "usage figures and out-of-memory events as JSON lines",
        _ID,
        1,
        1,
        (
            Option(("interval",), "text", "time between figures: 5s, 500ms, 1m"),
            Option(("stats",), "", "one line of figures, then leave"),
        ),
    ),
    "features": Command("features:features", "what this runtime can do, as JSON", "", 0, 0),
    # Commands of runc that we don't have, and why.
    "checkpoint": Command(
        "refuse:refuse", "refused: checkpoints need CRIU, which we don't drive", "", 0, None
    ),
    "restore": Command("refuse:refuse", "refused: checkpoints need CRIU, which we don't drive", "", 0, None),
    "spec": Command(
        "spec:spec",
        "write a config.json to begin with",
        "",
        0,
        0,
        (_BUNDLE, Option(("rootless",), "", "for an ordinary user")),
    ),
}
