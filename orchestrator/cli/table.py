"""Every command with its options, as data. Names, flags and meanings are those of docker compose v2.

Both parsers are made of this one table, `fast` for the usual line and `full` (typer) for help and errors.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["flag", "text", "texts", "int", "float"]


class Option:
    """One option: the keyword it becomes, the flags that give it, what its value is.

    "flag" needs no value, "texts" may be given several times. Without the option the value is False, () or
    None, or for a flag that is `on` True: then only `--flag=false` tells anything. `choices` are the only
    values allowed.
    """

    __slots__ = ("choices", "flags", "help", "hidden", "kind", "metavar", "name", "on")

    def __init__(
        self,
        flags: str,
        kind: Kind,
        help: str = "",  # noqa: A002 - typer's word
        *,
        name: str = "",
        metavar: str = "",
        choices: tuple[str, ...] = (),
        hidden: bool = False,
        on: bool = False,
    ) -> None:
        self.flags = tuple(flags.split())
        self.name = name or self.flags[-1].lstrip("-").replace("-", "_")
        self.kind = kind
        self.help = help
        self.metavar = metavar or ("|".join(choices) if choices else "")
        self.choices = choices
        self.hidden = hidden
        self.on = on

    @property
    def absent(self) -> object:
        """The value when the option is not given."""
        return {"flag": self.on, "texts": ()}.get(self.kind)


class Argument:
    """Positional words: `many` takes all that are left (a tuple), else one, None when absent."""

    __slots__ = ("many", "metavar", "name", "required")

    def __init__(self, name: str, *, many: bool = False, required: bool = False, metavar: str = "") -> None:
        self.name = name
        self.metavar = metavar
        self.many = many
        self.required = required


class Command:
    """One command: `module:function` in this room is called with the scope and a keyword for every
    option and argument. `program` says that options end at the first word (`exec web ls -l`).
    """

    __slots__ = ("arguments", "calls", "help", "hidden", "options", "program")

    def __init__(
        self,
        calls: str,
        help: str,  # noqa: A002 - typer's word
        options: tuple[Option, ...] = (),
        arguments: tuple[Argument, ...] = (),
        *,
        program: bool = False,
        hidden: bool = False,
    ) -> None:
        self.calls = calls
        self.help = help
        self.arguments = arguments
        self.program = program
        self.hidden = hidden
        taken = {flag for option in options for flag in option.flags}
        rest = (_without(option, taken) for option in SCOPE)
        self.options = options + tuple(option for option in rest if option is not None)


def _without(option: Option, taken: set[str]) -> Option | None:
    """A scope option, less the flags that the command uses for something else."""
    flags = [flag for flag in option.flags if flag not in taken]
    if not flags or option.name == "version":
        return None
    if len(flags) == len(option.flags):
        return option
    return Option(
        " ".join(flags),
        option.kind,
        option.help,
        name=option.name,
        metavar=option.metavar,
        choices=option.choices,
    )


YES = ("1", "t", "T", "true", "TRUE", "True")
NO = ("0", "f", "F", "false", "FALSE", "False")
"""What a flag may be given behind `=`, as in Go's strconv.ParseBool."""
PROGRESS = ("auto", "tty", "plain", "json", "quiet")
SCOPE = (
    Option("-f --file", "texts", "Stack file; several are merged, - is standard input", metavar="FILE"),
    Option("-p --project-name", "text", "Name of the stack", metavar="NAME"),
    Option("--project-directory", "text", "Base of relative paths", metavar="DIR"),
    Option("--profile", "texts", "Enable a profile (* for all)", metavar="NAME"),
    Option("--env-file", "texts", "Read variables from here in place of .env", metavar="FILE"),
    Option("--ansi", "text", "Colours and cursor movement", choices=("never", "always", "auto")),
    Option("--progress", "text", "How progress is shown", choices=PROGRESS),
    Option("--root", "text", "Directory for all state (PYSTACK_ROOT)", metavar="DIR"),
    Option("-v --version", "flag", "Print the version"),
)
"""Accepted before the command and, where the command has no such flag of its own, after it."""

_SERVICES = (Argument("services", many=True),)
_TIMEOUT = Option("-t --timeout", "float", "Seconds of grace before SIGKILL", metavar="SECONDS")
_ORPHANS = Option("--remove-orphans", "flag", "Remove containers of services that the file no longer has")
_STRICT = Option("--strict", "flag", "Stricter defaults: no-new-privileges for every service")
_NO_DEPS = Option("--no-deps", "flag", "Leave services that these depend on alone")
_NO_COLOR = Option("--no-color", "flag", "No colours")
_NO_PREFIX = Option("--no-log-prefix", "flag", "No names before the lines")
_TIMESTAMPS = Option("-t --timestamps", "flag", "Show times")
_QUIET = Option("-q --quiet", "flag", "Only ids or names")
_NO_TRUNC = Option("--no-trunc", "flag", "Do not shorten")
_INDEX = Option("--index", "int", "Number of the replica", metavar="N")
_ENV = Option("-e --env", "texts", "Set a variable", metavar="NAME[=VALUE]")
_USER = Option("-u --user", "text", "Run as this user", metavar="USER[:GROUP]")
_WORKDIR = Option("-w --workdir", "text", "Directory to run in", metavar="DIR")
_NO_TTY = Option("-T --no-tty", "flag", "No terminal for the command")
_INTERACTIVE = Option("-i --interactive", "flag", "Keep standard input open (the default)")
_TTY = Option("-t --tty", "flag", "A terminal for the command (the default on a terminal)")
_DETACH = Option("-d --detach", "flag", "Do not stay attached")
_SCALE = Option("--scale", "texts", "Run N containers of a service", metavar="SERVICE=N")
_RUNTIME = Option("--runtime", "text", "What runs services without `runtime` (runc, crun)", metavar="NAME")
_TEMPLATE = Option("-f --format", "text", "json, or a Go template for each ({{.Id}})", metavar="FORMAT")
_FORMAT = Option("--format", "text", "table, json, or a Go template ({{.Name}})", metavar="FORMAT")
_RECREATE = (
    Option("--force-recreate", "flag", "Replace containers even when nothing has changed"),
    Option("--no-recreate", "flag", "Keep containers even when their definition has changed"),
)

_CONFIG = (
    "config:config",
    "Check the stack file and print it resolved",
    (
        Option("--format", "text", "How to show it", choices=("yaml", "json")),
        Option("-q --quiet", "flag", "Only check"),
        Option("-o --output", "text", "Write it here", metavar="FILE"),
        Option("--services", "flag", "Print the names of the services", name="names_only"),
        Option("--volumes", "flag", "Print the names of the volumes"),
        Option("--networks", "flag", "Print the names of the networks"),
        Option("--models", "flag", "Print the names of the models"),
        Option("--images", "flag", "Print the names of the images"),
        Option("--profiles", "flag", "Print the names of the profiles"),
        Option("--hash", "text", "Print the fingerprints of services (a,b or *)", metavar="SERVICE"),
        Option("--variables", "flag", "Print the variables that the file uses, and their defaults"),
        Option("--environment", "flag", "Print the variables that interpolation takes values from"),
        Option("--explain", "text", "Tell where a value comes from (services.web.image)", metavar="PATH"),
        Option("--no-interpolate", "flag", "Leave variables as they are written"),
        Option("--no-normalize", "flag", "Leave out names and what follows from other keys"),
        Option("--no-path-resolution", "flag", "Leave relative paths as they are"),
        Option("--no-consistency", "flag", "Do not check that what is named is defined"),
        Option("--no-env-resolution", "flag", "Do not read env files"),
        Option("--resolve-image-digests", "flag", "Pin the images to their digests"),
        Option("--lock-image-digests", "flag", "Print an override file that pins the images"),
    ),
    _SERVICES,
)

_IMAGE_NAMES = Argument("names", many=True, required=True, metavar="IMAGE...")
_IMAGES = (
    "listing:images",
    "List images",
    (
        Option("-a --all", "flag", "All of them (the default)"),
        Option("--digests", "flag", "Show what registries call them"),
        Option("-f --filter", "texts", "Only such (dangling=true, reference=PATTERN ...)", metavar="FILTER"),
        _FORMAT,
        _NO_TRUNC,
        _QUIET,
    ),
    (Argument("name", metavar="[REPOSITORY[:TAG]]"),),
)

_PUSH = (
    "registry:push",
    "Bring an image to its registry",
    (
        Option("-a --all-tags", "flag", "All tags of the repository"),
        Option("-q --quiet", "flag", "Print only the names"),
    ),
    (Argument("name", required=True),),
)
_HISTORY = (
    "describe:history",
    "Show how an image came to be, newest first",
    (
        Option("-H --human", "flag", "Sizes and times in words (--human=false: in figures)", on=True),
        _FORMAT,
        _NO_TRUNC,
        _QUIET,
    ),
    (Argument("name", required=True, metavar="IMAGE"),),
)

COMMANDS: dict[str, Command] = {
    "up": Command(
        "up:up",
        "Create and start the stack",
        (
            _DETACH,
            Option("--wait", "flag", "Return when the services are running or healthy; detached"),
            Option("--wait-timeout", "float", "Give up --wait after this", metavar="SECONDS"),
            _SCALE,
            *_RECREATE,
            _NO_DEPS,
            _ORPHANS,
            _TIMEOUT,
            _STRICT,
            Option("--no-start", "flag", "Create the containers, start none"),
            _RUNTIME,
            Option("--abort-on-container-exit", "flag", "Stop everything when one container ends"),
            Option("--abort-on-container-failure", "flag", "Stop everything when one container fails"),
            Option("--exit-code-from", "text", "Return this service's exit code", metavar="SERVICE"),
            _NO_PREFIX,
            _NO_COLOR,
            Option("--timestamps", "flag", "Show times"),
            Option("--attach", "texts", "Show the output of this service only", metavar="SERVICE"),
            Option("--no-attach", "texts", "Do not show the output of this service", metavar="SERVICE"),
            Option("--attach-dependencies", "flag", "Show the output of needed services as well"),
        ),
        _SERVICES,
    ),
    "create": Command(
        "up:create",
        "Create the containers, start none",
        (*_RECREATE, _ORPHANS, _SCALE, _RUNTIME, _STRICT),
        _SERVICES,
    ),
    "down": Command(
        "change:down",
        "Stop and remove containers and networks",
        (Option("-v --volumes", "flag", "Remove volumes as well"), _ORPHANS, _TIMEOUT),
    ),
    "start": Command("change:start", "Start existing containers", (), _SERVICES),
    "stop": Command("change:stop", "Stop containers", (_TIMEOUT,), _SERVICES),
    "restart": Command("change:restart", "Restart containers", (_TIMEOUT, _NO_DEPS), _SERVICES),
    "kill": Command(
        "change:kill",
        "Send a signal to containers",
        (Option("-s --signal", "text", "Which one (SIGKILL)", metavar="SIGNAL"),),
        _SERVICES,
    ),
    "pause": Command("steer:pause", "Let containers stand still", (), _SERVICES),
    "unpause": Command("steer:unpause", "Let paused containers go on", (), _SERVICES),
    "update": Command(
        "steer:update",
        "Change limits of containers while they run (0 lifts one)",
        (
            Option("-m --memory", "text", "Memory (64m)", metavar="BYTES"),
            Option("--memory-swap", "text", "Memory and swap together, -1 for any swap", metavar="BYTES"),
            Option("--memory-reservation", "text", "Memory left to it when it is short", metavar="BYTES"),
            Option("--cpus", "float", "Cores (1.5)", metavar="CORES"),
            Option("-c --cpu-shares", "int", "Weight against others (1024)", metavar="SHARES"),
            Option("--cpu-quota", "text", "Microseconds of each period", metavar="MICROSECONDS"),
            Option("--cpu-period", "int", "Length of the period (100000)", metavar="MICROSECONDS"),
            Option("--cpuset-cpus", "text", "Cores it may run on (0-2,4)", metavar="LIST"),
            Option("--cpuset-mems", "text", "Memory nodes it may use", metavar="LIST"),
            Option("--pids-limit", "text", "Processes and threads, -1 for any number", metavar="N"),
            Option("--blkio-weight", "int", "Weight at block devices, 10 to 1000", metavar="WEIGHT"),
            Option("--restart", "text", "Restart policy (on-failure:3)", metavar="POLICY"),
        ),
        (Argument("names", many=True, required=True, metavar="SERVICE|CONTAINER..."),),
    ),
    "rm": Command(
        "change:rm",
        "Remove stopped containers",
        (
            Option("-f --force", "flag", "Do not ask"),
            Option("-s --stop", "flag", "Stop them first"),
            Option("-v --volumes", "flag", "Remove their anonymous volumes as well"),
        ),
        _SERVICES,
    ),
    "scale": Command(
        "up:scale",
        "Run other numbers of containers of services",
        (_NO_DEPS, _STRICT),
        (Argument("counts", many=True, required=True, metavar="SERVICE=N"),),
    ),
    "ps": Command(
        "show:ps",
        "List containers",
        (
            Option("-a --all", "flag", "Those that do not run as well"),
            _QUIET,
            _FORMAT,
            Option("--services", "flag", "Print the names of the services", name="names_only"),
            Option("--status", "texts", "Only with this state", metavar="STATE"),
            _NO_TRUNC,
        ),
        _SERVICES,
    ),
    "stats": Command(
        "stats:stats",
        "Show what containers use, as it changes",
        (
            Option("-a --all", "flag", "Those that do not run as well"),
            _FORMAT,
            Option("--no-stream", "flag", "Once, not over and over"),
            _NO_TRUNC,
        ),
        (Argument("names", many=True, metavar="[SERVICE|CONTAINER...]"),),
    ),
    "top": Command("top:top", "List the processes in containers", (), _SERVICES),
    "logs": Command(
        "logs:logs",
        "Show what the containers have written",
        (
            Option("-f --follow", "flag", "Go on as it grows"),
            Option("-n --tail", "text", "Only the last N lines of each container", metavar="N"),
            Option("--since", "text", "Only from this time on (2026-01-02T13:00:00Z, 10m)", metavar="TIME"),
            Option("--until", "text", "Only before this time", metavar="TIME"),
            _TIMESTAMPS,
            _NO_PREFIX,
            _NO_COLOR,
            _INDEX,
        ),
        _SERVICES,
    ),
    "exec": Command(
        "execute:execute",
        "Run a command in a running container",
        (
            _DETACH,
            _ENV,
            _NO_TTY,
            _USER,
            _WORKDIR,
            _INDEX,
            Option("--privileged", "flag", "With all capabilities"),
            _INTERACTIVE,
            _TTY,
        ),
        (Argument("service", required=True), Argument("command", many=True, required=True)),
        program=True,
    ),
    "run": Command(
        "one:run",
        "Run a command in a new container of a service",
        (
            Option("--rm", "flag", "Remove the container when it has ended"),
            _DETACH,
            _ENV,
            Option("--entrypoint", "text", "Replace the entrypoint", metavar="COMMAND"),
            _NO_TTY,
            _INTERACTIVE,
            _TTY,
            _USER,
            _WORKDIR,
            Option("-v --volume", "texts", "Add a mount", metavar="SOURCE:TARGET"),
            Option("-P --service-ports", "flag", "Publish the service's ports"),
            Option("-p --publish", "texts", "Publish a port", metavar="HOST:CONTAINER"),
            Option("--name", "text", "Name of the container", metavar="NAME"),
            _NO_DEPS,
            _STRICT,
            Option("-l --label", "texts", "Add a label", metavar="NAME=VALUE"),
            _RUNTIME,
        ),
        (Argument("service", required=True), Argument("command", many=True)),
        program=True,
    ),
    "config": Command(*_CONFIG),
    "convert": Command(*_CONFIG, hidden=True),
    "check": Command(
        "check:check",
        "Look for what is wrong, risky or not meant in the stack file",
        (
            Option("--strict", "flag", "Warnings fail, too"),
            Option("--format", "text", "How to show it", choices=("text", "json", "sarif")),
            Option("--ignore", "texts", "Leave out a finding (code or name)", metavar="CODE"),
        ),
        _SERVICES,
    ),
    "schema": Command(
        "schema:schema",
        "Print the JSON Schema of stack files, for editors",
        (Option("-o --output", "text", "Write it here", metavar="FILE"),),
    ),
    "plan": Command(
        "plan:plan",
        "Show what `up` would do",
        (
            Option("--down", "flag", "Show what `down` would do"),
            _SCALE,
            _RUNTIME,
            *_RECREATE,
            _NO_DEPS,
            _ORPHANS,
            _STRICT,
            _FORMAT,
        ),
        _SERVICES,
    ),
    "simulate": Command(
        "simulate:simulate",
        "Play the stack's life on a machine in memory, with the laws watched",
        (
            Option("--seed", "int", "Of all that is random; the same seed is the same history", metavar="N"),
            Option("--runs", "int", "So many seeds, one after the other", metavar="N"),
            Option("--days", "float", "How long it lasts", metavar="DAYS"),
            Option("--faults", "text", "A scenario: what breaks, and when", metavar="FILE"),
            Option("-q --quiet", "flag", "Only how it ended"),
            Option("--format", "text", "How to show it", choices=("text", "json")),
        ),
    ),
    "events": Command(
        "events:events",
        "Show what is done, as it happens",
        (
            Option("--json", "flag", "One JSON object a line"),
            Option("--since", "text", "Begin with this time (2026-01-02T13:00:00Z, 10m)", metavar="TIME"),
            Option("--until", "text", "Stop at this time", metavar="TIME"),
        ),
        _SERVICES,
    ),
    "port": Command(
        "show:port",
        "Print the host address of a container's port",
        (Option("--protocol", "text", "", choices=("tcp", "udp")), _INDEX),
        (Argument("service", required=True), Argument("private_port", required=True)),
    ),
    "ls": Command(
        "show:ls",
        "List stacks",
        (Option("-a --all", "flag", "Those that do not run as well"), _QUIET, _FORMAT),
    ),
    "images": Command(*_IMAGES),
    "image ls": Command(*_IMAGES),
    "image list": Command(*_IMAGES, hidden=True),
    "image inspect": Command(
        "describe:image_inspect", "Show all that is known of images, as JSON", (_TEMPLATE,), (_IMAGE_NAMES,)
    ),
    "history": Command(*_HISTORY),
    "image history": Command(*_HISTORY),
    "image tree": Command(
        "describe:tree",
        "Show the layers of images, and which others share them",
        (),
        (Argument("names", many=True, metavar="[IMAGE...]"),),
    ),
    "inspect": Command(
        "describe:inspect",
        "Show all that is known of containers, images, volumes or networks, as JSON",
        (
            _TEMPLATE,
            Option("--type", "text", "", choices=("container", "image", "volume", "network")),
        ),
        (Argument("names", many=True, required=True, metavar="NAME|ID..."),),
    ),
    "load": Command(
        "images:load",
        "Load images from an archive (docker save, OCI layout)",
        (
            Option("-i --input", "text", "Archive, in place of standard input", metavar="FILE"),
            Option("-q --quiet", "flag", "Print nothing"),
            Option("--platform", "text", "Of several, the one for this (linux/arm64)", metavar="PLATFORM"),
        ),
    ),
    "import": Command(
        "images:import_",
        "Make an image of a directory or a tar file",
        (
            Option("-c --change", "texts", "Apply a Dockerfile instruction", metavar="INSTRUCTION"),
            Option("-m --message", "text", "Comment for the image's history", metavar="TEXT"),
        ),
        (Argument("path", required=True), Argument("name")),
    ),
    "rmi": Command(
        "images:rmi",
        "Remove images",
        (Option("--force", "flag", "Also when a stopped container uses it"),),
        (Argument("names", many=True, required=True),),
    ),
    "push": Command(*_PUSH),
    "image push": Command(*_PUSH, hidden=True),
    "login": Command(
        "registry:login",
        "Log in to a registry (Docker Hub when none is named)",
        (
            Option("-u --username", "text", "User name", metavar="NAME"),
            Option("-p --password", "text", "Password or token; seen by all users", metavar="PASSWORD"),
            Option("--password-stdin", "flag", "Read the password from standard input"),
        ),
        (Argument("server"),),
    ),
    "logout": Command(
        "registry:logout",
        "Forget the password of a registry",
        (),
        (Argument("server"),),
    ),
    "search": Command(
        "registry:search",
        "Look for repositories on Docker Hub, or at a registry (HOST/WORDS)",
        (
            Option("--limit", "int", "At most so many (25)", metavar="N"),
            Option("-f --filter", "texts", "Only such (stars=N, is-official=true)", metavar="FILTER"),
            Option("--no-trunc", "flag", "Whole descriptions"),
            Option("--list-tags", "flag", "The tags of the repository that is named"),
            _FORMAT,
        ),
        (Argument("term", required=True),),
    ),
    "volumes": Command("volumes:of_stack", "List the volumes of the stack", (_QUIET, _FORMAT), _SERVICES),
    "volume ls": Command(
        "volumes:ls",
        "List the volumes of this machine",
        (
            _QUIET,
            _FORMAT,
            Option("-f --filter", "texts", "Only such (dangling=true, name=PART)", metavar="FILTER"),
        ),
    ),
    "volume inspect": Command(
        "volumes:inspect",
        "Show all that is known of volumes, as JSON",
        (_TEMPLATE,),
        (Argument("names", many=True, required=True),),
    ),
    "volume rm": Command(
        "volumes:rm",
        "Remove volumes that no container uses",
        (Option("-f --force", "flag", "Also of names that there are not"),),
        (Argument("names", many=True, required=True),),
    ),
    "volume prune": Command(
        "volumes:prune",
        "Remove the anonymous volumes that no container uses",
        (
            Option("-a --all", "flag", "Named ones as well"),
            Option("-f --force", "flag", "Do not ask"),
        ),
    ),
    "version": Command(
        "show:version",
        "Print the version",
        (
            Option("--short", "flag", "Only the number"),
            Option("--format", "text", "pretty, json, or a Go template ({{.Version}})", metavar="FORMAT"),
        ),
    ),
}
