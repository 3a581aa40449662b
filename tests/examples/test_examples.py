"""Every example runs as its expect.yml says, and its README tells the truth."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.examples import readme, steps
from tests.kit import images, leaks
from tests.kit.patience import patient
from tests.kit.programs import REPOSITORY, Pystack

FOLDERS = sorted(path.parent for path in (REPOSITORY / "examples").glob("*/stack.yml"))
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(400)]
each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@each
def test_it_does_what_it_is_said_to_do(folder: Path, state_root: Path) -> None:
    with playing(folder, state_root) as scene:
        for number, step in enumerate(scene.example.steps, 1):
            begun = time.monotonic()
            try:
                steps.perform(scene, step)
            except AssertionError as error:
                pytest.fail(f"{folder.name}, step {number}: {step}\n{error}", pytrace=False)
            print(f"{time.monotonic() - begun:6.2f} s  {step}")
        assert "down" in scene.example.steps[-1]


@each
def test_its_readme_tells_the_truth(folder: Path, state_root: Path) -> None:
    told = list(readme.commands((folder / "README.md").read_text()))
    assert len(told) >= 3, "a README shows at least up, a look, and down"
    with playing(folder, state_root) as scene:
        # From the repository's root, with the file named, as a reader would type it.
        shell = Pystack(root=state_root, directory=REPOSITORY, environment=scene.pystack.environment)
        for row in told:
            command = scene.example.with_ports(row.command)
            # What a reader is told to wait is right for a machine of today.
            command = re.sub(r"\bsleep (\d+)", lambda told: f"sleep {patient(int(told[1])):g}", command)
            ran = shell.shell(f"exec 2>&1; {command}", exit_code=None)
            expected = scene.example.with_ports(row.output)
            if not readme.agrees(expected, ran.stdout):
                pytest.fail(
                    f"{folder.name}/README.md, line {row.line}: {row.command}\n--- it tells\n{expected}"
                    f"\n--- it is\n{ran}\n{shell.story()}",
                    pytrace=False,
                )
        remains = leaks.left(scene.before, leaks.Root(path=state_root))
        assert not remains, "the last command leaves:\n  " + "\n  ".join(remains)


@contextmanager
def playing(folder: Path, root: Path) -> Iterator[steps.Scene]:
    """The example on an empty state root, which is emptied again whatever happens."""
    example = steps.load(folder)
    if example.images and "PYSTACK_TEST_OFFLINE" in os.environ:
        pytest.skip("its images are made of Debian packages, which a machine without a network can't fetch")
    before = leaks.look(leaks.Root(path=root))
    for name in example.images:
        images.install(name, root=root)
    pystack = Pystack(root=root, directory=folder, environment=example.variables())
    scene = steps.Scene(example=example, pystack=pystack, before=before)
    try:
        yield scene
    except BaseException:
        pystack.abandon()
        raise
    finally:
        shutil.rmtree(root / "data", ignore_errors=True)
