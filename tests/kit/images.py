"""Real images for the suite, made on this machine from Debian packages: no registry, no second download.

    busybox:1                                          the applets of busybox-static, passwd, group
    nginx:debian redis:debian postgres:debian python:debian    what examples/10-shop runs

A root filesystem is extracted from packages that apt resolves and downloads (their maintainer scripts don't
run: each recipe writes the few files that those would have made), kept in a cache outside the repository
under a key of its recipe and the exact package versions, and given to `pystack import`.

    python -m tests.kit.images             import all into pystack's own store
    python -m tests.kit.images busybox     only this one
    python -m tests.kit.images --root DIR  into the store of another state root
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.programs import program

FORMAT = 3
"""Part of every key: raise it when this file makes something else from the same recipe."""

_APT_LISTS = Path("/var/lib/apt/lists")
MERGED = ("bin", "sbin", "lib", "lib64")
_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
_BASE = ("libc-bin", "dash", "coreutils", "sed", "grep", "base-files", "base-passwd")
_MAINTENANCE = frozenset(
    "adduser debconf dpkg init-system-helpers iproute2 libsemanage-common libsemanage2 libsepol2 locales "
    "lsb-base openssl perl perl-base sensible-utils ssl-cert sysvinit-utils tar ucf usrmerge".split()
)
"""What only maintainer scripts use, which never run here; and perl, which only they are written in."""
_PERL = re.compile(r"lib.*-perl|libperl.*|perl-modules.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A file of the image that no package brings."""

    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A directory of the image that belongs to `owner` (a name in the image's passwd)."""

    owner: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an image is made. `changes` are Dockerfile instructions for its run defaults."""

    reference: str
    packages: tuple[str, ...]
    without: tuple[str, ...] = ()
    users: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Text] = field(default_factory=dict)
    folders: Mapping[str, Folder] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    """Link -> what it points to; a pattern is replaced by the one path of the root that fits it."""
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.reference.partition(":")[0]


_POSTGRES_ENTRYPOINT = """\
#!/bin/sh
# On an empty data directory: make the cluster and the database. Then become the server.
set -eu
: "${PGDATA:=/var/lib/postgresql/data}" "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi
if [ "${1:-}" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?a password for the superuser is required}"
    umask 077
    rm -rf "$PGDATA"/* "$PGDATA.password"
    printf '%s\\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password --encoding=UTF8 \\
        --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 --no-instructions
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | postgres --single -D "$PGDATA" postgres > /dev/null
    fi
    echo "database $POSTGRES_DB is made"
fi
unset POSTGRES_PASSWORD
export PGDATA
exec "$@"
"""

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            reference="busybox:1",
            packages=("busybox-static",),
            files={
                "etc/passwd": Text(
                    text="root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
                    "nobody:x:65534:65534:nobody:/:/bin/false\n"
                ),
                "etc/group": Text(
                    text="root:x:0:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:nobody\nnogroup:x:65534:\n"
                ),
            },
            folders={"tmp": Folder(owner="root", mode=0o1777), "root": Folder(owner="root", mode=0o700)},
            changes=('CMD ["sh"]', "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ),
        Recipe(
            reference="nginx:debian",
            packages=("nginx-light", *_BASE),
            folders={"var/lib/nginx": Folder(owner="www-data"), "var/log/nginx": Folder(owner="www-data")},
            links={"var/log/nginx/access.log": "/dev/stdout", "var/log/nginx/error.log": "/dev/stderr"},
            changes=('CMD ["nginx", "-g", "daemon off;"]', "EXPOSE 80", "STOPSIGNAL SIGQUIT"),
        ),
        Recipe(
            reference="redis:debian",
            packages=("redis-server", *_BASE),
            users={"redis": 999},
            folders={"data": Folder(owner="redis")},
            changes=(
                "USER redis",
                "WORKDIR /data",
                "VOLUME /data",
                "EXPOSE 6379",
                'CMD ["redis-server", "--protected-mode", "no"]',
            ),
        ),
        Recipe(
            reference="postgres:debian",
            packages=("postgresql", *_BASE),
            # The planner's just-in-time compiler is optional and half of the size.
            without=("libllvm14", "libllvm15", "libllvm17", "libllvm18", "libllvm19", "libz3-4"),
            users={"postgres": 999},
            files={"usr/local/bin/entrypoint": Text(text=_POSTGRES_ENTRYPOINT, mode=0o755)},
            folders={
                "var/lib/postgresql": Folder(owner="postgres"),
                "var/lib/postgresql/data": Folder(owner="postgres", mode=0o700),
                "var/run/postgresql": Folder(owner="postgres", mode=0o3777),
            },
            links={
                f"usr/local/bin/{program}": f"usr/lib/postgresql/*/bin/{program}"
                for program in ("initdb", "pg_isready", "postgres", "psql")
            },
            changes=(
                "USER postgres",
                "ENV PGDATA=/var/lib/postgresql/data",
                "VOLUME /var/lib/postgresql/data",
                "EXPOSE 5432",
                # Fast shutdown; TERM would wait for clients (PostgreSQL manual, "Shutting Down the Server").
                "STOPSIGNAL SIGINT",
                'ENTRYPOINT ["entrypoint"]',
                'CMD ["postgres", "-c", "listen_addresses=*"]',
            ),
        ),
        Recipe(
            reference="python:debian",
            packages=("python3", "python3-psycopg2", "python3-redis", *_BASE),
            users={"app": 999},
            changes=("ENV PYTHONUNBUFFERED=1", 'CMD ["python3"]'),
        ),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the images of the examples and import them.")
    parser.add_argument("names", nargs="*", choices=[[], *RECIPES], help="which ones (all)")
    parser.add_argument("--root", help="pystack's state root")
    parser.add_argument("--no-import", action="store_true", help="only fill the cache")
    options = parser.parse_args(arguments)
    for name in options.names or RECIPES:
        begun = time.monotonic()
        if options.no_import:
            done = f"is at {rootfs(name)}"
        else:
            install(name, root=options.root)
            done = "is imported"
        print(f"{RECIPES[name].reference} {done} ({time.monotonic() - begun:.1f} s)", flush=True)
    return 0


def install(name: str, *, root: str | Path | None = None) -> str:
    """Import the image into the store of the state root `root`; its reference. Raises CalledProcessError."""
    recipe = RECIPES[name]
    command = program()
    if root is not None:
        command += ["--root", str(root)]
    command += ["import"]
    for change in recipe.changes:
        command += ["--change", change]
    run([*command, str(rootfs(name)), recipe.reference])
    return recipe.reference


def rootfs(name: str) -> Path:
    """The root filesystem of an image, made now if the cache has none. Read it, never write to it."""
    recipe = RECIPES[name]
    home = cache()
    with locked(home / "lock"):
        chosen = resolved(recipe, home)
        path = home / "rootfs" / f"{name}-{digest_of(FORMAT, repr(recipe), chosen)[:16]}"
        if not path.exists():
            for stale in path.parent.glob(f"{name}-*"):
                shutil.rmtree(stale)
            _make(recipe, downloaded(chosen, home / "packages"), path)
        return path


def cache() -> Path:
    """Where root filesystems are kept: $PYSTACK_TEST_CACHE, or below the user's cache directory."""
    chosen = os.environ.get("PYSTACK_TEST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(chosen) if chosen else Path(base) / "pystack-tests"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


# --- packages ---------------------------------------------------------------------------------------------


def resolved(recipe: Recipe, home: Path, *, status: Path | None = None) -> list[str]:
    """`name=version` of all packages of the recipe, as apt resolves them for an empty machine.

    `status`: dpkg's list of what the machine has already.
    """
    if not list(_APT_LISTS.glob("*_Packages*")):
        run(["apt-get", "update", "-qq"])
    lists = sorted((path.name, path.stat().st_mtime_ns) for path in _APT_LISTS.glob("*_Packages*"))
    kind = recipe.name if status is None else f"{recipe.name}-on-{status.parent.name}"
    remembered = home / "resolved" / f"{kind}-{digest_of(FORMAT, repr(recipe), lists)[:16]}.json"
    if remembered.exists():
        return [str(row) for row in json.loads(remembered.read_text())]
    empty = home / "empty"
    empty.touch()
    options = ["-o", f"Dir::State::status={status or empty}", "--no-install-recommends"]
    output = run(["apt-get", *options, "--simulate", "install", *recipe.packages])
    rows = re.findall(r"^Inst (\S+) \((\S+)", output, re.MULTILINE)
    left_out = _MAINTENANCE.union(recipe.without)
    chosen = sorted(
        f"{name}={version}" for name, version in rows if name not in left_out and not _PERL.fullmatch(name)
    )
    remembered.parent.mkdir(exist_ok=True)
    for stale in remembered.parent.glob(f"{kind}-{'?' * 16}.json"):
        stale.unlink()
    remembered.write_text(json.dumps(chosen))
    return chosen


def downloaded(chosen: Sequence[str], folder: Path) -> list[Path]:
    """The archives of the packages, downloaded where the cache lacks them."""
    folder.mkdir(exist_ok=True)
    missing = [row for row in chosen if _archive(row, folder) is None]
    if missing:
        # The sandbox user of apt can't write here, which it would say in a warning for each package.
        run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *missing], cwd=folder)
    archives = [_archive(row, folder) for row in chosen]
    assert None not in archives, f"not downloaded: {missing}"
    return [path for path in archives if path is not None]


def _archive(row: str, folder: Path) -> Path | None:
    name, _, version = row.partition("=")
    found = sorted(folder.glob(f"{name.split(':')[0]}_{version.replace(':', '%3a')}_*.deb"))
    return found[0] if found else None


# --- root filesystems -------------------------------------------------------------------------------------


def _make(recipe: Recipe, archives: Sequence[Path], path: Path) -> None:
    """Build beside `path`, then rename: a half-made root is never taken for a whole one."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    merge(partial)
    for archive in archives:
        extract(archive, partial)
    if recipe.name == "busybox":
        run([str(partial / "bin/busybox"), "--install", "-s", str(partial / "bin")])
        _relink(partial / "bin", partial)
    _write_accounts(recipe, partial)
    for name in ("tmp", "var/tmp"):
        (partial / name).mkdir(parents=True, exist_ok=True)
        (partial / name).chmod(0o1777)
    furnish(recipe, partial)
    partial.rename(path)


def merge(root: Path) -> None:
    """A new root, in which /bin and its like are links into /usr."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")


def furnish(recipe: Recipe, partial: Path) -> None:
    """What maintainer scripts would have made: files, directories and links of the recipe."""
    for name, file in recipe.files.items():
        target = _inside(partial, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.text)
        target.chmod(file.mode)
    for name, folder in recipe.folders.items():
        _make_folder(_inside(partial, name), folder, recipe)
    for name, aim in recipe.links.items():
        _link(partial, name, aim)


def _inside(root: Path, name: str) -> Path:
    """A path of the image. An absolute link in a package must not lead to this machine's own files."""
    path = root / name
    assert path.parent.resolve().is_relative_to(root.resolve()), f"{name} leads out of the image"
    return path


def extract(archive: Path, root: Path) -> None:
    excludes = [f"--exclude=./{name}" for name in _LEFT_OUT]
    unpacked = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE)
    assert unpacked.stdout is not None
    # Packages still name /bin and /lib, which are links since /usr was merged.
    run(["tar", "-x", "-C", str(root), "--keep-directory-symlink", *excludes], stdin=unpacked.stdout.fileno())
    unpacked.stdout.close()
    assert unpacked.wait() == 0, f"{archive} can't be unpacked"


def _relink(folder: Path, root: Path) -> None:
    """busybox --install -s makes links to where it was called from; inside it is /bin/busybox."""
    for link in folder.iterdir():
        if link.is_symlink() and os.readlink(link).startswith(str(root)):
            link.unlink()
            link.symlink_to("/bin/busybox")


def _write_accounts(recipe: Recipe, root: Path) -> None:
    """What base-passwd's and the services' scripts would have made."""
    masters = root / "usr/share/base-passwd"
    (root / "etc").mkdir(exist_ok=True)
    for name in ("passwd", "group"):
        if (masters / f"{name}.master").exists():
            text = (masters / f"{name}.master").read_text().replace(":*:", ":x:")
            for user, number in recipe.users.items():
                text += (
                    f"{user}:x:{number}:{number}::/:/bin/sh\n"
                    if name == "passwd"
                    else f"{user}:x:{number}:\n"
                )
            (root / "etc" / name).write_text(text)


def _make_folder(path: Path, folder: Folder, recipe: Recipe) -> None:
    known = {"root": 0, "www-data": 33, **recipe.users}
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, known[folder.owner], known[folder.owner])
    path.chmod(folder.mode)


def _link(root: Path, name: str, aim: str) -> None:
    if "*" in aim:
        (found,) = root.glob(aim)
        aim = f"/{found.relative_to(root)}"
    link = _inside(root, name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(aim)


# --- small parts ------------------------------------------------------------------------------------------


def digest_of(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Two test sessions at once make an image once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    environ: Mapping[str, str] | None = None,
) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdin=stdin, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)[:200]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
