"""Text -> Stack, one file a phase; errors point at file:line:column.

    discover     which files make up the stack; where the project directory, .env and the name come from
    read         YAML text -> tree (maps and lists that know where each key and value was written)
    interpolate  $VARIABLES in the values of a tree
    combine      several files or documents -> one tree, by the rules of the Compose merge specification
    check        is the tree what our JSON Schemas allow: a fast yes or no
    explain      why not, in sentences (the only user of the jsonschema package)
    shorthand    short forms -> the long, canonical ones (long, forms, ports, mounts, words, quantity do it)
    enable       which services the profiles and the command line switch on
    complete     canonical tree -> names, absolute paths, environments, implied dependencies, nothing unused
    resolve      complete tree -> model.Stack (recipe, wiring, placed, limits: its parts)
    unsupported  the one table of keys that are refused, warned about, or without a meaning on one machine
    reference    the page that lists every key
    dotenv       the format of .env and env_file
    load         the whole way, and the only entry for other rooms

The room is pure: text comes in through the `Files` that the caller passes; nothing here asks the clock, the
environment or the disk (the JSON Schemas, which are part of the package, excepted).
Does not belong here: commands, defaults that depend on the machine, anything that runs.
"""
