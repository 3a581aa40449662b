"""One performer for each step of expect.yml (schemas/expect.json); each raises AssertionError."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.kit import leaks
from tests.kit.patience import patient
from tests.kit.programs import REPOSITORY, Pystack, free_port

Details = dict[str, Any]
_TRY_AGAIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One folder of examples/ with its expectations; `ports` are chosen anew for each run."""

    folder: Path
    steps: Sequence[Mapping[str, Details]]
    ports: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[str] = ()

    @property
    def stack(self) -> Path:
        return self.folder / "stack.yml"

    def with_ports(self, text: str) -> str:
        """The text with the ports of this run in place of the default ones."""
        numbers = {str(default): str(self.ports[name]) for name, default in self.defaults.items()}
        return re.sub(r"\d+", lambda found: numbers.get(found[0], found[0]), text) if numbers else text

    def variables(self) -> dict[str, str]:
        return {**self.environment, **{name: str(port) for name, port in self.ports.items()}}


@dataclass(slots=True, kw_only=True)
class Scene:
    """A run of an example: where it runs, and what a browser would remember."""

    example: Example
    pystack: Pystack
    before: leaks.Look
    browser: urllib.request.OpenerDirector = field(
        default_factory=lambda: urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )
    )


def load(folder: Path) -> Example:
    """Read expect.yml, checked against its schema, with free ports. Raises jsonschema.ValidationError."""
    data = yaml.safe_load((folder / "expect.yml").read_text())
    schema = json.loads((REPOSITORY / "schemas/expect.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    defaults = data.get("ports", {})
    ports = {name: free_port(socket.SOCK_DGRAM if "UDP" in name else socket.SOCK_STREAM) for name in defaults}
    return Example(
        folder=folder,
        steps=data["steps"],
        ports=ports,
        defaults=defaults,
        environment=data.get("environment", {}),
        images=data.get("images", ()),
    )


def perform(scene: Scene, step: Mapping[str, Details]) -> None:
    """One step, with the ports of this run."""
    (verb, details), *_ = step.items()
    ready = json.loads(scene.example.with_ports(json.dumps(details or {})))
    VERBS[verb](scene, ready)


# --- the verbs --------------------------------------------------------------------------------------------


def up(scene: Scene, details: Details) -> None:
    ids = {row["ID"] for row in scene.pystack.containers()} if details.get("unchanged") else None
    ran = scene.pystack.run("up", "-d", *details.get("arguments", ()), exit_code=details.get("exit_code", 0))
    _find(details.get("contains", ()), str(ran))
    assert ran.seconds <= patient(details.get("within", 60)), f"too slow\n{ran}"
    if ids is not None:
        assert {row["ID"] for row in scene.pystack.containers()} == ids, f"containers were replaced\n{ran}"


def down(scene: Scene, details: Details) -> None:
    ran = scene.pystack.run("down", *(["--volumes"] if details.get("volumes") else []))
    assert ran.seconds <= patient(details.get("within", 60)), f"too slow\n{ran}"
    remains = leaks.left(scene.before, leaks.Root(path=scene.pystack.root))
    assert not remains, "down leaves:\n  " + "\n  ".join(remains) + f"\n{ran}\n{scene.pystack.story()}"


def plan(scene: Scene, details: Details) -> None:
    _find(details["contains"], str(scene.pystack.run("plan", exit_code=2)))


def ps(scene: Scene, details: Details) -> None:
    def check() -> None:
        rows = scene.pystack.containers()
        for service, wanted in details.items():
            if service == "within":
                continue
            states = [row["State"] for row in rows if row["Service"] == service]
            if isinstance(wanted, int):
                assert states.count("running") == wanted, f"{service}: {states}, not {wanted} running"
            else:
                assert states, f"{service} has no container"
                assert set(states) == {wanted}, f"{service}: {states}, not {wanted}"

    _until(details.get("within", 0), check, scene)


def get(scene: Scene, details: Details) -> None:
    _until(details.get("within", 0), lambda: _request(scene, details, None), scene)


def post(scene: Scene, details: Details) -> None:
    form = urllib.parse.urlencode(details.get("form", {})).encode()
    _until(details.get("within", 0), lambda: _request(scene, details, form), scene)


def _request(scene: Scene, details: Details, form: bytes | None) -> None:
    url = details["url"]
    try:
        with scene.browser.open(url, data=form, timeout=patient(5)) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            status, text = refusal.code, refusal.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        if not details.get("broken"):
            raise AssertionError(f"{url}: {error!r}") from None
        return
    assert not details.get("broken"), f"{url} answers {status}: {text}"
    assert status == details.get("status", 200), f"{url} answers {status}: {text[:1000]}"
    _find(details.get("contains", ()), text)


def udp(scene: Scene, details: Details) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patient(2))
        client.connect(("127.0.0.1", details["port"]))
        client.send(details["send"].encode())
        _find(details["contains"], client.recv(65535).decode())


def exec_(scene: Scene, details: Details) -> None:
    ran = scene.pystack.run("exec", details["service"], *details["command"], exit_code=None)
    assert ran.exit_code == details.get("exit_code", 0), (
        f"unexpected exit code\n{ran}\n{scene.pystack.story()}"
    )
    _find(details.get("contains", ()), ran.stdout + ran.stderr)
    if "matches" in details:
        assert re.fullmatch(details["matches"], ran.stdout.strip()), f"not {details['matches']}\n{ran}"


def logs(scene: Scene, details: Details) -> None:
    def check() -> None:
        _find(details["contains"], str(scene.pystack.run("logs", details["service"])))

    # What a process has written a moment ago may still be on its way through the pump.
    _until(details.get("within", 2), check, scene)


def exit_code(scene: Scene, details: Details) -> None:
    codes = [row["ExitCode"] for row in scene.pystack.containers(details["service"])]
    assert codes == [details["code"]], f"{details['service']} ended with {codes}"


def kill(scene: Scene, details: Details) -> None:
    row = _row(scene, details)
    killed = row["Pid"]
    assert killed > 1, f"{row['Name']} has no process"
    os.kill(killed, signal.SIGKILL)
    within = details.get("within")

    def gone() -> None:
        assert _row(scene, details)["Pid"] != killed, f"{row['Name']} is still the killed run"

    def back() -> None:
        gone()
        new = _row(scene, details)
        assert new["State"] == "running", f"{row['Name']} is {new['Status']}: {new['Because']}"
        if details.get("then") == "healthy":
            assert new["Health"] == "healthy", f"{row['Name']} is {new['Status']}"

    _until(within or 5, back if within else gone, scene)


def _row(scene: Scene, details: Details) -> dict[str, Any]:
    rows = scene.pystack.containers(details["service"])
    name = f"-{details.get('index', 1)}"
    (row,) = [row for row in rows if row["Name"].endswith(name)]
    return row


def _order(verb: str) -> Callable[[Scene, Details], None]:
    def order(scene: Scene, details: Details) -> None:
        scene.pystack.run(verb, *([details["service"]] if "service" in details else []))

    return order


VERBS: Mapping[str, Callable[[Scene, Details], None]] = {
    "up": up,
    "down": down,
    "plan": plan,
    "ps": ps,
    "get": get,
    "post": post,
    "udp": udp,
    "exec": exec_,
    "logs": logs,
    "exit_code": exit_code,
    "kill": kill,
    "stop": _order("stop"),
    "start": _order("start"),
    "restart": _order("restart"),
}

# --- small parts ------------------------------------------------------------------------------------------


def _find(wanted: str | Sequence[str], text: str) -> None:
    for part in [wanted] if isinstance(wanted, str) else wanted:
        assert part in text, f"{part!r} is not in:\n{text[-3000:]}"


def _until(within: float, check: Callable[[], None], scene: Scene) -> None:
    """Try again until it holds or time is up; then the last failure stands, with what our servers say."""
    deadline = time.monotonic() + patient(within)
    while True:
        with contextlib.suppress(AssertionError):
            check()
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(_TRY_AGAIN)
    try:
        check()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{scene.pystack.story()}") from None
