"""The command `pystack-oci`: our runtime with the command line that OCI runtimes share.

What others call: conmon and podman, containerd's shim, test suites. It speaks runc's words, prints what runc
prints and leaves with runc's exit codes, so nothing that drives runc has to know.

    __main__     the way in: parse, call, report
    table        the commands and their options, as data
    arguments    a command line -> Call; pure
    journal      where errors and warnings are written: standard error, --log
    complaint    the error that ends a command
    grammar      the form of config.json, as data
    validate     a document against the grammar; pure
    bundle       a bundle directory -> what the launcher takes
    record       what is remembered of a container between commands, below --root
    status       what became of it: asks the kernel, trusts no pid
    hierarchy    its control groups
    create, start, run, kill, delete, execute, pause, update     commands that act
    state, processes, events, features, spec                     commands that tell

Each command is a process of its own with a single thread, which may fork. Standard library and `kernel`
only, and each command imports what it needs, so that `state` answers in milliseconds. Containers of
`pystack up` are none of this room's business: the engine keeps them.
"""
