"""Mirrors, insecure hosts and certificates, as files of this machine have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.images.registry import hosts
from orchestrator.images.registry.hosts import Settings
from orchestrator.images.registry.tls import Tls
from orchestrator.model.errors import UserError

OURS = """
[[registry]]
prefix = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
ca = "/ca.pem"
ns = true
[[registry.mirror]]
location = "http://cache.example"
capabilities = ["pull"]

[[registry]]
prefix = "docker.io/private"
location = "reg.example/moved"

[[registry]]
prefix = "*.lab.example"
insecure = true

[[registry]]
prefix = "evil.example"
blocked = true
"""


def settings(text: str = OURS) -> Settings:
    return Settings(rules=tuple(hosts.parse(text, "registries.toml")))


def places(host: str, path: str, text: str = OURS) -> list[str]:
    """SCHEMES HOST PATH CAPABILITIES of each, in order."""
    return [
        f"{'|'.join(one.schemes)} {one.host} {one.path} {','.join(sorted(one.capabilities))}"
        for one in hosts.endpoints(settings(text), host, path)
    ]


def test_without_settings_the_registry_itself_is_asked_by_https() -> None:
    assert places("ghcr.io", "a/b", "") == ["https ghcr.io a/b pull,push,resolve"]
    assert places("docker.io", "library/redis", "") == [
        "https registry-1.docker.io library/redis pull,push,resolve"
    ]


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "localhost"])
def test_plain_http_is_spoken_on_loopback(host: str) -> None:
    assert places(host, "a", "") == [f"http|https {host} a pull,push,resolve"]


def test_plain_http_is_spoken_with_who_is_declared_insecure() -> None:
    assert places("a.lab.example", "x") == ["https|http a.lab.example x pull,push,resolve"]
    assert places("lab.example", "x") == ["https lab.example x pull,push,resolve"]
    assert not hosts.tls_for(settings('[[registry]]\nprefix="r:1"\ninsecure=true'), "r:1").verify


def test_mirrors_come_first_each_with_what_it_is_good_for() -> None:
    assert places("docker.io", "library/redis") == [
        "https mirror.example:5000 hub/library/redis pull,resolve",
        "http cache.example library/redis pull",
        "https registry-1.docker.io library/redis pull,push,resolve",
    ]
    first, second, origin = hosts.endpoints(settings(), "docker.io", "library/redis")
    assert (first.namespace, second.namespace) == ("docker.io", "")
    assert (first.account, origin.account) == ("mirror.example:5000", "docker.io")
    assert (first.mirror, origin.mirror) == (True, False)


def test_the_longest_prefix_speaks_and_a_location_takes_its_place() -> None:
    assert places("docker.io", "private/app") == ["https reg.example moved/app pull,push,resolve"]
    assert places("docker.io", "privateer/app")[-1].startswith("https registry-1.docker.io privateer/app")


def test_what_is_blocked_is_refused_with_the_file_that_says_so() -> None:
    with pytest.raises(UserError, match=r"evil.example is blocked in registries.toml"):
        places("evil.example", "x")


@pytest.mark.parametrize(
    ("key", "capabilities"),
    [
        ('pull-from-mirror = "digest-only"', "pull"),
        ('pull-from-mirror = "tag-only"', "resolve"),
        ('pull-from-mirror = "all"', "pull,resolve"),
        ('capabilities = ["resolve"]', "resolve"),
        ("", "pull,resolve"),
    ],
)
def test_podmans_words_for_what_mirrors_are_for(key: str, capabilities: str) -> None:
    text = f'[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\n{key}'
    assert places("r.example", "x", text)[0] == f"https m.example x {capabilities}"


def test_mirrors_by_digest_only() -> None:
    text = '[[registry]]\nprefix = "r.example"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.example"'
    assert places("r.example", "x", text)[0] == "https m.example x pull"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("registry = 7", r"write \[\[registry\]\]"),
        ("registry = [7]", r"write \[\[registry\]\]"),
        ("[[registry]]", "needs a prefix"),
        ('[[registry]]\nprefix = "x"\ninsecure = "yes"', "insecure is true or false"),
        ("[[registry]]\nprefix = 7", "prefix is a text"),
        ('[[registry]]\nprefix = "x"\nmirror = 7', r"\[\[registry.mirror\]\]"),
        ('[[registry]]\nprefix = "x"\n[[registry.mirror]]', "location is host"),
        ('[[registry]]\nprefix = "x"\n[[registry.mirror]]\nlocation = "ftp://m"', "http or https, not 'ftp'"),
        (
            '[[registry]]\nprefix = "x"\n[[registry.mirror]]\nlocation = "m"\ncapabilities = ["fly"]',
            "capabilities is a list",
        ),
        (
            '[[registry]]\nprefix = "x"\n[[registry.mirror]]\nlocation = "m"\ncert = "c"',
            "cert and key come together",
        ),
        ('[[registry]]\nprefix = "x"\nca = 7', "ca is the name"),
        (
            '[[registry]]\nprefix = "x"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "no"',
            "digest-only or tag-only",
        ),
        ("[[registry", "Expected"),
    ],
)
def test_a_wrong_file_is_named_with_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^registries.toml: .*{words}"):
        settings(text)


def test_files_are_found_where_they_are_and_ours_come_before_podmans(tmp_path: Path) -> None:
    home, etc = tmp_path / "home", tmp_path / "etc"
    for path, mirror in (
        (home / ".config/pystack/registries.toml", "user"),
        (etc / "pystack/registries.toml", "machine"),
        (home / ".config/containers/registries.conf", "podman-user"),
        (etc / "containers/registries.conf", "podman"),
        (etc / "containers/registries.conf.d/50-x.conf", "podman-more"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[[registry]]\nprefix = "r.example"\n[[registry.mirror]]\nlocation = "{mirror}"')
    environment = {"HOME": str(home)}
    for winner in (".config/pystack/registries.toml", ".config/containers/registries.conf"):
        found = hosts.load(environment, etc)
        first = hosts.endpoints(found, "r.example", "x")[0].host
        assert first == {"p": "user", "c": "machine"}[winner[8]]
        (home / winner).unlink()
    (etc / "pystack/registries.toml").unlink()
    assert hosts.endpoints(hosts.load(environment, etc), "r.example", "x")[0].host == "podman"
    chosen = tmp_path / "own.conf"
    chosen.write_text('[[registry]]\nprefix = "r.example"\n[[registry.mirror]]\nlocation = "chosen"')
    found = hosts.load({**environment, "CONTAINERS_REGISTRIES_CONF": str(chosen)}, etc)
    assert hosts.endpoints(found, "r.example", "x")[0].host == "chosen"


def test_what_dockerd_was_told_counts_as_well(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    path = tmp_path / "docker/daemon.json"
    path.write_text(
        '{"insecure-registries": ["r.lab:5000", "10.0.0.0/8", 7], '
        '"registry-mirrors": ["https://m.example/", "ftp://x", "http://n.example:80/hub", "m2"]}'
    )
    found = hosts.load({"HOME": "/nowhere"}, tmp_path)
    assert hosts.endpoints(found, "r.lab:5000", "x")[0].schemes == ("https", "http")
    assert not hosts.tls_for(found, "r.lab:5000").verify
    assert [
        (one.schemes, one.host, one.path) for one in hosts.endpoints(found, "docker.io", "library/redis")
    ] == [
        (("https",), "m.example", "library/redis"),
        (("http",), "n.example:80", "hub/library/redis"),
        (("https",), "registry-1.docker.io", "library/redis"),
    ]
    for content in ("", "{", "[]", '{"registry-mirrors": 7}', "[" * 100_000):
        path.write_text(content)
        assert hosts.load({"HOME": "/nowhere"}, tmp_path).rules == ()


def test_certificates_of_a_host_and_port(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    folder = etc / "docker/certs.d/r.example:5000"
    folder.mkdir(parents=True)
    for name in ("ca.crt", "other.crt", "client.cert", "client.key", "README"):
        (folder / name).touch()
    user = tmp_path / "home/.config/containers/certs.d/r.example:5000"
    user.mkdir(parents=True)
    (user / "own.crt").touch()
    found = hosts.load({"HOME": str(tmp_path / "home"), "SSL_CERT_FILE": "/bundle.pem"}, etc)
    assert hosts.tls_for(found, "r.example:5000") == Tls(
        roots=("/bundle.pem",),
        extra=(str(user / "own.crt"), str(folder / "ca.crt"), str(folder / "other.crt")),
        pairs=((str(folder / "client.cert"), str(folder / "client.key")),),
    )
    assert hosts.tls_for(found, "r.example") == Tls(roots=("/bundle.pem",))
    (folder / "client.key").unlink()
    with pytest.raises(UserError, match=r"client.cert: there is no client.key beside it"):
        hosts.tls_for(found, "r.example:5000")


def test_a_mirrors_own_certificates_are_for_it_alone() -> None:
    assert hosts.tls_for(settings(), "mirror.example:5000") == Tls(extra=("/ca.pem",))
    assert hosts.tls_for(settings(), "docker.io") == Tls()


def test_a_directory_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "pystack/registries.toml").mkdir(parents=True)
    with pytest.raises(UserError, match=r"registries.toml: Is a directory"):
        hosts.load({"HOME": "/nowhere"}, tmp_path)
