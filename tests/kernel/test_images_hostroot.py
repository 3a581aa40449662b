"""The root made of the host's own programs: complete enough to work, and without a secret."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from orchestrator.images import hostroot
from orchestrator.images.hostroot import HostTree
from tests.kit.archives import tree_of

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]

KEY = b"-----BEGIN RSA PRIVATE KEY-----\nabc\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A small machine with secrets in all the wrong places."""
    top = tmp_path / "host"
    files = {
        "etc/passwd": b"root:$6$hash:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/sh\n",
        "etc/group": b"root:!hash:0:\n",
        "etc/shadow": b"root:$6$secret\n",
        "etc/ssh/ssh_host_rsa_key": KEY,
        "etc/ssl/certs/ca.pem": b"-----BEGIN CERTIFICATE-----\n",
        "etc/ssl/certs/mixed.pem": b"-----BEGIN CERTIFICATE-----\n" + KEY,
        "etc/ssl/certs/server.key": b"secret",
        "etc/ssl/private/key.pem": KEY,
        "etc/ssl/openssl.cnf": b"conf",
        "etc/ssl/unreadable.cnf": b"secret",
        "etc/java/keystore-password.conf": b"secret",
        "etc/python3.11/sitecustomize.py": b"",
        "etc/krb5.keytab": b"secret",
        "etc/environment": b"TOKEN=secret\n",
        "etc/pip.conf": b"index-url=https://user:secret@host/\n",
        "etc/default/locale": b"LANG=C.UTF-8\n",
        "etc/default/service": b"PASSWORD=secret\n",
        "etc/ld.so.cache": b"cache",
        "root/.ssh/id_rsa": KEY,
        "home/user/token": b"secret",
        "var/lib/state": b"secret",
        "usr/bin/tool": b"tool",
        "bin/real": b"x",
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "etc/ssl/unreadable.cnf").chmod(0o640)
    (top / "etc/ssl/hidden").mkdir(mode=0o711)
    (top / "etc/ssl/hidden/x").write_bytes(b"secret")
    (top / "etc/ssl/certs/link.pem").symlink_to("/usr/share/ca.crt")
    (top / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    os.mkfifo(top / "etc/ssl/certs/fifo")
    (top / "lib").symlink_to("usr/lib")
    return top


def skeleton(tree: HostTree) -> Path:
    return tree.overlays[0].lowers[0]


def contents(top: Path) -> bytes:
    return b"\n".join(
        path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file() and not path.is_symlink()
    )


def test_what_programs_need_is_there_and_no_secret(host: Path, tmp_path: Path) -> None:
    root = skeleton(hostroot.build(tmp_path / "made", host=host))
    etc = {str(path.relative_to(root / "etc")) for path in (root / "etc").rglob("*") if not path.is_dir()}
    assert etc == {
        *(
            "passwd",
            "group",
            "ssl/certs/ca.pem",
            "ssl/certs/link.pem",
            "ssl/openssl.cnf",
            "localtime",
            "ld.so.cache",
        ),
        *(
            "python3.11/sitecustomize.py",
            "default/locale",
            "nsswitch.conf",
            "hosts",
            "hostname",
            "resolv.conf",
            "mtab",
        ),
    }
    everything = contents(root)
    for word in (b"secret", b"hash", b"PRIVATE KEY"):
        assert word not in everything
    assert (root / "etc/passwd").read_bytes().startswith(b"root:x:0:0:root:/root:/bin/bash\n")
    assert (root / "etc/localtime").readlink() == Path("/usr/share/zoneinfo/UTC")


def test_the_directories_are_empty_and_of_the_right_mode(host: Path, tmp_path: Path) -> None:
    root = skeleton(hostroot.build(tmp_path / "made", host=host))
    modes = {
        "tmp": 0o1777,
        "var/tmp": 0o1777,
        "root": 0o700,
        "home": 0o755,
        "proc": 0o555,
        "run/lock": 0o1777,
    }
    for name, mode in {**modes, "": 0o755, "usr": 0o755, "dev": 0o755}.items():
        assert stat.S_IMODE((root / name).stat().st_mode) == mode, name
    for name in ("tmp", "var/tmp", "root", "home", "proc", "sys", "dev", "usr", "opt", "var/lib", "bin"):
        assert os.listdir(root / name) == [], name
    assert (root / "var/run").readlink() == Path("/run")


def test_links_stay_links_and_a_real_bin_is_an_overlay_of_its_own(host: Path, tmp_path: Path) -> None:
    made = hostroot.build(tmp_path / "made", host=host)
    assert (skeleton(made) / "lib").readlink() == Path("usr/lib")
    assert [(one.target, one.lowers) for one in made.overlays[1:]] == [
        ("usr", (host / "usr",)),
        ("bin", (host / "bin",)),
    ]


def test_it_is_built_once_and_anew_when_the_host_has_changed(host: Path, tmp_path: Path) -> None:
    first = hostroot.build(tmp_path / "made", host=host)
    before = skeleton(first).stat().st_ino
    assert hostroot.build(tmp_path / "made", host=host) == first
    assert skeleton(first).stat().st_ino == before
    (host / "etc/passwd").write_text("new:x:1:1::/:/bin/sh\n")
    second = hostroot.build(tmp_path / "made", host=host)
    assert second.key != first.key
    assert (skeleton(second) / "etc/passwd").read_text().startswith("new")
    # A container may still stand on the old one.
    assert skeleton(first).is_dir()


def test_builders_at_once_and_a_killed_one_do_no_harm(host: Path, tmp_path: Path) -> None:
    (tmp_path / "made" / "tmp" / "abandoned" / "root").mkdir(parents=True)
    results: list[HostTree] = []
    threads = [
        threading.Thread(target=lambda: results.append(hostroot.build(tmp_path / "made", host=host)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(results) == 4
    assert sorted(os.listdir(tmp_path / "made")) == sorted([results[0].key, "lock", "tmp"])
    assert os.listdir(tmp_path / "made" / "tmp") == []


def test_this_machines_own_root_has_none_of_its_secrets(tmp_path: Path) -> None:
    root = skeleton(hostroot.build(tmp_path / "made"))
    found = tree_of(root)
    names = {Path(name).name for name in found}
    assert not names & {
        "shadow",
        "gshadow",
        "shadow-",
        "gshadow-",
        "sudoers",
        "ssh",
        "private",
        ".ssh",
        "machine-id",
    }
    assert b"PRIVATE KEY" not in contents(root)
    assert not os.listdir(root / "root")
    assert not os.listdir(root / "home")
    etc = Path("/etc")
    for name, row in found.items():
        mode = row[0]
        assert isinstance(mode, int)
        if name.startswith("etc/") and stat.S_ISREG(mode):
            source = etc / name[4:]
            assert not source.is_file() or source.stat().st_mode & stat.S_IROTH, name
            assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), name


def test_programs_of_the_host_run_in_it(tmp_path: Path) -> None:
    """Assembled much as the engine does it: names of users, a shell, libraries, certificates, time zone."""
    made = hostroot.build(tmp_path / "made")
    root = tmp_path / "root"
    root.mkdir()
    lines = [f"mkdir {tmp_path}/upper {tmp_path}/rw && mount -t tmpfs none {tmp_path}/rw"]
    for number, overlay in enumerate(made.overlays):
        rw = f"{tmp_path}/rw/{number}"
        options = f"lowerdir={':'.join(map(str, overlay.lowers))},upperdir={rw}/upper,workdir={rw}/work"
        lines.append(
            f"mkdir -p {rw}/upper {rw}/work && mount -t overlay none -o {options} {root}/{overlay.target}"
        )
    program = (
        "import ssl, pwd; print(pwd.getpwuid(0).pw_name, bool(ssl.create_default_context().get_ca_certs()))"
    )
    lines.append(
        f"chroot {root} /bin/sh -c 'id -un; ls -A /home /root; touch /usr/bin/new /etc/new; date +%Z'"
    )
    lines.append(f'chroot {root} /usr/bin/python3 -c "{program}"')
    done = subprocess.run(["unshare", "-m", "sh", "-ec", "\n".join(lines)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "root"
    assert "/home:\n\n/root:\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "root True"
    assert not Path("/usr/bin/new").exists()
    assert not (skeleton(made) / "etc/new").exists()
