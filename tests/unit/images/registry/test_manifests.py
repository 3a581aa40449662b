"""Manifests and indexes, good and hostile."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.images.registry import manifests
from orchestrator.images.registry.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageIndex,
    ImageManifest,
)
from orchestrator.images.registry.platforms import Platform
from orchestrator.model.errors import ExitCode, UserError

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64 = Platform(os="linux", architecture="amd64")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def part(kind: str = LAYER, number: int = 1, size: int = 10, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(number), "size": size, **more}


def manifest(**changes: Any) -> bytes:
    data = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": part(OCI_CONFIG, 2),
        "layers": [part()],
        **changes,
    }
    return json.dumps({key: value for key, value in data.items() if value is not None}).encode()


def index(*rows: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(rows), **changes}
    ).encode()


def child(platform: str, number: int = 1, kind: str = OCI_MANIFEST, **more: Any) -> dict[str, Any]:
    names = ("os", "architecture", "variant")
    where = dict(zip(names, platform.split("/"), strict=False)) if platform else None
    return part(kind, number, platform=where, **more)


def test_a_manifest_names_its_config_and_layers() -> None:
    found = manifests.parse(manifest(), OCI_MANIFEST, "app")
    assert isinstance(found, ImageManifest)
    assert found.config.digest == digest(2)
    assert [layer.digest for layer in found.layers] == [digest(1)]
    assert not found.layers[0].foreign


def test_foreign_layers_are_known_as_such() -> None:
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    found = manifests.parse(manifest(layers=[part(kind, urls=["https://elsewhere"])]), OCI_MANIFEST, "app")
    assert isinstance(found, ImageManifest)
    assert found.layers[0].foreign


@pytest.mark.parametrize(
    ("inner", "outer", "kind"),
    [
        (OCI_MANIFEST, OCI_MANIFEST, OCI_MANIFEST),
        (DOCKER_MANIFEST, f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (None, OCI_MANIFEST, OCI_MANIFEST),
        (OCI_MANIFEST, "application/json", OCI_MANIFEST),
        (OCI_MANIFEST, "", OCI_MANIFEST),
        (DOCKER_MANIFEST, "text/plain", DOCKER_MANIFEST),
    ],
)
def test_the_media_type_is_what_header_and_document_agree_on(
    inner: str | None, outer: str, kind: str
) -> None:
    assert manifests.parse(manifest(mediaType=inner), outer, "app").media_type == kind


@pytest.mark.parametrize(
    ("content", "outer", "words"),
    [
        (manifest(mediaType=DOCKER_MANIFEST), OCI_MANIFEST, "it calls itself"),
        (index(), OCI_MANIFEST, "it calls itself"),
        (manifest(mediaType=None), "application/json", "nobody says what kind"),
        (manifest(mediaType=7), OCI_MANIFEST, "mediaType is not a text"),
        (manifest(manifests=[]), OCI_MANIFEST, "an index and a manifest at once"),
        (index(config={}), OCI_INDEX, "an index and a manifest at once"),
        (index(layers=[]), OCI_INDEX, "an index and a manifest at once"),
        (manifest(schemaVersion=3), OCI_MANIFEST, "schemaVersion is 3"),
        (manifest(schemaVersion="2"), OCI_MANIFEST, "schemaVersion is '2'"),
        (manifest(config=None), OCI_MANIFEST, "names no config"),
        (manifest(config=[]), OCI_MANIFEST, "names no config"),
        (manifest(layers=None), OCI_MANIFEST, "layers is not a list"),
        (manifest(layers=[7]), OCI_MANIFEST, "not a descriptor"),
        (manifest(layers=[part("")]), OCI_MANIFEST, "no mediaType"),
        (manifest(layers=[part(size=-1)]), OCI_MANIFEST, "a size of -1"),
        (manifest(layers=[part(size=True)]), OCI_MANIFEST, "a size of True"),
        (manifest(layers=[{**part(), "size": 1.5}]), OCI_MANIFEST, "a size of 1.5"),
        (manifest(layers=[part(size=2**70)]), OCI_MANIFEST, "a size of"),
        (manifest(layers=[{**part(), "digest": "sha256:../../etc"}]), OCI_MANIFEST, "not a sha256 digest"),
        (manifest(layers=[{**part(), "digest": "md5:" + "a" * 32}]), OCI_MANIFEST, "not a sha256 digest"),
        (manifest(layers=[part()] * 501), OCI_MANIFEST, "501 layers"),
        (manifest(layers=[part()] * 1001), OCI_MANIFEST, "1001 layers"),
        (index(*[child("linux/amd64")] * 1001), OCI_INDEX, "1001 manifests"),
        (manifest(config=part(OCI_CONFIG, size=9 << 20)), OCI_MANIFEST, "a config of"),
        (index({**part(), "platform": 7}), OCI_INDEX, "platform is not an object"),
        (index({**part(), "platform": {"os": 7}}), OCI_INDEX, "not texts"),
        (b"[]", OCI_MANIFEST, "not a JSON object"),
        (b"", OCI_MANIFEST, "not JSON"),
        (b"{", OCI_MANIFEST, "not JSON"),
        (b"\xff\xfe", OCI_MANIFEST, "not JSON"),
        (b'{"schemaVersion": NaN}', OCI_MANIFEST, "not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", OCI_MANIFEST, "not JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, OCI_MANIFEST, "nested deeper"),
        (b'{"a":' + b"[" * 100_000, OCI_MANIFEST, "nested deeper"),
        (b" " * (manifests.LIMIT + 1), OCI_MANIFEST, "larger than 4 MiB"),
    ],
)
def test_what_is_broken_is_refused_by_name(content: bytes, outer: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        manifests.parse(content, outer, "localhost:5000/app:1")
    assert caught.value.message.startswith("localhost:5000/app:1")
    assert caught.value.exit_code is ExitCode.IMAGE


def test_an_image_may_have_no_layers() -> None:
    for layers in (b"[]", b"null"):
        found = manifests.parse(manifest().replace(json.dumps([part()]).encode(), layers), "", "app")
        assert isinstance(found, ImageManifest)
        assert found.layers == ()


def test_brackets_in_texts_are_no_depth() -> None:
    notes = {"a": "[{" * 1000 + '"' + "\\" + "[" * 100}
    assert manifests.parse(manifest(annotations=notes), OCI_MANIFEST, "app")


@pytest.mark.parametrize(
    ("content", "outer"),
    [
        (b'{"schemaVersion": 1, "signatures": []}', "application/json"),
        (manifest(mediaType=None), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (manifest(mediaType="application/vnd.docker.distribution.manifest.v1+json"), ""),
    ],
)
def test_schema_1_is_refused_with_advice(content: bytes, outer: str) -> None:
    with pytest.raises(UserError, match="schema 1, which is not read any more") as caught:
        manifests.parse(content, outer, "old:1")
    assert "push it again" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "outer", "words"),
    [
        ({"config": part("application/vnd.cncf.helm.config.v1+json")}, OCI_MANIFEST, "is a Helm chart"),
        (
            {
                "config": part("application/vnd.oci.empty.v1+json"),
                "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
            },
            OCI_MANIFEST,
            "is a signature",
        ),
        ({"config": part("application/x-thing")}, OCI_MANIFEST, r"is an artifact \(application/x-thing\)"),
        ({"artifactType": "application/spdx+json"}, OCI_MANIFEST, "is an SBOM"),
        ({"mediaType": "application/x-own"}, "application/x-own", r"is an artifact \(application/x-own\)"),
    ],
)
def test_artifacts_are_refused_by_what_they_are(changes: dict[str, Any], outer: str, words: str) -> None:
    with pytest.raises(UserError, match=f"app {words}.*not an image that can be run"):
        manifests.parse(manifest(**changes), outer, "app")


def test_layers_of_unknown_kinds_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"can't be unpacked: application/vnd.oci.image.layer.v1.tar\+gzip\+encrypted"
    ):
        manifests.parse(manifest(layers=[part(f"{LAYER}+encrypted")]), OCI_MANIFEST, "app")


def chosen(*rows: dict[str, Any], wanted: Platform = AMD64, kind: str = OCI_INDEX) -> int:
    found = manifests.parse(index(*rows, mediaType=kind), kind, "app")
    assert isinstance(found, ImageIndex)
    return int(manifests.choose(found, wanted, "app").digest[7:], 16)


def test_the_entry_of_the_platform_is_chosen() -> None:
    rows = [child("linux/arm64", 1), child("linux/amd64", 2), child("linux/arm/v7", 3)]
    assert chosen(*rows) == 2
    assert chosen(*rows, kind=DOCKER_LIST) == 2
    assert chosen(*rows, wanted=Platform(os="linux", architecture="arm64", variant="v8")) == 1


def test_attestations_are_passed_over() -> None:
    statement = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    assert chosen(child("unknown/unknown", 1, **statement), child("linux/amd64", 2)) == 2
    assert chosen(child("linux/amd64", 1, **statement), child("linux/amd64", 2)) == 2
    assert chosen(child("unknown/unknown", 1), child("", 2)) == 2
    assert chosen(child("linux/amd64", 1, "application/x-sbom"), child("linux/amd64", 2)) == 2


def test_no_match_lists_what_is_there() -> None:
    rows = [child("linux/arm64", 1), child("linux/arm/v7", 2), child("unknown/unknown", 3)]
    with pytest.raises(
        UserError, match=r"no matching manifest for linux/amd64; it has: linux/arm/v7, linux/arm64\n"
    ):
        chosen(*rows)
    with pytest.raises(UserError, match="it holds no image"):
        chosen()


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=10)
        | st.sampled_from([OCI_MANIFEST, OCI_INDEX, digest(1)]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    "schemaVersion mediaType config layers manifests digest size platform os annotations".split()
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=30,
    ),
    st.sampled_from([OCI_MANIFEST, OCI_INDEX, "", "text/html"]),
)
def test_any_json_is_read_or_refused(data: object, outer: str) -> None:
    if isinstance(data, dict):
        data.setdefault("schemaVersion", 2)
    with contextlib.suppress(UserError):
        found = manifests.parse(json.dumps(data).encode(), outer, "app")
        if isinstance(found, ImageIndex):
            manifests.choose(found, AMD64, "app")
