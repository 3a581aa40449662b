"""`config --resolve-image-digests` and `--lock-image-digests`: images by what they are, not by a name that
may come to mean something else. A digest is what the image's registry calls it: an image that is here, what
it was called when it came; for another, the registry is asked. An image that was made here has its own.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from orchestrator.images.reference import parse
from orchestrator.model.errors import ExitCode, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.cli.scope import Scope
    from orchestrator.images.store.content import Store
    from orchestrator.model.errors import PystackError


def pinned(
    tree: Mapping[str, Any],
    find: Callable[[str], str | None],
    why: Callable[[str], str] = lambda _: "",
) -> dict[str, Any]:
    """The stack with every image named by its digest, as docker compose writes it: the full name, and the
    tag only where the digest was not given. `find` tells the digest of a full name, `why` why there is none.
    Pure. Raises UserError with all images that have none.
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
            unknown.append(f"{image} (service {name}){why(str(reference))}")
        full = f"{reference.repository}@{digest}" if reference.digest else f"{reference}@{digest}"
        services[name] = {**body, "image": full}
    if unknown:
        raise UserError(
            f"no digest is known of {', '.join(unknown)}",
            exit_code=ExitCode.IMAGE,
            hint="`pystack load -i FILE` brings an image here that no registry has",
        )
    return {**tree, "services": services}


def names(tree: Mapping[str, Any]) -> list[str]:
    """Full names of the images that have no digest yet, each once. Pure. Raises UserError."""
    parsed = [parse(body["image"]) for body in tree["services"].values() if body.get("image")]
    return list(dict.fromkeys(str(one) for one in parsed if not one.digest))


def images_only(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An override file that says nothing but which images. Pure."""
    services = tree["services"].items()
    return {
        "services": {name: {"image": body["image"]} if "image" in body else {} for name, body in services}
    }


def resolved(scope: Scope, tree: Mapping[str, Any]) -> dict[str, Any]:
    """`pinned`, by the images of this machine and by registries. Raises PystackError."""
    from orchestrator.cli.images import Opened

    with Opened(scope, write=False) as store:
        known = {name: digest for name in names(tree) if (digest := _here(store, name))}
    missing = [name for name in names(tree) if name not in known]
    failed: Mapping[str, PystackError] = {}
    if missing:
        import trio

        from orchestrator.cli import say
        from orchestrator.images.registry import current

        found, failed = trio.run(partial(current.digests, missing, os.environ, warn=say.warning))
        known.update(found)
    return pinned(tree, known.get, lambda name: f": {failed[name].message}" if name in failed else "")


def _here(store: Store | None, name: str) -> str:
    """What the registry of a name calls its image, if that is here; of one that never saw a registry, its own
    digest; "" when it is not here.
    """
    image = store.resolve(name) if store is not None else None
    if image is None:
        return ""
    repository = f"{parse(name).repository}@"
    origins = [one for one in image.repo_digests if one.startswith(repository)]
    return origins[0].removeprefix(repository) if origins else image.manifest
