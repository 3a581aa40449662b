"""An ordinary user, who has no privilege, at a registry: in, up, down again, out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.ordinary import Ordinary
from tests.kit.registries import Registry, fresh

pytestmark = pytest.mark.kernel


@pytest.fixture
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("o")


def test_an_ordinary_user_logs_in_pushes_looks_and_logs_out(
    state_root: Path, token_registry: Registry
) -> None:
    assert token_registry.tokens
    host, path = token_registry.host, fresh()
    name = token_registry.name(f"{path}:1")
    with Ordinary(state_root, uid=4747) as user:
        user.pystack("import", str(user.box), name)
        refused = user.pystack("push", name, exit_code=6)
        assert f"`pystack login {host}`" in refused.stderr
        user.pystack("login", "-u", "ann", "--password-stdin", host, stdin="secret\n")
        config = user.home / ".docker/config.json"
        assert (config.stat().st_uid, config.stat().st_mode & 0o777) == (4747, 0o600)
        said = user.pystack("push", name).stdout.splitlines()
        assert said[1].endswith(": Pushed")
        assert f"digest: {token_registry.digest(f'{path}:1')}" in said[-1]
        assert path in user.pystack("search", "--list-tags", token_registry.name(path)).stdout
        user.pystack("rmi", name)
        user.pystack("pull", name)
        user.pystack("logout", host)
        assert json.loads(config.read_text())["auths"] == {}


def test_what_an_ordinary_user_s_stack_lacks_is_fetched_by_up_and_run_and_for_a_kept_plan(
    state_root: Path, open_registry: Registry
) -> None:
    """The supervisor, in a network of its own, could not."""
    name, other = (open_registry.name(f"{fresh()}:1") for _ in range(2))
    with Ordinary(state_root, uid=4748) as user:
        for one in (name, other):
            user.pystack("import", str(user.box), one)
            user.pystack("push", "-q", one)
            user.pystack("rmi", one)
        file = user.home / "stack.yml"
        file.write_text(
            f"name: s\nservices:\n  a: {{image: {name}, command: sleep 99, stop_grace_period: 0s}}\n"
            f"  b: {{image: {other}, command: echo hello, scale: 0}}\n"
            f"  c: {{image: {open_registry.name('no/such:1')}, profiles: [x]}}\n"
        )
        user.pystack("-f", str(file), "up", "-d")
        assert "Up" in user.pystack("-f", str(file), "ps").stdout
        user.pystack("rmi", other, exit_code=None)
        assert user.pystack("-f", str(file), "run", "--rm", "-T", "b").stdout.endswith("hello\n")
        refused = user.pystack("-f", str(file), "--profile", "x", "up", "-d", exit_code=6)
        assert "no/such" in refused.stderr
        user.pystack("-f", str(file), "down")

        plan = str(user.home / "plan.json")
        user.pystack("rmi", name)
        user.pystack("-f", str(file), "plan", "--out", plan, exit_code=2)
        user.pystack("-f", str(file), "up", "-d", "b")
        moved = user.pystack("up", "-d", "--plan", plan, exit_code=7)
        assert "the plan does not fit any more: the stack was changed since" in moved.stderr
        assert name not in user.pystack("images").stdout, "fetched for what is not done"
        user.pystack("-f", str(file), "down")
        user.pystack("up", "-d", "--plan", plan)
        assert "Up" in user.pystack("-f", str(file), "ps").stdout
        user.pystack("-f", str(file), "down")
