"""Commands and rendering; imports lazily.

    table      every command with its options, as data; both parsers are made of it
    catalogue  the part of it on images, volumes and registries
    options    what it is made of
    fast       argv -> Call, for everything that needs no explanation
    full       the same by typer: help, completion, and a sentence for what is wrong
    scope      what the options before the command select: state root, stack name, the loaded stack
    peek       the stack's name without parsing YAML; pure

    up wish arrange attach up and create: the line, the stack as it changes it, the session that follows
    one oneoff             run: the line, the container and its life in front of the user
    change                 down, start, stop, restart, kill, rm
    execute terminal copy  exec; raw mode and sizes; bytes between descriptors
    show events logs       ps ls port version; events; logs
    config encode pin      config: the resolved file, as docker's JSON, with digests for names
    origin                 config --explain: where a value comes from
    check diagnose schema  check; problems and findings as text, JSON and SARIF; the schema for editors
    plan volumes           plan; volumes, volume ls rm inspect prune
    pull ahead             pull; what an ordinary user's up and run fetch by themselves
    resume                 resume, systemd install|uninstall
    simulate               a stack's life in memory: timeline, verdict, the shortest breach
    listing images         images; load import rmi tag save
    registry               push, login, logout, search
    pull                   pull, image pull
    describe               inspect, history, image tree

    follow record prefix   log files; their lines; names and colours before them
    progress painter       action events -> lines and frames; painting them on a terminal
    columns clock          tables and times as text
    shape template         --format: tables, JSON, and templates in the language of Go
    say failure wakeup     output and errors of a command; signals as a descriptor

Doing and rendering are apart: whatever returns text is pure. Does not belong here: deciding (planner),
the meaning of a stack file (stackfile). The quick commands (ps, logs, exec, down ...) import no model, no
YAML and no typer, nor what would be as slow: dataclasses, typing, pathlib, re; tests hold them to it.
"""
