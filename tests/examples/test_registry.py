"""The shop on a machine with nothing but pystack: its images come from a registry, by name and through a mirror."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.examples import steps
from tests.kit import layered, leaks
from tests.kit.programs import REPOSITORY, Pystack
from tests.kit.registries import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(400)]

BY_NAME = {"postgres:debian": "library/postgres:15", "python:debian": "library/python:3"}
MIRROR = """
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "localhost:{port}"
insecure = true
"""


def test_the_shop_runs_from_a_registry_with_nothing_here(
    open_registry: Registry, state_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """nginx and redis as `nginx:debian` through a mirror of Docker Hub, the others by the registry's own name."""
    pushed = layered.publish(open_registry, "nginx", "redis", "postgres", "python")
    folder = tmp_path_factory.mktemp("shop") / "10-shop"
    shutil.copytree(REPOSITORY / "examples/10-shop", folder)
    text = (folder / "stack.yml").read_text()
    for short, full in BY_NAME.items():
        assert f"image: {short}" in text
        text = text.replace(f"image: {short}", f"image: {open_registry.name(full)}")
    (folder / "stack.yml").write_text(text)
    (folder / "registries.conf").write_text(MIRROR.format(port=open_registry.port))
    example = steps.load(folder)
    environment = {**example.variables(), "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf")}
    before = leaks.look(leaks.Root(path=state_root))
    pystack = Pystack(root=state_root, directory=folder, environment=environment)
    scene = steps.Scene(example=example, pystack=pystack, before=before)
    try:
        # To the first order, and down: the rest is the example's own test.
        for step in [*example.steps[:10], example.steps[-1]]:
            steps.perform(scene, step)
        said = pystack.run("images", "--digests", "--no-trunc").stdout
        for name in ("nginx:debian", "redis:debian", "postgres:15", "python:3"):
            assert pushed[name] in said, said
    except BaseException:
        pystack.abandon()
        raise
    finally:
        shutil.rmtree(state_root / "data", ignore_errors=True)
