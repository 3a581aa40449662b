"""What we push others pull, and the other way round, with equal digests: skopeo, podman, Docker."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.docker import Docker
from tests.kit import trees
from tests.kit.archives import Entry, Image, digest, layer
from tests.kit.patience import patient
from tests.kit.programs import Pystack
from tests.kit.registries import Registry, fresh

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("state_root"),
    pytest.mark.skipif(os.geteuid() != 0, reason="podman and Docker as root"),
]

LAYERS = (
    layer(Entry("./"), Entry("etc/"), Entry("etc/motd", b"hello")),
    layer(Entry("etc/"), Entry("etc/two", b"2")),
)


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ways")


@pytest.fixture
def pystack(state_root: Path) -> Pystack:
    return Pystack(root=state_root, directory=state_root, environment={"HOME": str(state_root)})


@pytest.fixture
def ours(pystack: Pystack, open_registry: Registry, tmp_path: Path) -> str:
    """An image that was made and pushed here; REPOSITORY:TAG."""
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "root/bin/tool").write_bytes(os.urandom(3000))
    (tmp_path / "root/bin/tool").chmod(0o4755)
    name = f"{fresh('ours')}:1"
    pystack.run("import", "--change", 'CMD ["/bin/tool"]', str(tmp_path / "root"), open_registry.name(name))
    pystack.run("push", open_registry.name(name))
    return name


def inspected(registry: Registry, name: str) -> dict[str, object]:
    found = json.loads(
        registry.skopeo("inspect", "--no-tags", *registry.flags(), f"docker://{registry.name(name)}")
    )
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_what_skopeo_pushed_we_pull_and_push_on_byte_by_byte(
    pystack: Pystack, open_registry: Registry, secure_registry: Registry, tmp_path: Path, form: str
) -> None:
    """To a second registry, with TLS and a password; from there skopeo pulls it, and checks every digest."""
    name = f"{fresh('theirs')}:1"
    pushed = open_registry.seed(name, Image(LAYERS, {"Cmd": ["x", form]}), oci=form == "oci")
    assert pushed in pystack.run("pull", open_registry.name(name)).stdout
    pystack.run("tag", open_registry.name(name), secure_registry.name(name))
    user, password = secure_registry.account or ("", "")
    assert secure_registry.authority
    there = {**pystack.environment, "SSL_CERT_FILE": str(secure_registry.authority.ca)}
    other = Pystack(root=pystack.root, directory=pystack.directory, environment=there)
    other.run("login", "-u", user, "--password-stdin", secure_registry.host, stdin=password)
    assert pushed in other.run("push", secure_registry.name(name)).stdout
    assert inspected(secure_registry, name)["Digest"] == pushed
    source = [
        "--src-cert-dir",
        str(secure_registry.authority.ca.parent / "certs.d"),
        "--src-creds",
        f"{user}:{password}",
    ]
    secure_registry.skopeo("copy", *source, f"docker://{secure_registry.name(name)}", f"dir:{tmp_path}/out")
    assert digest((tmp_path / "out/manifest.json").read_bytes()) == pushed


def test_what_we_push_skopeo_pulls_with_the_digest_that_we_told(
    pystack: Pystack, open_registry: Registry, ours: str, tmp_path: Path
) -> None:
    found = inspected(open_registry, ours)
    assert str(found["Digest"]) in pystack.run("images", "--digests", "--no-trunc").stdout
    target = f"oci:{tmp_path}/out:x"
    open_registry.skopeo("copy", *open_registry.flags("src"), f"docker://{open_registry.name(ours)}", target)
    index = json.loads((tmp_path / "out/index.json").read_bytes())
    assert index["manifests"][0]["digest"] == found["Digest"]


def test_podman_pulls_what_we_push(open_registry: Registry, ours: str) -> None:
    # Its paths may not be longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as short:
        places = ["--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
        command = ["podman", *places, "pull", "--quiet", "--tls-verify=false", open_registry.name(ours)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patient(60))
    assert done.returncode == 0, done.stderr
    config = str(open_registry.manifest(ours)["config"]["digest"])
    assert done.stdout.strip() == config.removeprefix("sha256:")


@pytest.fixture
def docker() -> Iterator[Docker]:
    if trees.no_docker():
        pytest.skip(trees.no_docker())
    with trees.dockerd() as found:
        yield found


def test_docker_pulls_what_we_push(
    open_registry: Registry, ours: str, docker: Docker, tmp_path: Path
) -> None:
    """Docker has a network of its own here, so a second door to the same registry stands in that."""
    data = json.loads((open_registry.folder / "config.json").read_text())
    data["http"]["addr"] = f"127.0.0.1:{open_registry.port}"
    (tmp_path / "config.json").write_text(json.dumps(data))
    enter = ["nsenter", f"--net=/proc/{docker.pid}/ns/net"]
    with subprocess.Popen(
        [*enter, "docker-registry", "serve", str(tmp_path / "config.json")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as door:
        try:
            repository, _, tag = ours.rpartition(":")
            for _ in range(100):
                look = ["curl", "-sf", "--noproxy", "*", f"http://localhost:{open_registry.port}/v2/"]
                if subprocess.run([*enter, *look], capture_output=True).returncode == 0:
                    break
            docker.request("POST", f"/images/create?fromImage={open_registry.name(repository)}&tag={tag}")
            found = docker.request("GET", f"/images/{open_registry.name(ours)}/json")
        finally:
            door.kill()
    assert isinstance(found, dict)
    assert found["Id"] == open_registry.manifest(ours)["config"]["digest"]
    assert found["RepoDigests"] == [f"{open_registry.name(repository)}@{open_registry.digest(ours)}"]
