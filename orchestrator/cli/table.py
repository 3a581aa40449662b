"""Every command with its options, as data. Names, flags and meanings are those of docker compose v2.

Both parsers are made of this one table, `fast` for the usual line and `full` (typer) for help and errors.
"""

from __future__ import annotations

from orchestrator.cli.catalogue import STORED
from orchestrator.cli.options import (
    FORMAT,
    NO,
    NO_TRUNC,
    QUIET,
    SCOPE,
    SERVICES,
    TEMPLATE,
    YES,
    Argument,
    Command,
    Option,
)

__all__ = ["COMMANDS", "NO", "SCOPE", "YES", "Argument", "Command", "Option"]

_CONTAINER = (Argument("container", required=True, metavar="SERVICE|CONTAINER"),)
_TIMEOUT = Option("-t --timeout", "float", "Seconds of grace before SIGKILL", metavar="SECONDS")
_ORPHANS = Option("--remove-orphans", "flag", "Remove containers of services that the file no longer has")
_STRICT = Option("--strict", "flag", "Stricter defaults: no-new-privileges for every service")
_NO_DEPS = Option("--no-deps", "flag", "Leave services that these depend on alone")
_NO_COLOR = Option("--no-color", "flag", "No colours")
_NO_PREFIX = Option("--no-log-prefix", "flag", "No names before the lines")
_TIMESTAMPS = Option("-t --timestamps", "flag", "Show times")
_INDEX = Option("--index", "int", "Number of the replica", metavar="N")
_ENV = Option("-e --env", "texts", "Set a variable", metavar="NAME[=VALUE]")
_USER = Option("-u --user", "text", "Run as this user", metavar="USER[:GROUP]")
_WORKDIR = Option("-w --workdir", "text", "Directory to run in", metavar="DIR")
_NO_TTY = Option("-T --no-tty", "flag", "No terminal for the command")
_INTERACTIVE = Option("-i --interactive", "flag", "Keep standard input open (the default)")
_TTY = Option("-t --tty", "flag", "A terminal for the command (the default on a terminal)")
_DETACH = Option("-d --detach", "flag", "Do not stay attached")
_SCALE = Option("--scale", "texts", "Run N containers of a service", metavar="SERVICE=N")
_PULL = (
    Option(
        "--pull",
        "text",
        "When to pull images, in place of pull_policy",
        choices=("always", "missing", "never"),
    ),
    Option("--quiet-pull", "flag", "Without progress of pulls"),
)
_RUNTIME = Option("--runtime", "text", "What runs services without `runtime` (runc, crun)", metavar="NAME")
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
    SERVICES,
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
            *_PULL,
            _NO_DEPS,
            _ORPHANS,
            _TIMEOUT,
            _STRICT,
            Option("--no-start", "flag", "Create the containers, start none"),
            Option("--no-repair", "flag", "Only report what is changed behind our back, until the next `up`"),
            Option("--plan", "text", "Do what this plan says (`plan --out`), or nothing", metavar="FILE"),
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
        SERVICES,
    ),
    "create": Command(
        "up:create",
        "Create the containers, start none",
        (*_RECREATE, *_PULL, _ORPHANS, _SCALE, _RUNTIME, _STRICT),
        SERVICES,
    ),
    "down": Command(
        "change:down",
        "Stop and remove containers and networks",
        (Option("-v --volumes", "flag", "Remove volumes as well"), _ORPHANS, _TIMEOUT),
    ),
    "start": Command("change:start", "Start existing containers", (), SERVICES),
    "stop": Command("change:stop", "Stop containers", (_TIMEOUT,), SERVICES),
    "restart": Command("change:restart", "Restart containers", (_TIMEOUT, _NO_DEPS), SERVICES),
    "kill": Command(
        "change:kill",
        "Send a signal to containers",
        (Option("-s --signal", "text", "Which one (SIGKILL)", metavar="SIGNAL"),),
        SERVICES,
    ),
    "pause": Command("steer:pause", "Let containers stand still", (), SERVICES),
    "unpause": Command("steer:unpause", "Let paused containers go on", (), SERVICES),
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
        SERVICES,
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
            QUIET,
            FORMAT,
            Option("--services", "flag", "Print the names of the services", name="names_only"),
            Option("--status", "texts", "Only with this state", metavar="STATE"),
            NO_TRUNC,
        ),
        SERVICES,
    ),
    "stats": Command(
        "stats:stats",
        "Show what containers use, as it changes",
        (
            Option("-a --all", "flag", "Those that do not run as well"),
            FORMAT,
            Option("--no-stream", "flag", "Once, not over and over"),
            NO_TRUNC,
        ),
        (Argument("names", many=True, metavar="[SERVICE|CONTAINER...]"),),
    ),
    "top": Command("top:top", "List the processes in containers", (), SERVICES),
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
            Option(
                "--raw",
                "flag",
                "The bytes as they were printed: no names, no times, no end that was not there",
            ),
            _INDEX,
        ),
        SERVICES,
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
            *_PULL,
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
        SERVICES,
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
            FORMAT,
            Option("-o --out", "text", "Keep the plan here, for `up --plan`", metavar="FILE"),
        ),
        SERVICES,
    ),
    "drift": Command(
        "drift:drift",
        "Show what is not as the last `up` wanted it, and change nothing",
        (FORMAT,),
        SERVICES,
    ),
    "repair": Command(
        "drift:repair",
        "Put right what is changed behind our back (as it is unless --no-repair)",
        (Option("--off", "flag", "Only report it from now on"),),
    ),
    "resume": Command(
        "resume:resume",
        "Bring back what ran before the machine was restarted",
        (Option("-t --timeout", "float", "Wait no longer than this (600)", metavar="SECONDS"),),
        (Argument("stacks", many=True),),
    ),
    "systemd install": Command(
        "resume:install",
        "Have systemd resume this stack when the machine starts",
        (
            Option("--user", "flag", "When you log in, in place of when the machine starts"),
            Option("--print", "flag", "Print the unit and change nothing", name="print_only"),
        ),
    ),
    "systemd uninstall": Command(
        "resume:uninstall",
        "Take the stack's unit away",
        (Option("--user", "flag", "The one of your own"),),
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
        SERVICES,
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
        (Option("-a --all", "flag", "Those that do not run as well"), QUIET, FORMAT),
    ),
    "inspect": Command(
        "describe:inspect",
        "Show containers, images, volumes or networks as JSON",
        (
            TEMPLATE,
            Option(
                "--type", "text", "Only of this kind", choices=("container", "image", "volume", "network")
            ),
        ),
        (Argument("names", many=True, required=True, metavar="NAME|ID..."),),
        alone=True,
    ),
    "version": Command(
        "show:version",
        "Print the version",
        (
            Option("--short", "flag", "Only the number"),
            Option("--format", "text", "pretty, json, or a Go template ({{.Version}})", metavar="FORMAT"),
        ),
    ),
    "cp": Command(
        "cp:cp",
        "Copy files between a container and this machine",
        (
            Option("-a --archive", "flag", "Keep the owners of files"),
            Option("-L --follow-link", "flag", "Copy what a link leads to, not the link"),
            Option("-q --quiet", "flag", "Do not tell what has been done"),
            _INDEX,
            Option("--all", "flag", "Containers of `run` as well"),
        ),
        (
            Argument("source", required=True, metavar="SERVICE|CONTAINER:PATH|PATH|-"),
            Argument("destination", required=True, metavar="SERVICE|CONTAINER:PATH|PATH|-"),
        ),
    ),
    "diff": Command(
        "snapshot:diff", "List what a container has added, changed and deleted", (_INDEX,), _CONTAINER
    ),
    "commit": Command(
        "snapshot:commit",
        "Make an image of what a container has become",
        (
            Option("-a --author", "text", "Who made it", metavar="TEXT"),
            Option("-m --message", "text", "Comment for the image's history", metavar="TEXT"),
            Option("-c --change", "texts", "Apply a Dockerfile instruction", metavar="INSTRUCTION"),
            Option("-p --pause", "flag", "Let it stand still meanwhile", on=True),
            _INDEX,
        ),
        (*_CONTAINER, Argument("name", metavar="[REPOSITORY[:TAG]]")),
    ),
    "export": Command(
        "snapshot:export",
        "Write the root of a container as a tar archive",
        (Option("-o --output", "text", "To a file, in place of standard output", metavar="FILE"), _INDEX),
        _CONTAINER,
    ),
    **STORED,
}
