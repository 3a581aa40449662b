"""The emulated machine's disk, made once and kept: Debian, its cloud kernel, and what the tests import.

Everything it is made from stands in this file and in the dependencies of pyproject.toml: their digest is the
name under which it is kept, so a change makes a new one. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    # The machine; systemd is there in both variants and runs in one.
    "systemd systemd-sysv dbus tini kmod busybox-static util-linux procps "
    # What we and our tests call.
    "python3 nftables iptables iproute2 bind9-dnsutils curl openssl libseccomp2 runc crun strace "
    "gcc libc6-dev uidmap passt slirp4netns passwd podman conmon jq xz-utils zstd pigz "
    "qemu-user-static ca-certificates docker-registry skopeo"
).split()
TESTING = (
    "pytest",
    "pytest-timeout",
    "pytest-trio",
    "pytest-xdist",
    "hypothesis",
    "bcrypt",
    "pyjwt",
    "trustme",
)
"""Of the development dependencies: what the tests inside import."""
DISK = "6G"  # sparse
KEPT = 3
"""Disks of different recipes: other clones of the repository may be at another commit."""
DRIVERS = ("virtio_pci", "virtio_blk")
"""What the kernel needs to see its disk; the file system is built in."""


def prepare(cache: Path) -> Path:
    """The directory with vmlinuz, initrd and root.ext4 for this recipe."""
    cache.mkdir(parents=True, exist_ok=True)
    wheels = _wheels()
    recipe = [*wheels, Path(__file__).read_text()]
    machine = cache / hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not machine.exists():
            draft = cache / "draft"
            kept = sorted(
                (path for path in cache.glob("*/") if path != draft), key=lambda path: path.stat().st_mtime
            )
            for old in (draft, *kept[: 1 - KEPT]):
                shutil.rmtree(old, ignore_errors=True)
            draft.mkdir()
            _build(draft, wheels)
            draft.rename(machine)
    return machine


def _wheels() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["dev"]
    named = re.compile(rf"({'|'.join(TESTING)})\b(?!-)")
    return [*project["dependencies"], *(wheel for wheel in extra if named.match(wheel))]


def _build(draft: Path, wheels: Sequence[str]) -> None:
    begun = time.monotonic()
    say("building the disk; it is kept for the next time")
    root = draft / "root"
    fetch = f"""set -e; cd "$1"
        name=$(APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-cache depends {KERNEL} | sed -n 's/ *Depends: //p' | grep linux-image)
        APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -o APT::Sandbox::User=root download "$name"
        dpkg-deb -x linux-image*.deb kernel
        mv kernel/lib/modules usr/lib/modules; mv kernel/boot/vmlinuz-* boot/; rm -r kernel linux-image*.deb
        chroot . depmod "$(ls usr/lib/modules)" """
    _run(
        "nice",
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=apt",
        f"--include={','.join(PACKAGES)}",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--customize-hook={fetch}",
        SUITE,
        str(root),
    )
    _run("chroot", str(root), "python3", "-m", "venv", "--without-pip", "/opt/venv")
    site = next((root / "opt/venv/lib").glob("python3*/site-packages"))
    version = site.parent.name.removeprefix("python")
    _run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--target",
        str(site),
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={version}",
        "--platform=manylinux_2_17_x86_64",
        "--platform=manylinux2014_x86_64",
        "--platform=manylinux_2_28_x86_64",
        *wheels,
    )
    (site / "pystack.pth").write_text("/work/pystack\n")
    script = root / "opt/venv/bin/pystack"
    script.write_text(
        "#!/opt/venv/bin/python\nimport sys\nfrom orchestrator.__main__ import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    _run(
        "chroot",
        str(root),
        "/opt/venv/bin/python",
        "-m",
        "compileall",
        "-q",
        "/opt/venv/lib",
        "/usr/lib/python3",
        f"/usr/lib/python{version}",
    )
    (root / "work").mkdir()
    (root / "etc/hostname").write_text("machine\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost machine\n::1 localhost\n")
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, draft / "vmlinuz")
    (draft / "initrd").write_bytes(_initrd(root))
    shutil.rmtree(root / "boot")
    _run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1",
        "-d",
        str(root),
        str(draft / "root.ext4"),
        DISK,
    )
    shutil.rmtree(root)
    say(f"built in {time.monotonic() - begun:.0f} s")


_INITRD = """#!/bin/busybox sh
# From the memory disk to the real one, with this session's repository unpacked into it.
/bin/busybox mkdir -p /proc /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for driver in DRIVERS; do /bin/busybox insmod "/$driver" || exec /bin/busybox poweroff -f; done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox tar -x -f /dev/vdb -C /root || exec /bin/busybox poweroff -f
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /work/init
"""


def _initrd(root: Path) -> bytes:
    """A cpio archive (newc) with busybox and the drivers of the disk."""
    busybox = next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())
    drivers = _drivers(root)
    files = [
        ("bin", 0o040755, b""),
        ("bin/busybox", 0o100755, busybox.read_bytes()),
        ("init", 0o100755, _INITRD.replace("DRIVERS", " ".join(path.name for path in drivers)).encode()),
        *((path.name, 0o100644, path.read_bytes()) for path in drivers),
        ("TRAILER!!!", 0, b""),
    ]
    return b"".join(_entry(number, *file) for number, file in enumerate(files, 1))


def _drivers(root: Path) -> list[Path]:
    """The modules of DRIVERS and what they need, in the order of loading (modules.dep(5): nearest first)."""
    (modules,) = (root / "usr/lib/modules").iterdir()
    needs = {
        Path(name).stem: [name, *rest.split()]
        for name, _, rest in (
            line.partition(":") for line in (modules / "modules.dep").read_text().splitlines()
        )
    }
    order = dict.fromkeys(name for driver in DRIVERS for name in reversed(needs[driver]))
    return [modules / name for name in order]


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One file as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % value for value in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"tests/vm/run: {shlex.join(command[:6])} ... ended with {done.returncode}")


def say(text: str) -> None:
    print(f"tests/vm/run: {text}", flush=True)
