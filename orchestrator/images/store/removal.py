"""Taking images away: when it is refused, in Docker's words, and what was done."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.images import reference as references
from orchestrator.images.store.index import StoredImage
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUser:
    """A container made from an image."""

    container: str
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What was done: familiar names taken away, ids of images and layers deleted."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned(Removal):
    """The same for many images at once, with the bytes that are free now."""

    gained: int = 0


def check(image: StoredImage, name: str, *, by_id: bool, force: bool, users: Sequence[ImageUser]) -> None:
    """Raise UserError when `image`, asked for as `name`, must not go."""
    why = _against_id(image, users, force=force) if by_id else _against_name(image, name, users, force=force)
    if why:
        raise UserError(f"conflict: unable to {why}", exit_code=ExitCode.CONFLICT)


def _against_id(image: StoredImage, users: Sequence[ImageUser], *, force: bool) -> str:
    short = image.id[7:19]
    running = next((user.container for user in users if user.running), None)
    if running is not None:
        used = f"image is being used by running container {running}"
        return f"delete {short} (cannot be forced) - {used}"
    if force:
        return ""
    if len({references.parse(one).repository for one in image.names}) > 1:
        return f"delete {short} (must be forced) - image is referenced in multiple repositories"
    if users:
        used = f"image is being used by stopped container {users[0].container}"
        return f"delete {short} (must be forced) - {used}"
    return ""


def _against_name(image: StoredImage, name: str, users: Sequence[ImageUser], *, force: bool) -> str:
    """Only the last name matters: with another one left the image stays anyway."""
    if force or not users or len(image.names) > 1:
        return ""
    used = f"container {users[0].container} is using its referenced image {image.id[7:19]}"
    return f'remove repository reference "{references.familiar(name)}" (must force) - {used}'
