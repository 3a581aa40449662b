"""`resume` and `systemd`: stacks that come back when the machine does. Units are pure text."""

from __future__ import annotations

import os
import sys

from orchestrator.api import client
from orchestrator.cli import say
from orchestrator.model.errors import ExitCode, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope

TIMEOUT = 600.0
"""Seconds, unless said: a unit must not hold up a boot for ever."""
_BOOTED = "/run/systemd/system"  # sd_booted(3)


def resume(scope: Scope, *, stacks: tuple[str, ...], timeout: float | None) -> int:
    """Bring back what was wanted before the machine was restarted, in order, as `restart:` says.

    1: something of it can't be done, or did not come up in time.
    """
    seconds = TIMEOUT if timeout is None else timeout
    told = client.ask(scope.paths, {"verb": "resume", "stacks": stacks, "timeout": seconds})
    if told is None:
        if stacks:
            raise UserError(f"no such stack: {stacks[0]}", hint="`pystack ls -a` lists those there are")
        say.out("Nothing to resume.\n")
        return 0
    say.out("".join(line(row) for row in told["containers"]))
    for sentence in told["left"]:
        say.warning(say.printable(sentence))
    return 1 if told["left"] else 0


def line(row: Message) -> str:
    """One container: its name and how it stands. Pure."""
    return f"{say.printable(row['name'])}  {row['status']}\n"


# --- units -----------------------------------------------------------------------------------------


def install(scope: Scope, *, user: bool, print_only: bool) -> int:
    """Write a unit that resumes this stack when the machine starts, and enable it."""
    name = scope.name()
    text = unit(name, resume_command(scope, name), user=user)
    if print_only:
        say.out(text)
        return 0
    path = place(name, os.environ, user=user)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, text)
    except PermissionError:
        raise UserError(
            f"{path}: permission denied", exit_code=ExitCode.NOT_PERMITTED, hint="as root, or with --user"
        ) from None
    say.out(f"{path} written\n")
    _systemctl(user, ("daemon-reload",), ("enable", os.path.basename(path)))
    if user:
        say.out("`loginctl enable-linger` lets it start without a login\n")
    return 0


def uninstall(scope: Scope, *, user: bool) -> int:
    """Take the stack's unit away again; the stack goes on."""
    path = place(scope.name(), os.environ, user=user)
    if not os.path.exists(path):
        raise UserError(f"{path} is not there", hint="`pystack systemd install` writes it")
    _systemctl(user, ("disable", os.path.basename(path)))
    try:
        os.unlink(path)
    except PermissionError:
        raise UserError(f"{path}: permission denied", exit_code=ExitCode.NOT_PERMITTED) from None
    _systemctl(user, ("daemon-reload",))
    say.out(f"{path} removed\n")
    return 0


def resume_command(scope: Scope, name: str) -> tuple[str, ...]:
    """The words that a unit runs: this very program, with the state root in use."""
    program: tuple[str, ...] = (sys.executable, "-m", "orchestrator")
    if os.path.basename(sys.argv[0]) == "pystack":
        program = (os.path.realpath(sys.argv[0]),)
    root = () if scope.paths.default else ("--root", os.path.dirname(scope.paths.run_dir))
    return (*program, *root, "resume", name)


def place(name: str, environ: os._Environ[str] | dict[str, str], *, user: bool) -> str:
    """Where a stack's unit stands (systemd.unit(5), Unit File Load Path)."""
    file = f"pystack-{name}.service"
    if not user:
        return f"/etc/systemd/system/{file}"
    base = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "systemd", "user", file)


def unit(name: str, command: Sequence[str], *, user: bool) -> str:
    """The unit's text. Pure. The supervisor and the containers live in a scope of their own, so the service
    only has to say that they are wanted (systemd.service(5), Type=oneshot)."""
    words = " ".join(_quoted(word) for word in command)
    wanted = "default.target" if user else "multi-user.target"
    network = "" if user else "Wants=network-online.target\nAfter=network-online.target local-fs.target\n"
    return (
        f"[Unit]\nDescription=Containers of the stack {name} (pystack)\n{network}"
        f"\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec={int(TIMEOUT) + 60}\n"
        f"ExecStart={words}\n\n[Install]\nWantedBy={wanted}\n"
    )


def _quoted(word: str) -> str:
    """As systemd.service(5) reads command lines: quotes for what has blanks, and its own signs doubled."""
    text = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if any(sign in text for sign in " \t\"';"):
        return '"' + text.replace('"', '\\"') + '"'
    return text


def _write(path: str, text: str) -> None:
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def _systemctl(user: bool, *commands: tuple[str, ...]) -> None:
    """Where systemd runs; elsewhere the unit waits for it."""
    if not os.path.isdir(_BOOTED):
        say.out("systemd does not run here: the unit is for a machine where it does\n")
        return
    import subprocess

    for words in commands:
        command = ["systemctl", *(("--user",) if user else ()), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = say.printable(done.stderr.strip().rpartition("\n")[2])
            raise UserError(f"{' '.join(command)}: {said or done.returncode}")
