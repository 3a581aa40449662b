"""`config --resolve-image-digests` and `--lock-image-digests`: images by what they are, not by a name that
may come to mean something else. The digests are those of the local image store.
"""

from __future__ import annotations

from typing import Any

from orchestrator.images.reference import parse
from orchestrator.model.errors import ExitCode, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.cli.scope import Scope


def pinned(tree: Mapping[str, Any], find: Callable[[str], str | None]) -> dict[str, Any]:
    """The stack with every image named by its digest, as docker compose writes it: the full name, and the
    tag only where the digest was not given. `find` tells the digest of a full name. Pure. Raises UserError
    with all images that are not here.
    """
    services: dict[str, Any] = {}
    unknown: list[str] = []
    for name, body in tree["services"].items():
        image = body.get("image")
        if not image:
            services[name] = body
            continue
        reference = parse(image)
        digest = reference.digest or find(str(reference)) or ""
        if not digest:
            unknown.append(f"{image} (service {name})")
        full = f"{reference.repository}@{digest}" if reference.digest else f"{reference}@{digest}"
        services[name] = {**body, "image": full}
    if unknown:
        raise UserError(
            f"no digest is known of {', '.join(unknown)}: not in the local image store",
            exit_code=ExitCode.IMAGE,
            hint="`pystack load -i FILE` brings an image here",
        )
    return {**tree, "services": services}


def images_only(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An override file that says nothing but which images. Pure."""
    services = tree["services"].items()
    return {
        "services": {name: {"image": body["image"]} if "image" in body else {} for name, body in services}
    }


def local(scope: Scope, tree: Mapping[str, Any]) -> dict[str, Any]:
    """`pinned`, by the image store of this machine."""
    from orchestrator.cli.images import Opened

    with Opened(scope, write=False) as store:

        def find(name: str) -> str | None:
            image = store.resolve(name) if store is not None else None
            return image.manifest if image is not None else None

        return pinned(tree, find)
