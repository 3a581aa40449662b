"""Volumes, binds, tmpfs, configs and secrets, as a stack's containers see them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.images.archives.importing import import_directory
from orchestrator.images.store.content import Store
from tests.kit.site import Site

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@pytest.fixture(scope="module")
def image(anchored_site: Site) -> str:
    """An image with content at /seeded, which it declares as a volume."""
    site = anchored_site
    seeded = site.box / "seeded"
    (seeded / "deep").mkdir(parents=True)
    (seeded / "deep/file").write_text("from the image\n")
    os.chown(seeded / "deep/file", 1000, 1000)
    (seeded / "deep/file").chmod(0o640)
    (seeded / "link").symlink_to("deep/file")
    import_directory(Store(site.places.images), site.box, "seeded:1", changes=("VOLUME /seeded",))
    return "seeded:1"


WRITER = """
    name: {name}
    services:
      w:
        x-rootfs: {{path: $BOX}}
        command: sleep 100
        volumes: ["data:/data", "/scratch"]
    volumes: {{data: {{}}}}
"""


def test_a_named_volume_survives_down_and_goes_with_down_v(site: Site) -> None:
    site.up(WRITER.format(name="v1"))
    site.execute("v1", "w", "sh", "-c", "echo kept > /data/f")
    site.down("v1")
    site.up(WRITER.format(name="v1"))
    assert site.execute("v1", "w", "cat", "/data/f") == "kept\n"
    site.down("v1", remove_volumes=True)
    assert not list(site.places.volumes.glob("v1_*"))
    site.up(WRITER.format(name="v1"))
    assert site.execute("v1", "w", "ls", "/data") == ""
    site.down("v1", remove_volumes=True)


def test_an_anonymous_volume_survives_the_replacement_of_its_container(site: Site) -> None:
    text = WRITER.format(name="v2")
    site.up(text)
    site.execute("v2", "w", "sh", "-c", "echo kept > /scratch/f")
    first = site.row("v2", "w")["id"]
    site.up(text, force_recreate=True, timeout=0)
    assert site.row("v2", "w")["id"] != first
    assert site.execute("v2", "w", "cat", "/scratch/f") == "kept\n"
    site.down("v2", remove_volumes=True)
    assert not [path for path in site.places.volumes.iterdir() if len(path.name) == 64]


def test_the_first_use_of_a_volume_copies_what_the_image_has_there(site: Site, image: str) -> None:
    """With owner, mode and links; a volume that is not empty is left as it is."""
    text = """
        name: v3
        services:
          w: {image: seeded:1, command: sleep 100, volumes: ["named:/seeded"]}
          nocopy:
            image: seeded:1
            command: sleep 100
            volumes: [{type: volume, source: bare, target: /seeded, volume: {nocopy: true}}]
          declared: {image: seeded:1, command: sleep 100}
        volumes: {named: {}, bare: {}}
    """
    site.up(text)
    listed = site.execute("v3", "w", "sh", "-c", "stat -c '%u %a' /seeded/deep/file; readlink /seeded/link")
    assert listed == "1000 640\ndeep/file\n"
    assert site.execute("v3", "nocopy", "ls", "/seeded") == ""
    assert site.execute("v3", "declared", "cat", "/seeded/link") == "from the image\n"
    site.execute("v3", "w", "rm", "-r", "/seeded/deep")
    site.up(text, force_recreate=True, timeout=0)
    assert site.execute("v3", "w", "ls", "/seeded") == "link\n"
    site.down("v3", remove_volumes=True)


def test_two_stacks_share_an_external_volume(site: Site) -> None:
    site.up(WRITER.format(name="owner"))
    site.execute("owner", "w", "sh", "-c", "echo shared > /data/f")
    other = """
        name: guest
        services:
          r: {x-rootfs: {path: $BOX}, command: sleep 100, volumes: ["theirs:/in:ro"]}
        volumes: {theirs: {external: true, name: owner_data}}
    """
    site.up(other)
    assert site.execute("guest", "r", "cat", "/in/f") == "shared\n"
    assert "Read-only" in site.execute("guest", "r", "touch", "/in/g", exit_code=1)
    site.down("guest", remove_volumes=True)
    assert site.execute("owner", "w", "cat", "/data/f") == "shared\n"
    site.down("owner", remove_volumes=True)


def test_an_external_volume_that_is_not_there_is_refused(site: Site) -> None:
    answer = site.up(
        """
        name: v5
        services:
          r: {x-rootfs: {path: $BOX}, command: sleep 100, volumes: ["x:/in"]}
        volumes: {x: {external: true, name: nowhere}}
        """,
        exit_code=1,
    )
    assert "external volume nowhere does not exist" in answer.error
    site.down("v5")


def test_binds_are_read_only_when_asked_and_made_when_missing(site: Site) -> None:
    (site.dir / "host").mkdir(exist_ok=True)
    (site.dir / "host/f").write_text("host\n")
    site.up(
        """
        name: v6
        services:
          r:
            x-rootfs: {path: $BOX}
            command: sleep 100
            volumes: ["$DIR/host:/ro:ro", "$DIR/host:/rw", "$DIR/made/deep:/made", "$DIR/host/f:/file"]
        """
    )
    assert "Read-only" in site.execute("v6", "r", "touch", "/ro/x", exit_code=1)
    site.execute("v6", "r", "sh", "-c", "echo new > /rw/x; echo more >> /file")
    assert (site.dir / "host/x").read_text() == "new\n"
    assert (site.dir / "host/f").read_text() == "host\nmore\n"
    assert (site.dir / "made/deep").is_dir()
    site.down("v6")


def test_a_missing_bind_source_that_must_not_be_made_is_refused_by_name(site: Site) -> None:
    answer = site.up(
        """
        name: v7
        services:
          r:
            x-rootfs: {path: $BOX}
            command: sleep 100
            volumes: [{type: bind, source: $DIR/never, target: /x, bind: {create_host_path: false}}]
        """,
        exit_code=1,
    )
    assert "service r" in answer.error
    assert f"{site.dir}/never" in answer.error
    assert not (site.dir / "never").exists()
    site.down("v7")


def test_tmpfs_is_memory_of_the_size_and_mode_asked_for(site: Site) -> None:
    site.up(
        """
        name: v8
        services:
          t:
            x-rootfs: {path: $BOX}
            command: sleep 100
            tmpfs: ["/a:size=1m,mode=700"]
            volumes: [{type: tmpfs, target: /b, tmpfs: {size: 2097152, mode: 0o1770}}]
            shm_size: 4m
        """
    )
    mounts = site.execute("v8", "t", "cat", "/proc/mounts").splitlines()
    rows = {line.split()[1]: line.split()[2:4] for line in mounts}
    assert rows["/a"][0] == rows["/b"][0] == "tmpfs"
    assert "size=1024k" in rows["/a"][1]
    assert "mode=700" in rows["/a"][1]
    assert "size=2048k" in rows["/b"][1]
    assert "mode=1770" in rows["/b"][1]
    assert "size=4096k" in rows["/dev/shm"][1]
    site.down("v8")


SUBPATH = """
    name: v9
    services:
      w: {x-rootfs: {path: $BOX}, command: sleep 100, volumes: ["data:/data"]}
      r:
        x-rootfs: {path: $BOX}
        command: sleep 100
        volumes: [{type: volume, source: data, target: /sub, volume: {subpath: in/side}}]
    volumes: {data: {}}
"""


def test_a_subpath_shows_only_that_folder_of_a_volume(site: Site) -> None:
    site.up(SUBPATH, "w")
    site.execute(
        "v9", "w", "sh", "-c", "mkdir -p /data/in/side; echo x > /data/in/side/f; echo y > /data/out"
    )
    site.up(SUBPATH)
    assert site.execute("v9", "r", "ls", "/sub") == "f\n"
    site.down("v9", remove_volumes=True)


def test_a_subpath_never_leads_out_through_a_link_that_a_container_has_left(site: Site) -> None:
    site.up(SUBPATH, "w")
    site.execute("v9", "w", "sh", "-c", "mkdir /data/in; ln -s /etc /data/in/side")
    answer = site.up(SUBPATH, exit_code=1)
    assert "subpath in/side" in answer.error
    site.execute("v9", "w", "sh", "-c", "rm /data/in/side; ln -s ../../../../../../../../etc /data/in/side")
    answer = site.up(SUBPATH, exit_code=1)
    assert "subpath in/side" in answer.error
    site.down("v9", remove_volumes=True)


def test_configs_and_secrets_come_as_content_and_as_files(site: Site) -> None:
    (site.dir / "secret.txt").write_text("from a file\n")
    site.up(
        """
        name: v10
        services:
          c:
            x-rootfs: {path: $BOX}
            user: app
            command: sleep 100
            configs:
              - inline
              - {source: inline, target: /etc/own.conf, uid: "1000", gid: "1000", mode: 0o400}
            secrets: [hidden]
        configs: {inline: {content: "a=1\\n"}}
        secrets: {hidden: {file: $DIR/secret.txt}}
        """
    )
    assert site.execute("v10", "c", "cat", "/inline", "/etc/own.conf", "/run/secrets/hidden") == (
        "a=1\na=1\nfrom a file\n"
    )
    assert site.execute("v10", "c", "stat", "-c", "%u %a", "/etc/own.conf") == "1000 400\n"
    assert "Read-only" in site.execute(
        "v10",
        "c",
        "sh",
        "-c",
        "echo > /inline 2>&1 || cat /proc/mounts | grep inline | sed 's/ro,/Read-only /'",
        user="root",
        exit_code=None,
    )
    site.down("v10")


def test_links_that_a_container_leaves_lead_no_removal_astray(site: Site) -> None:
    """The container's own layer and its volumes: what stands at the other end of a link is not touched."""
    outside = site.dir / "precious"
    outside.mkdir()
    (outside / "f").write_text("still here")
    site.up(WRITER.format(name="v11"))
    script = f"ln -s {outside} /data/l; ln -s {outside} /l; mkdir /etc/d; ln -s {outside}/f /etc/d/f"
    site.execute("v11", "w", "sh", "-c", script)
    site.down("v11", remove_volumes=True)
    assert (outside / "f").read_text() == "still here"
    assert not list(site.places.stacks.glob("v11/**"))


def test_directories_nested_deeper_than_we_could_recurse_are_removed(site: Site) -> None:
    site.up(WRITER.format(name="v12"))
    deep = "i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    site.execute("v12", "w", "sh", "-c", f"cd /data; {deep}")
    site.execute("v12", "w", "sh", "-c", f"cd /; {deep}")
    answer = site.down("v12", remove_volumes=True)
    assert not answer.error
    assert not list(site.places.volumes.glob("v12_*"))
    assert not list(site.places.stacks.glob("v12/**"))
