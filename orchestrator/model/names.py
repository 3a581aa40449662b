"""Names: of containers, networks and volumes as Compose forms them, and of stacks as the user may give them.

Sources: Compose Specification "name"; docker compose v2 behaviour (observed).
"""

from __future__ import annotations

import re

STACK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
SERVICE_NAME = re.compile(r"[a-zA-Z0-9._-]+")
CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def normalise_stack_name(text: str) -> str:
    """A stack name from a folder or a file's `name:`; "" when nothing usable is left."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def container_name(stack: str, service: str, slot: int) -> str:
    return f"{stack}-{service}-{slot}"


def oneoff_name(stack: str, service: str, token: str) -> str:
    return f"{stack}-{service}-run-{token}"


def step_name(stack: str, service: str, number: int, slot: int | None) -> str:
    """Of a container of `pre_start`; `slot`: of the container that it is run for, if not for all."""
    return f"{stack}-{service}-pre_start-{number}" + ("" if slot is None else f"-{slot}")


def scoped_name(stack: str, key: str) -> str:
    """Name on the machine of a network or volume that the file names only by its key."""
    return f"{stack}_{key}"
