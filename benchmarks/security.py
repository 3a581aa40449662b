"""What a default container may and sees, ours beside Docker's, from the same root filesystem.

    python benchmarks/security.py           run the probe in both, write security.json and docs/security.md
    python benchmarks/security.py --ours    only ours; print what differs from security.json

The probe is probe.c; how dockerd is run is told in docker.py. Needs root, gcc, busybox-static and docker.io.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import docker  # noqa: E402
from orchestrator.kernel import capabilities  # noqa: E402
from tests.kit.keeper import build_image  # noqa: E402
from tests.kit.programs import Pystack  # noqa: E402

SOURCE = REPOSITORY / "benchmarks/probe.c"
STORED = REPOSITORY / "benchmarks/security.json"
PAGE = REPOSITORY / "docs/security.md"
MARKS = ("<!-- probe -->\n", "<!-- /probe -->\n")

Rows = dict[str, str]
"""(section, tab, name) -> value."""

_TITLES = {
    "process": "Process",
    "namespace": "Namespaces",
    "mount": "Mounts",
    "path": "Paths of the kernel",
    "control group": "Control groups",
    "setting": "Settings",
    "device": "Devices in /dev",
    "device made and opened": "Devices that root of the container makes with mknod and opens",
}
_CALLS = "system call"


def build(program: Path) -> Path:
    """The probe as a static program."""
    words = ["gcc", "-w", "-O1", "-static", "-o", str(program), str(SOURCE)]
    subprocess.run(words, check=True)
    return program


def rootfs(folder: Path) -> Path:
    """busybox and the probe, for both sides."""
    root = build_image(folder / "rootfs")
    build(root / "probe")
    return root


def ours(folder: Path, root: Path, *options: str) -> Rows:
    """The probe in a container of ours with nothing but defaults; `options` for `run`."""
    service = f"{{x-rootfs: {{path: {root}}}, command: /probe, network_mode: none}}"
    (folder / "stack.yml").write_text(f"{{name: probe, services: {{c: {service}}}}}\n")
    box = Pystack(root=folder / "state", directory=folder)
    try:
        return read(box.run("-f", "stack.yml", "run", "--rm", "-T", *options, "c").stdout)
    finally:
        box.run("-f", "stack.yml", "down", "-t", "0", exit_code=None)


def dockers(folder: Path, root: Path) -> tuple[str, Rows]:
    """dockerd's version, and the probe in a container of its with nothing but defaults."""
    with docker.running(folder) as daemon:
        version = daemon.request("GET", "/version")
        assert isinstance(version, dict)
        docker.import_rootfs(daemon, root, "probe", "1")
        wanted = {"Image": "probe:1", "Cmd": ["/probe"], "HostConfig": {"NetworkMode": "none"}}
        body = json.dumps(wanted).encode()
        made = daemon.request("POST", "/containers/create", body, "application/json")
        assert isinstance(made, dict)
        place = f"/containers/{made['Id']}"
        daemon.request("POST", f"{place}/start")
        daemon.request("POST", f"{place}/wait")
        log = folder / "data/containers" / made["Id"] / f"{made['Id']}-json.log"
        text = "".join(json.loads(line)["log"] for line in log.read_text().splitlines())
        daemon.request("DELETE", f"{place}?force=1")
    return str(version["Version"]), read(text)


def read(text: str) -> Rows:
    """The probe's lines, in words and without what is different at every run."""
    names = call_names()
    found: Rows = {}
    for line in text.splitlines():
        section, name, value = line.split("\t")
        if section == _CALLS and name.isdigit():
            if name not in names:
                continue
            name = names[name]
        elif section == "namespace" and "[" in value:
            value = "its own" if value != _of_the_host(name) else "the host's"
        elif name.startswith("Cap"):
            value = written(int(value, 16))
        elif section == "mount":
            # What the machine keeps its files on, and how large its memory is, is not what is compared.
            value = re.sub(r"^\w+ ", "file ", value) if name.startswith("/etc/") else value
            value = re.sub(r",size=\d+k", "", value) if value.startswith("devtmpfs") else value
        found[f"{section}\t{name}"] = value
    return found


def written(mask: int) -> str:
    """The names of capabilities."""
    names = [name.removeprefix("CAP_") for bit, name in enumerate(capabilities.NAMES) if mask >> bit & 1]
    return " ".join(sorted(names)) or "none"


def _of_the_host(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


def call_names() -> dict[str, str]:
    """Number -> name, of x86-64."""
    table = json.loads((REPOSITORY / "orchestrator/kernel/syscall_table.json").read_text())
    names = {}
    for start, words in table["x86_64"].items():
        for offset, name in enumerate(words.split()):
            names[str(int(start) + offset)] = name
    return names


# --- the page ---------------------------------------------------------------------------------------------


def render(stored: Mapping[str, object]) -> str:
    """The tables of docs/security.md."""
    mine, strict, theirs = (_rows(stored[side]) for side in ("pystack", "strict", "docker"))
    parts = [f"Docker is dockerd {stored['version']}. A row in **bold** differs.\n"]
    for section, title in _TITLES.items():
        keys = [key for key in {**theirs, **mine} if key.startswith(f"{section}\t")]
        parts.append(f"\n### {title}\n\n| | pystack | docker |\n|---|---|---|\n")
        for key in keys:
            left, right = mine.get(key, "not there"), theirs.get(key, "not there")
            name = key.partition("\t")[2]
            shown = f"`{name}`" if left == right else f"**`{name}`**"
            parts.append(f"| {shown} | {left} | {right} |\n")
    parts += _render_calls(mine, theirs)
    changed = [key for key in mine if mine[key] != strict.get(key)]
    parts.append("\n### With `--strict`\n\n| | default | `--strict` |\n|---|---|---|\n")
    parts += [f"| `{key.partition(chr(9))[2]}` | {mine[key]} | {strict.get(key)} |\n" for key in changed]
    return "".join(parts)


def _rows(value: object) -> Rows:
    assert isinstance(value, dict)
    return value


def _render_calls(mine: Rows, theirs: Rows) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for key in {**theirs, **mine}:
        section, _, name = key.partition("\t")
        if section == _CALLS:
            pair = (mine.get(key, "not there"), theirs.get(key, "not there"))
            groups.setdefault(pair, []).append(name)
    parts = ["\n### System calls\n\n| pystack | docker | calls |\n|---|---|---|\n"]
    for (left, right), names in sorted(groups.items(), key=lambda item: (item[0][0] == item[0][1], item[0])):
        shown = (left, right) if left == right else (f"**{left}**", f"**{right}**")
        parts.append(f"| {shown[0]} | {shown[1]} | {len(names)}: {', '.join(names)} |\n")
    return parts


def replace_part(page: str, part: str) -> str:
    """The page with another text between its marks."""
    begin, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    return page[:begin] + part + page[end:]


def main(words: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="pystack-probe-") as name:
        folder = Path(name)
        root = rootfs(folder)
        found = ours(folder, root)
        if words == ["--ours"]:
            before = json.loads(STORED.read_text())["pystack"]
            for key in sorted({*found, *before}):
                if found.get(key) != before.get(key):
                    print(f"{key}\t{before.get(key)} -> {found.get(key)}")
            return 0
        strict = ours(folder, root, "--strict")
        (folder / "docker").mkdir()
        version, theirs = dockers(folder / "docker", root)
    stored = {"version": version, "pystack": found, "strict": strict, "docker": theirs}
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
    PAGE.write_text(replace_part(PAGE.read_text(), render(stored)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
