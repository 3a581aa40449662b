"""Plans that are kept in a file: `plan --out` writes one, `up --plan` does what it says, or nothing.

The file holds the stack as it was resolved, with the values of its secrets: only its owner may read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from orchestrator.api import client
from orchestrator.cli import change
from orchestrator.cli.wish import Wish
from orchestrator.model import codec
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.stack import Stack

FORMAT = 1
SIZE_LIMIT = 64 << 20
OPTIONS = ("services", "wanted", "force_recreate", "no_recreate", "no_deps", "remove_orphans", "repair")
"""Of a request for a plan: what `up` has to be asked with for the same."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope


def save(path: str, request: Message, told: Message) -> None:
    """Write a plan, in place of what was there. Raises UserError."""
    temporary = f"{path}.new-{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
                json.dump(document(request, told), file, indent=1)
                file.write("\n")
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UserError(f"can't write the plan: {error.strerror}: {path}") from None


def document(request: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a plan (schemas/plan.json). Pure."""
    whole = {
        "format": FORMAT,
        "stack": request["stack"],
        "options": {name: request[name] for name in OPTIONS},
        "base": told["base"],
        "steps": told["steps"],
    }
    return {**whole, "sum": _sum(whole)}


def _sum(whole: Mapping[str, Any]) -> str:
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: str) -> dict[str, Any]:
    """A kept plan. Raises UserError for a file that is none, or was changed."""
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise UserError(f"there is no plan {path}", exit_code=ExitCode.FILE_NOT_FOUND) from None
    except OSError as error:
        raise UserError(f"can't read the plan: {error.strerror}: {path}") from None
    try:
        found = json.loads(data.decode("utf-8", "surrogateescape")) if len(data) <= SIZE_LIMIT else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise UserError(f"{path} is no plan", hint="`pystack plan --out FILE` writes one")
    if found["format"] > FORMAT:
        raise UserError(f"{path} was written by a newer pystack (format {found['format']})")
    whole = {key: value for key, value in found.items() if key != "sum"}
    if set(whole) != {"format", "stack", "options", "base", "steps"} or found.get("sum") != _sum(whole):
        raise UserError(f"{path} is damaged, or was changed by hand", hint="make the plan anew")
    return found


def _stack(found: Mapping[str, Any], path: str) -> Stack:
    """The stack of a plan that whoever wrote it has given a right sum. Raises UserError."""
    options, services = found["options"], None
    if isinstance(options, dict) and set(options) == set(OPTIONS):
        services = options["services"]
    try:
        if not isinstance(services, list) or not all(isinstance(name, str) for name in services):
            raise codec.CodecError("its options are none")
        steps = found["steps"]
        if not isinstance(steps, list) or not all(
            isinstance(step, dict) and isinstance(step.get("verb"), str) for step in steps
        ):
            raise codec.CodecError("its steps are none")
        return codec.decode(Stack, found["stack"])
    except codec.CodecError as error:
        raise UserError(f"{path} can't be understood: {error}", hint="make the plan anew") from None


def follow(scope: Scope, path: str, request: Message, wish: Wish, others: tuple[object, ...]) -> int:
    """Do what a kept plan says, unless the machine or what is wanted has changed meanwhile.

    `others`: options that would change what is done, which the plan has said already. Raises UserError.
    """
    from orchestrator.cli.attach import Session
    from orchestrator.model.images import kept

    if any(others) or any(request[name] for name in OPTIONS if name not in ("wanted", "repair")):
        raise change.usage(
            "--plan says already which services, and how", "options that show and wait may go with it"
        )
    found = read(path)
    stack = _stack(found, path)
    if (said := scope.said_name()) and said != stack.name:
        raise UserError(f"the plan is one of stack {stack.name}, not of {said}", exit_code=ExitCode.USAGE)
    request |= found["options"]
    request["stack"] = found["stack"]
    request["plan"] = {"base": found["base"], "steps": found["steps"]}
    request["environment"] = kept(os.environ)
    wish.services = tuple(found["options"]["services"])
    started = client.begin_supervisor(scope.paths)
    if started is not None:
        started.wait()
    if os.geteuid() != 0 and any(step["verb"] == "pull" for step in found["steps"]):
        _fetch(scope, stack, request, wish)
    return Session(scope, stack, request, wish).run()


def _fetch(scope: Scope, stack: Stack, request: Message, wish: Wish) -> None:
    """An ordinary user's supervisor reaches no registry: what the plan pulls is fetched here, once it
    is known to fit, and the request is for the rest. Raises UserError if anything else has moved by then."""
    from orchestrator.cli.ahead import fetch
    from orchestrator.cli.attach import involved

    question = {**request, "verb": "plan", "down": False}
    client.call(scope.paths, question)
    ready = fetch(scope, stack, involved(stack, wish), quiet=bool(request["quiet_pull"]))
    request["stack"] = codec.encode(ready)
    told = client.call(scope.paths, {**question, "stack": request["stack"], "plan": None})
    if _done(told["steps"]) != _done(request["plan"]["steps"]):
        raise UserError(
            "the plan does not fit any more: something has changed while its images were fetched",
            exit_code=ExitCode.CONFLICT,
            hint="nothing but that was done; make the plan anew",
        )
    request["plan"] = {"base": told["base"], "steps": told["steps"]}


def _done(steps: list[dict[str, str]]) -> set[tuple[str, str]]:
    """What is done to what, but for what is fetched, and what is asked while others wait for that. Pure."""
    return {(one["target"], one["verb"]) for one in steps if one["verb"] not in ("pull", "probe")}
