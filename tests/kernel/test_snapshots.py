"""What a container has become: diff, commit, export."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from orchestrator.cli import snapshot
from orchestrator.cli.scope import Scope
from orchestrator.images.archives import loading, saving
from orchestrator.images.archives.importing import import_directory
from orchestrator.images.files import delta
from orchestrator.images.store.content import Store
from orchestrator.model.errors import PystackError
from tests.kit.keeper import build_image
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sn")


@pytest.fixture(scope="module")
def base(anchored_site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that docker was asked about."""
    top = build_image(tmp_path_factory.mktemp("base") / "box")
    (top / "opt/keep").mkdir(parents=True)
    for name in ("keep/k", "keep/y", "z"):
        (top / "opt" / name).write_text("x")
    (top / "opt/link").symlink_to("z")
    import_directory(
        Store(anchored_site.places.images), top, "base:1", changes=['CMD ["sleep", "9"]', "ENV A=1"]
    )
    return "base:1"


def scope(site: Site) -> Scope:
    return Scope(root=str(site.root), project_name="s")


def run(
    site: Site, command: object, capfd: pytest.CaptureFixture[str], container: str, **more: object
) -> str:
    capfd.readouterr()
    assert command(scope(site), container=container, index=None, **more) == 0  # type: ignore[operator]
    return capfd.readouterr().out


def commit(
    site: Site, capfd: pytest.CaptureFixture[str], container: str, name: str | None, **more: object
) -> str:
    given = {"author": None, "message": None, "change": (), "pause": True, **more}
    return run(site, snapshot.commit, capfd, container, name=name, **given).strip()


CHANGES = (
    "echo 1 >/new; mkdir -p /a/b; echo 2 > /a/b/c; ln /a/b/c /a/hard; rm /opt/z; rm -rf /opt/keep; mkdir /opt/keep;"
    " echo n >/opt/keep/n; chmod 700 /etc; ln -s x /tmp/l; touch /vol/x; chown 3 /bin/busybox; mv /bin/vi /bin/vj;"
    " mkfifo /a/pipe; touch /home/app; echo own > /secret/own 2>/dev/null; echo made"
)
STACK = f"""
    name: s
    services:
      web:
        image: base:1
        volumes: [/vol, "data:/deep/er/data"]
        configs: [{{source: setting, target: /conf/dir/setting}}]
        tmpfs: [/scratch]
        working_dir: /wd
        environment: {{B: "2"}}
        stop_grace_period: 0s
        command: ["sh", "-c", "{CHANGES}; sleep 1000"]
    volumes: {{data: {{}}}}
    configs: {{setting: {{content: x}}}}
"""
DOCKERS = """
A /a
A /a/b
A /a/b/c
A /a/hard
A /a/pipe
C /bin
C /bin/busybox
D /bin/vi
A /bin/vj
C /etc
C /home
C /home/app
A /new
C /opt
C /opt/keep
D /opt/keep/k
A /opt/keep/n
D /opt/keep/y
D /opt/z
C /tmp
A /tmp/l
A /wd
""".strip()
"""docker diff for the same, sorted, but for the mount point /vol, which it shows."""


@pytest.fixture
def changed(site: Site, base: str) -> Site:
    site.up(STACK)
    site.prints("s", "web", b"made")
    return site


def test_diff_says_what_dockers_does_running_or_not(changed: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """Without what the runtime made: /etc/hosts and its like, mount points and the way to them, /dev, /proc."""
    assert run(changed, snapshot.diff, capfd, "web").splitlines() == DOCKERS.splitlines()
    changed.ask("stop", stack="s", services=["web"], timeout=0)
    assert run(changed, snapshot.diff, capfd, "s-web-1").splitlines() == DOCKERS.splitlines()


def test_a_container_that_has_changed_nothing_differs_in_nothing(
    site: Site, base: str, capfd: pytest.CaptureFixture[str]
) -> None:
    site.up("name: s\nservices: {web: {image: base:1, command: sleep 100, stop_grace_period: 0s}}")
    assert run(site, snapshot.diff, capfd, "web") == ""
    image = commit(site, capfd, "web", "same:1", message="nothing")
    config = Store(site.places.images).config(image)
    assert len(config.diff_ids) == 1, "an empty layer is none"


def test_an_image_of_a_container_runs_as_the_container_was(
    changed: Site, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Files, links, deletions, hidden directories; volumes left out; history, author, instructions; name or none."""
    words = {"author": "me", "message": "why", "change": ('CMD ["sleep", "1000"]', "LABEL x=$B")}
    image = commit(changed, capfd, "web", "made:1", **words)
    store = Store(changed.places.images)
    assert store.demand("made:1").id == image
    config = json.loads(store.blob(image, limit=1 << 20))
    assert config["history"][-1] | {"created": ""} == {
        "created": "",
        "created_by": "sleep 1000",
        "author": "me",
        "comment": "why",
    }
    run_config = config["config"]
    assert run_config["Cmd"] == ["sleep", "1000"]
    assert (set(run_config["Env"]), run_config["Labels"]) == ({"A=1", "B=2"}, {"x": "2"})
    assert (run_config["WorkingDir"], list(run_config["Volumes"])) == ("/wd", ["/vol"])
    assert config["author"] == "me"
    manifest = store.manifest(store.demand(image).manifest)
    blob = store.blob_path(manifest["layers"][-1]["digest"]).read_bytes()
    assert manifest["layers"][-1]["mediaType"].endswith("tar+gzip")
    assert blob[4:8] == bytes(4), "a time in the gzip header"
    with tarfile.open(fileobj=io.BytesIO(blob)) as packed:
        names = {member.name for member in packed}
    assert {"opt/.wh.z", "opt/keep/.wh..wh..opq", "bin/.wh.vi", "a/hard", "a/pipe", "new"} <= names
    assert not [
        name for name in names if name.startswith(("vol", "deep", "conf", "dev", "proc", "etc/h", "scratch"))
    ]
    changed.up("name: s2\nservices: {web: {image: made:1, stop_grace_period: 0s}}")
    said = changed.execute(
        "s2",
        "web",
        "sh",
        "-c",
        "cat /new /a/hard; ls /opt /opt/keep /vol; stat -c %h%u /a/hard /bin/busybox; pwd",
    )
    assert said.split() == "1 2 /opt: keep link /opt/keep: n /vol: 20 13 /wd".split()
    changed.down("s2", remove_volumes=True)
    with open(tmp_path / "saved", "w+b") as file:
        saving.save(store, saving.choose(store, "made:1"), file.fileno())
        file.seek(0)
        (loaded,) = loading.load(Store(tmp_path / "other"), file)
    assert loaded.id == image
    assert Store(tmp_path / "other").demand(image).manifest == store.demand(image).manifest
    nameless = commit(changed, capfd, "web", None)
    assert store.demand(nameless).names == ()
    # Equal changes are one layer; another tool understands what we wrote.
    assert store.config(nameless).diff_ids == store.config(image).diff_ids


def test_a_container_stands_still_while_it_is_committed_and_only_then(
    site: Site, base: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up("name: s\nservices: {web: {image: base:1, command: sleep 100, stop_grace_period: 0s}}")
    seen: list[bool] = []
    compare = delta.compare

    def watched(*words: object) -> object:
        seen.append(site.row("s", "web")["state"] == "paused")
        return compare(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(delta, "compare", watched)
    commit(site, capfd, "web", "p:1")
    commit(site, capfd, "web", "p:2", pause=False)
    assert seen == [True, False]
    until(lambda: site.row("s", "web")["state"] == "running", "it goes on")


def test_export_is_the_root_without_what_is_mounted(
    changed: Site, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for _ in range(2):
        assert run(changed, snapshot.export, capfd, "web", output=str(tmp_path / "out.tar")) == ""
        with tarfile.open(tmp_path / "out.tar") as packed:
            rows = {member.name: member for member in packed}
            assert packed.extractfile("new").read() == b"1\n"  # type: ignore[union-attr]
        assert rows["a/hard"].islnk()
        assert rows["a/hard"].linkname == "a/b/c"
        assert (rows["bin/busybox"].uid, rows["etc"].mode, rows["a/pipe"].isfifo()) == (3, 0o700, True)
        assert rows["vol"].isdir()
        assert not [name for name in rows if name.startswith(("vol/", "proc/", "sys/", "dev/", "scratch/"))]
        assert not {"opt/z", "opt/keep/k", "bin/vi", "."} & set(rows)
        changed.ask("stop", stack="s", services=["web"], timeout=0)
    assert os.listdir(tmp_path) == ["out.tar"]
    done = subprocess.run(["tar", "tf", tmp_path / "out.tar"], capture_output=True, check=True)
    assert done.stderr == b""


def test_what_can_not_be_is_told(
    site: Site, base: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site.up("name: s\nservices: {web: {image: base:1, command: sleep 100, stop_grace_period: 0s}}")
    rows = (
        (snapshot.diff, {"container": "nobody"}, "no such service or container"),
        (snapshot.export, {"container": "web", "output": str(tmp_path / "no/x")}, "does not exist"),
        (snapshot.export, {"container": "web", "output": str(tmp_path)}, "is a directory"),
    )
    for command, words, said in rows:
        with pytest.raises(PystackError, match=said):
            command(scope(site), index=None, **words)  # type: ignore[operator]
    for name, change, said in (
        ("UPPER", (), "."),
        ("x@sha256:" + "0" * 64, (), "digest reference"),
        ("x", ("RUN y",), "not an instruction"),
    ):
        with pytest.raises(PystackError, match=said):
            commit(site, capfd, "web", name, change=change)
    assert os.listdir(tmp_path) == []


def test_without_an_image_all_of_the_root_becomes_one(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    site.up("name: s\nservices: {web: {x-rootfs: {path: $BOX}, command: sleep 100, stop_grace_period: 0s}}")
    site.execute("s", "web", "sh", "-c", "echo 1 > /new; rm /bin/vi")
    image = commit(site, capfd, "web", "flat:1")
    assert len(Store(site.places.images).config(image).diff_ids) == 1
    site.up("name: s2\nservices: {web: {image: flat:1, stop_grace_period: 0s}}")
    assert site.execute(
        "s2", "web", "sh", "-c", "cat /new; ls /bin/vi /proc/self/stat 2>/dev/null; true"
    ) == ("1\n/proc/self/stat\n")
    site.down("s2")


def test_lower_layers_with_deletions_of_their_own(tmp_path: Path, state_root: Path) -> None:
    """What a lower layer deletes or hides is not there to be changed or deleted again."""
    upper, top, bottom = (tmp_path / name for name in ("upper", "top", "bottom"))
    for path in (upper / "d", top / "d", bottom / "d", top / "o", bottom / "o", upper / "o"):
        path.mkdir(parents=True)
    for path in (bottom / "d/gone", bottom / "o/hidden", bottom / "d/kept", top / "o/shown"):
        path.write_text("x")
    for path in (top / "d/gone", upper / "d/kept", upper / "o/hidden", upper / "o/never"):
        os.mknod(path, 0o020000, 0)
    os.setxattr(top / "o", "trusted.overlay.opaque", b"y")
    (upper / "d/gone").write_text("again")
    found = delta.compare(str(upper), [str(top), str(bottom)])
    lines = [f"{change.kind} {change.path.decode()}" for change in found.changes]
    assert [line for line in lines if line.count("/") == 2] == ["A /d/gone", "D /d/kept"]
    os.setxattr(upper / "o", "trusted.overlay.opaque", b"y")
    lines = [
        f"{c.kind} {c.path.decode()}" for c in delta.compare(str(upper), [str(top), str(bottom)]).changes
    ]
    assert "D /o/shown" in lines
    assert "D /o/hidden" not in lines
