"""What a container has become -> an image: its own with one layer more, or, if it has none, all of its root.

The changes are packed once; the stream is hashed, compressed and unpacked into the store side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from orchestrator.images import changes as instructions
from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.files.packing import Packer
from orchestrator.images.layers import unpacking
from orchestrator.images.layers.meta import Meta
from orchestrator.images.layers.unpacking import Limits
from orchestrator.images.store.content import MANIFEST, Store
from orchestrator.images.store.index import NewImage, StoredImage, digest_of
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass
from orchestrator.model.stack import Healthcheck, Service, VolumeMount

Json = dict[str, Any]
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_PIECE = 1 << 20
_AHEAD = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the user says about the new image. `name`: "" leaves it nameless; `created`: RFC 3339."""

    name: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    created: str = ""


def commit(
    store: Store,
    image_id: str,
    service: Service,
    words: Words,
    pack: Callable[[Callable[[bytes], object]], object],
) -> StoredImage:
    """`pack` writes the tar of the new layer to the function it is given; nothing at all when there is none.

    `image_id`: "" for a container without an image, whose tar is its whole root. Raises UserError.
    """
    name = _name(words.name)
    base: Json = json.loads(store.blob(image_id, limit=configs.CONFIG_LIMIT)) if image_id else _bare()
    manifest = store.manifest(store.demand(image_id).manifest) if image_id else _no_layers()
    run = instructions.apply(run_config(base.get("config") or {}, service), words.changes)
    with store.scratch() as work:
        layer = _Layer(work)
        layer.fill(pack)
        config = _config(base, run, words, layer)
        image_id = digest_of(config)
        configs.parse(config, image_id)
        document = _manifest(manifest, config, layer)
        (work / "config").write_bytes(config)
        blobs, unpacked = {image_id: work / "config"}, {}
        if layer.meta is not None:
            blobs[layer.digest] = work / "blob"
            unpacked[layer.meta.diff_id] = work / "layer"
        new = NewImage(
            id=image_id,
            manifest=json.dumps(document, separators=(",", ":")).encode(),
            media_type=document["mediaType"],
            names=(name,) if name else (),
            diff_ids=tuple(json.loads(config)["rootfs"]["diff_ids"]),
            blobs=(image_id, *(row["digest"] for row in document["layers"])),
        )
        missing = store.add([new], blobs=blobs, layers=unpacked, repairs={})
        if missing is not None:
            raise UserError("the container's image has been removed meanwhile", exit_code=ExitCode.IMAGE)
        return store.demand(image_id)


def check(words: Words) -> None:
    """Raises UserError for a name or an instruction that can't be."""
    _name(words.name)
    instructions.apply({}, words.changes)


def _name(text: str) -> str:
    if not text:
        return ""
    name = references.parse(text)
    if name.digest:
        raise UserError("refusing to create a tag with a digest reference", exit_code=ExitCode.IMAGE)
    return str(name)


def pack_changes(
    upper: str, made: frozenset[bytes], descriptors: int, put: Callable[[bytes], object]
) -> Sequence[str]:
    """The upper directory of a container as a layer's tar, less what the runtime has `made` there. Returns
    warnings; writes nothing when nothing has changed."""
    packer = Packer(put, descriptors, leave_out=made, whiteouts=True)
    if os.path.isdir(upper):
        handle = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            packer.pack(handle, b"")
        finally:
            os.close(handle)
    if packer.entries:
        packer.finish()
    return packer.warnings


# --- the layer ---------------------------------------------------------------------------------------


class _Layer:
    """The new layer: its compressed blob and its unpacked files, made of one stream."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._hash = hashlib.sha256()
        self._blob_hash = hashlib.sha256()
        self._buffer = bytearray()
        self._pieces: queue.Queue[bytes] = queue.Queue(_AHEAD)
        self._wrong: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._pipe = -1
        self.size = 0
        self.meta: Meta | None = None

    @property
    def digest(self) -> str:
        return f"sha256:{self._blob_hash.hexdigest()}"

    def fill(self, pack: Callable[[Callable[[bytes], object]], object]) -> None:
        try:
            pack(self._put)
            if self._buffer:
                self._flush()
        except BrokenPipeError:
            self._stop()
            raise (
                self._wrong[0] if self._wrong else UserError("the new layer could not be unpacked")
            ) from None
        except BaseException:
            self._stop()
            raise
        self._stop()
        if self._wrong:
            raise self._wrong[0]
        if self.meta is not None and self.meta.diff_id != f"sha256:{self._hash.hexdigest()}":
            raise UserError("the new layer is not what was written", exit_code=ExitCode.IMAGE)

    def _put(self, content: bytes) -> None:
        self._buffer += content
        if len(self._buffer) >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        if not self._threads:
            self._begin()
        piece = bytes(self._buffer)
        self._buffer.clear()
        self._pieces.put(piece)
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._pipe, view) :]

    def _begin(self) -> None:
        reading, self._pipe = os.pipe2(os.O_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._unpack, args=(reading,)),
            threading.Thread(target=self._compress),
        ]
        for thread in self._threads:
            thread.start()

    def _stop(self) -> None:
        if self._threads:
            os.close(self._pipe)
            self._pieces.put(b"")
            for thread in self._threads:
                thread.join()

    def _unpack(self, reading: int) -> None:
        try:
            self.meta = unpacking.unpack(
                Path(f"/proc/{os.getpid()}/fd/{reading}"), self._work / "layer", Limits()
            )
        except BaseException as error:
            self._wrong.append(error)
        finally:
            os.close(reading)

    def _compress(self) -> None:
        try:
            with open(self._work / "blob", "xb", buffering=0) as blob:
                self._deflate(blob)
        except BaseException as error:
            self._wrong.append(error)
            with suppress(queue.Empty):
                while self._pieces.get(timeout=60):
                    pass  # whoever fills it must not wait for us

    def _deflate(self, blob: IO[bytes]) -> None:
        squeeze = _compressor()
        while piece := self._pieces.get():
            self._keep(blob, squeeze.compress(piece))
        self._keep(blob, squeeze.flush())

    def _keep(self, blob: IO[bytes], content: bytes) -> None:
        self._blob_hash.update(content)
        self.size += len(content)
        view = memoryview(content)
        while view:
            view = view[blob.write(view) :]


def _compressor() -> Any:
    """gzip without name and time: equal layers give equal blobs, with the same library."""
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib.compressobj(6, zlib.DEFLATED, 31)
    return isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)


# --- documents ---------------------------------------------------------------------------------------


def _bare() -> Json:
    return {
        "architecture": configs.architecture(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
    }


def _no_layers() -> Json:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}


def _config(base: Json, run: Json, words: Words, layer: _Layer) -> bytes:
    """The config of the new image. Pure."""
    event: Json = {"created": words.created} if words.created else {}
    if run.get("Cmd"):
        event["created_by"] = " ".join(run["Cmd"])
    if words.author:
        event["author"] = words.author
    if words.message:
        event["comment"] = words.message
    diff_ids = list(base["rootfs"]["diff_ids"])
    if layer.meta is not None:
        diff_ids.append(layer.meta.diff_id)
    else:
        event["empty_layer"] = True
    config = {
        **base,
        "config": run,
        "history": [*(base.get("history") or ()), event],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    if words.created:
        config["created"] = words.created
    if words.author:
        config["author"] = words.author
    for old in ("container", "container_config", "parent", "id"):
        config.pop(old, None)
    return json.dumps(config, separators=(",", ":")).encode()


def _manifest(base: Json, config: bytes, layer: _Layer) -> Json:
    """The manifest of the new image, of the same kind as its base's. Pure."""
    docker = base.get("mediaType") == _DOCKER_MANIFEST
    rows = list(base.get("layers") or ())
    if layer.meta is not None:
        kind = _DOCKER_LAYER if docker else _OCI_LAYER
        rows.append({"mediaType": kind, "digest": layer.digest, "size": layer.size})
    kind = _DOCKER_CONFIG if docker else _OCI_CONFIG
    return {
        "schemaVersion": 2,
        "mediaType": _DOCKER_MANIFEST if docker else MANIFEST,
        "config": {"mediaType": kind, "digest": digest_of(config), "size": len(config)},
        "layers": rows,
    }


def run_config(base: Mapping[str, Any], service: Service) -> Json:
    """The image's run defaults, with what the container was given in place of them (docker commit). Pure."""
    run = dict(base)
    if service.entrypoint is not None:
        run["Entrypoint"] = list(service.entrypoint) or None
        run["Cmd"] = None  # it was the old entry point's
    if service.command is not None:
        run["Cmd"] = list(service.command)
    rows = dict(row.partition("=")[::2] for row in run.get("Env") or ())
    rows.update(service.environment)
    run["Env"] = [f"{key}={value}" for key, value in rows.items()]
    given = {"User": service.user, "WorkingDir": service.working_dir, "StopSignal": service.stop_signal}
    run.update({field: value for field, value in given.items() if value is not None})
    if service.labels:
        run["Labels"] = {**(run.get("Labels") or {}), **service.labels}
    ports = [word if "/" in word else f"{word}/tcp" for word in service.expose]
    ports += [f"{port.target}/{port.protocol}" for port in service.ports]
    if ports:
        run["ExposedPorts"] = {**(run.get("ExposedPorts") or {}), **{port: {} for port in ports}}
    anonymous = [m.target for m in service.mounts if isinstance(m, VolumeMount) and m.source is None]
    if anonymous:
        run["Volumes"] = {**(run.get("Volumes") or {}), **{target: {} for target in anonymous}}
    if service.healthcheck is not None:
        run["Healthcheck"] = _healthcheck(run.get("Healthcheck") or {}, service.healthcheck)
    return {key: value for key, value in run.items() if value is not None}


def _healthcheck(base: Mapping[str, Any], check: Healthcheck) -> Json:
    if check.disable:
        return {"Test": ["NONE"]}
    seconds = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    found: Json = {**base, **{key: int(value * 1e9) for key, value in seconds.items() if value is not None}}
    if check.test is not None:
        found["Test"] = list(check.test)
    if check.retries is not None:
        found["Retries"] = check.retries
    return found
