"""What a container and a command in it cost: the keeper beside runc and crun, in turn, in one run.

    python benchmarks/launch.py           medians of 60 turns each
    python benchmarks/launch.py --json FILE

Ours is what the engine has done for each container: a network namespace with a veth into a bridge, its
address and route; a control group and its device filter; an overlay; all namespaces; Docker's seccomp
filter, which was compiled once; from the first of it until the keeper tells that `true` has ended. Theirs
is `run` of the same config.json, with the filter in it, its root an overlay that is mounted already, and no
network but an empty namespace.

What lies in /run on an installed system, bundles and records, is on a tmpfs as it is there, for all; layers
are on the disk. The image has /dev, /proc and /sys, as images have: else they are made in each new layer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.measure import Series  # noqa: E402
from orchestrator.kernel import cgroups, links, netns, packets, seccomp  # noqa: E402
from tests.kit.keeper import DOCKER_CAPABILITIES, Machine  # noqa: E402

TURNS = 60
REST = 0.1
"""Seconds before each turn: the kernel takes the namespaces of the one before apart in the background."""
_BRIDGE, _GROUP, _TAG = "pybench0", 0x7E57, "pystack-bench"
_GATEWAY = "10.213.0.1"


class Launcher:
    """A keeper with a bridge, and the peers' bundle."""

    def __init__(self, folder: Path, state: Path, exits: ExitStack) -> None:
        self.route = exits.enter_context(links.open_route())
        exits.callback(self._clear)
        (folder / "layers").mkdir()
        (state / "layers").symlink_to(folder / "layers")
        self.machine = exits.enter_context(Machine(state))
        for name in ("dev", "proc", "sys"):
            (self.machine.image / name).mkdir()
        self.bridge = links.create_bridge(self.route, _BRIDGE, f"{_GATEWAY}/16", _GROUP)
        self.hierarchies = cgroups.detect()
        self.filter = str(seccomp.default_cached(DOCKER_CAPABILITIES, folder))
        self.folder = folder
        self._count = 0

    def _clear(self) -> None:
        with suppress(OSError):
            links.delete_group(self.route, _GROUP)
        cgroups.remove_root(self.hierarchies, _TAG.removeprefix("pystack-"))
        for left in Path("/sys/fs/cgroup").glob(f"**/{_TAG}-peers"):
            left.rmdir()

    def run(self, command: Sequence[str], *, keep: bool = False) -> float:
        """Seconds until `command` has run in a new container; until it runs, with `keep`."""
        self._count += 1
        name, path = f"c{self._count}", f"{_TAG}/bench/c{self._count}"
        begun = time.perf_counter()
        namespace = netns.create()
        links.attach(
            self.route,
            host_name=f"pyb{self._count}",
            bridge_index=self.bridge,
            namespace=namespace,
            peer_name="eth0",
            mac=links.mac(f"10.213.1.{self._count % 250 + 2}"),
            group=_GROUP,
        )
        address = f"10.213.{self._count // 200 + 1}.{self._count % 200 + 2}/16"
        links.configure(namespace, [("eth0", address)], _GATEWAY)
        directories = cgroups.create(self.hierarchies, path, cgroups.Limits())
        run = self.machine.prepare(
            name, command, launch={"cgroups": list(directories), "seccomp": self.filter}
        )
        self.machine.confirm(run, self.machine.request(run, {"network": namespace}))
        packets.close([namespace])
        self.container = run
        if not keep:
            assert run.wait() == 0, run.output(2)
        return time.perf_counter() - begun

    def exec(self) -> float:
        """Seconds until `true` has run in the container that was started last."""
        begun = time.perf_counter()
        code, _, said = self.machine.exec(self.container, ["true"])
        assert code == 0, said
        return time.perf_counter() - begun


@contextmanager
def bundle(launcher: Launcher) -> Iterator[Path]:
    """Our bundle as the peers want it: the filter in it, the root mounted."""
    path = launcher.machine.bundle("peers", ["true"], linux={"cgroupsPath": f"/{_TAG}-peers/c"})
    config = json.loads((path / "config.json").read_text())
    config["linux"]["seccomp"] = seccomp.default_profile(DOCKER_CAPABILITIES)
    (path / "config.json").write_text(json.dumps(config))
    places = {name: launcher.folder / name for name in ("upper", "work")}
    for place in (*places.values(), path / "rootfs"):
        place.mkdir(exist_ok=True)
    layers = f"lowerdir={launcher.machine.image},upperdir={places['upper']},workdir={places['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", f"{layers},volatile", path / "rootfs"]
    subprocess.run(mount, check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path / "rootfs"], check=True)


@contextmanager
def _memory(place: Path) -> Iterator[Path]:
    """A tmpfs, such as /run is."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "pystack-bench", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def timed(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode()[-500:]}")
    return seconds


def _works(peer: str, state: Path, path: Path) -> bool:
    """crun refuses some machines: those with two kinds of cgroups in use."""
    if shutil.which(peer) is None:
        return False
    try:
        timed([peer, "--root", f"{state}/{peer}", "run", "-b", str(path), "c"])
    except RuntimeError as error:
        print(f"without {peer}: {error}", file=sys.stderr)
        return False
    return True


def series(turns: int = TURNS) -> dict[str, Series]:
    """`launch_RUNTIME` and `launch_exec_RUNTIME` for each peer that is installed."""
    found: dict[str, Series] = {}
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="pystack-bench-")))
        state = exits.enter_context(_memory(folder / "state"))
        launcher = Launcher(folder, state, exits)
        path = exits.enter_context(bundle(launcher))
        for _ in range(5):
            launcher.run(["true"])
        peers = {
            peer: [peer, "--root", f"{state}/{peer}"]
            for peer in ("runc", "crun")
            if _works(peer, state, path)
        }
        runs = {
            peer: partial(timed, [*command, "run", "-b", str(path), "c"]) for peer, command in peers.items()
        }
        _alternate(found, "launch", "start to exit of `true`", lambda: launcher.run(["true"]), runs, turns)
        launcher.run(["sleep", "1000"], keep=True)
        config = json.loads((path / "config.json").read_text())
        config["process"]["args"] = ["sleep", "1000"]
        (path / "config.json").write_text(json.dumps(config))
        for command in peers.values():
            start = [*command, "run", "-d", "-b", str(path), "c"]
            subprocess.run(start, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            exits.callback(subprocess.run, [*command, "delete", "-f", "c"], check=True)
        execs = {peer: partial(timed, [*command, "exec", "c", "true"]) for peer, command in peers.items()}
        _alternate(found, "launch_exec", "`exec true`", launcher.exec, execs, turns)
    return found


def _alternate(
    found: dict[str, Series],
    key: str,
    title: str,
    ours: Callable[[], float],
    theirs: dict[str, Callable[[], float]],
    turns: int,
) -> None:
    for _ in range(turns):
        time.sleep(REST)
        mine = ours()
        for peer, run in theirs.items():
            time.sleep(REST)
            row = found.setdefault(f"{key}_{peer}", Series(title=f"{title}, beside {peer}", unit="ms"))
            row.ours.append(mine * 1000)
            row.theirs.append(run() * 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description="the keeper beside runc and crun")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--turns", type=int, default=TURNS)
    given = parser.parse_args()
    found = series(given.turns)
    for row in found.values():
        figures = f"{row.our_median:6.2f} ms  {row.their_median:6.2f} ms  {row.ratio:5.1f} times less"
        print(f"{row.title:45} {figures}")
    if given.json:
        rows = {key: {"ours": row.ours, "theirs": row.theirs} for key, row in found.items()}
        given.json.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
