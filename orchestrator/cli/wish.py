"""What the line of an `up` asks of the session that carries it out."""

from __future__ import annotations


class Wish:
    """What is shown, and when it ends; what is to be done stands in the request."""

    def __init__(
        self,
        *,
        services: tuple[str, ...] = (),
        detach: bool = False,
        attach: tuple[str, ...] = (),
        no_attach: tuple[str, ...] = (),
        attach_dependencies: bool = False,
        no_deps: bool = False,
        prefix: bool = True,
        colour: bool = True,
        timestamps: bool = False,
        abort_on_exit: bool = False,
        abort_on_failure: bool = False,
        exit_code_from: str | None = None,
    ) -> None:
        self.services = services
        self.detach = detach
        self.attach = attach
        self.no_attach = no_attach
        self.attach_dependencies = attach_dependencies
        self.no_deps = no_deps
        self.prefix = prefix
        self.colour = colour
        self.timestamps = timestamps
        self.abort_on_exit = abort_on_exit
        self.abort_on_failure = abort_on_failure
        self.exit_code_from = exit_code_from
