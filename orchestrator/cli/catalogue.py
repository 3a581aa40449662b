"""The commands on what is kept, images and volumes, and on registries. Names and flags are docker's."""

from __future__ import annotations

from orchestrator.cli.options import FORMAT, NO_TRUNC, QUIET, SERVICES, TEMPLATE, Argument, Command, Option

_IMAGE_NAMES = Argument("names", many=True, required=True, metavar="IMAGE...")
_IMAGES = (
    "listing:images",
    "List images",
    (
        Option("-a --all", "flag", "All of them (the default)"),
        Option("--digests", "flag", "Show what registries call them"),
        Option("-f --filter", "texts", "Only such (dangling=true, reference=PATTERN ...)", metavar="FILTER"),
        FORMAT,
        NO_TRUNC,
        QUIET,
    ),
    (Argument("name", metavar="[REPOSITORY[:TAG]]"),),
)

_PUSH = (
    "registry:push",
    "Bring images to their registries",
    (
        Option("-a --all-tags", "flag", "All tags of the repository"),
        Option("-q --quiet", "flag", "Print only the names"),
    ),
    (_IMAGE_NAMES,),
)
_PLATFORM = Option("--platform", "text", "For this platform (linux/arm64)", metavar="PLATFORM")
_ALL_TAGS = Option("-a --all-tags", "flag", "All tags of the repository")
_NAMES_ONLY = Option("-q --quiet", "flag", "Print only the names")
_HISTORY = (
    "describe:history",
    "Show how an image came to be, newest first",
    (
        Option("-H --human", "flag", "Sizes and times in words (--human=false: in figures)", on=True),
        FORMAT,
        NO_TRUNC,
        QUIET,
    ),
    (Argument("name", required=True, metavar="IMAGE"),),
)

_RMI = (
    "images:rmi",
    "Remove images, or names of images",
    (
        Option("-f --force", "flag", "Also when a stopped container uses it; no error for what is not here"),
        Option("--no-prune", "flag", "Keep images without names below it (there are none)"),
    ),
    (_IMAGE_NAMES,),
)
_TAG = (
    "images:tag",
    "Give an image another name",
    (),
    (
        Argument("source", required=True, metavar="IMAGE"),
        Argument("target", required=True, metavar="NAME[:TAG]"),
    ),
)
_SAVE = (
    "images:save",
    "Write images into an archive",
    (Option("-o --output", "text", "Archive, in place of standard output", metavar="FILE"),),
    (_IMAGE_NAMES,),
)
_LOAD = (
    "images:load",
    "Load images from an archive (docker save, OCI layout)",
    (
        Option("-i --input", "text", "Archive, in place of standard input", metavar="FILE"),
        Option("-q --quiet", "flag", "Print nothing"),
        Option("--platform", "text", "Of several, the one for this (linux/arm64)", metavar="PLATFORM"),
    ),
)
_IMPORT = (
    "images:import_",
    "Make an image of a directory or a tar file (- is standard input)",
    (
        Option("-c --change", "texts", "Apply a Dockerfile instruction", metavar="INSTRUCTION"),
        Option("-m --message", "text", "Comment for the image's history", metavar="TEXT"),
    ),
    (
        Argument("path", required=True, metavar="DIRECTORY|FILE|-"),
        Argument("name", metavar="[NAME[:TAG]]"),
    ),
)


_FORCE = Option("-f --force", "flag", "Do not ask")
_FILTER = Option("--filter", "texts", "Only such (until=24h, label=KEY)", metavar="FILTER")


def _alone(
    calls: str,
    help: str,  # noqa: A002 - typer's word
    options: tuple[Option, ...] = (),
    arguments: tuple[Argument, ...] = (),
    *,
    hidden: bool = False,
) -> Command:
    """A command that has nothing to do with a stack."""
    return Command(calls, help, options, arguments, hidden=hidden, alone=True)


STORED: dict[str, Command] = {
    "images": _alone(*_IMAGES),
    "image ls": _alone(*_IMAGES),
    "image list": _alone(*_IMAGES, hidden=True),
    "image inspect": _alone(
        "describe:image_inspect", "Show all that is known of images, as JSON", (TEMPLATE,), (_IMAGE_NAMES,)
    ),
    "history": _alone(*_HISTORY),
    "image history": _alone(*_HISTORY),
    "image tree": _alone(
        "describe:tree",
        "Show the layers of images, and which others share them",
        (),
        (Argument("names", many=True, metavar="[IMAGE...]"),),
    ),
    "image prune": _alone(
        "disk:image_prune",
        "Remove images that have no name",
        (
            Option("-a --all", "flag", "All that no container was made from"),
            _FILTER,
            _FORCE,
        ),
    ),
    "image verify": _alone(
        "disk:verify",
        "Check that every blob and layer of the store is what it is called",
        (
            Option("--repair", "flag", "Mend what can be mended"),
            Option("-q --quiet", "flag", "Print only what is wrong"),
        ),
    ),
    "image rm": _alone(*_RMI),
    "image remove": _alone(*_RMI, hidden=True),
    "rmi": _alone(*_RMI),
    "tag": _alone(*_TAG),
    "image tag": _alone(*_TAG),
    "save": _alone(*_SAVE),
    "image save": _alone(*_SAVE),
    "load": _alone(*_LOAD),
    "image load": _alone(*_LOAD),
    "import": _alone(*_IMPORT),
    "image import": _alone(*_IMPORT),
    "pull": Command(
        "pull:pull",
        "Bring images from their registries: by name, or those of services",
        (
            _PLATFORM,
            _ALL_TAGS,
            _NAMES_ONLY,
            Option("--ignore-pull-failures", "flag", "Go on, and succeed, without what can't be had"),
            Option("--ignore-buildable", "flag", "Not what could be built (nothing is)"),
            Option("--include-deps", "flag", "Of the services' dependencies as well"),
            Option(
                "--policy", "text", "Not the services' pull_policy but this", choices=("missing", "always")
            ),
        ),
        (Argument("names", many=True, metavar="[SERVICE|IMAGE...]"),),
    ),
    "image pull": _alone(
        "pull:image_pull",
        "Bring images from their registries",
        (_PLATFORM, _ALL_TAGS, _NAMES_ONLY),
        (_IMAGE_NAMES,),
    ),
    "push": _alone(*_PUSH),
    "image push": _alone(*_PUSH),
    "image signatures": _alone(
        "registry:signatures",
        "List signatures and attestations that a registry has of an image (none is verified)",
        (FORMAT,),
        (Argument("name", required=True, metavar="IMAGE"),),
    ),
    "login": _alone(
        "registry:login",
        "Log in to a registry (Docker Hub when none is named)",
        (
            Option("-u --username", "text", "User name", metavar="NAME"),
            Option("-p --password", "text", "Password or token; seen by all users", metavar="PASSWORD"),
            Option("--password-stdin", "flag", "Read the password from standard input"),
        ),
        (Argument("server"),),
    ),
    "logout": _alone(
        "registry:logout",
        "Forget the password of a registry",
        (),
        (Argument("server"),),
    ),
    "search": _alone(
        "registry:search",
        "Look for repositories on Docker Hub, or at a registry (HOST/WORDS)",
        (
            Option("--limit", "int", "At most so many (25)", metavar="N"),
            Option("-f --filter", "texts", "Only such (stars=N, is-official=true)", metavar="FILTER"),
            Option("--no-trunc", "flag", "Whole descriptions"),
            Option("--list-tags", "flag", "The tags of the repository that is named"),
            FORMAT,
        ),
        (Argument("term", required=True),),
    ),
    "container prune": _alone("disk:container_prune", "Remove all stopped containers", (_FORCE,)),
    "system df": _alone(
        "disk:df",
        "Show what images, containers and volumes take of the disk",
        (Option("-v --verbose", "flag", "Each of them"), FORMAT),
    ),
    "system prune": _alone(
        "disk:system_prune",
        "Remove what is not used: stopped containers, images without a name",
        (
            Option("-a --all", "flag", "All images that no container was made from"),
            Option("--volumes", "flag", "Anonymous volumes as well"),
            _FORCE,
        ),
    ),
    "volumes": Command("volumes:of_stack", "List the volumes of the stack", (QUIET, FORMAT), SERVICES),
    "volume ls": _alone(
        "volumes:ls",
        "List the volumes of this machine",
        (
            QUIET,
            FORMAT,
            Option("-f --filter", "texts", "Only such (dangling=true, name=PART)", metavar="FILTER"),
        ),
    ),
    "volume inspect": _alone(
        "volumes:inspect",
        "Show all that is known of volumes, as JSON",
        (TEMPLATE,),
        (Argument("names", many=True, required=True),),
    ),
    "volume rm": _alone(
        "volumes:rm",
        "Remove volumes that no container uses",
        (Option("-f --force", "flag", "Also of names that there are not"),),
        (Argument("names", many=True, required=True),),
    ),
    "volume prune": _alone(
        "volumes:prune",
        "Remove the anonymous volumes that no container uses",
        (
            Option("-a --all", "flag", "Named ones as well"),
            Option("-f --force", "flag", "Do not ask"),
        ),
    ),
}
