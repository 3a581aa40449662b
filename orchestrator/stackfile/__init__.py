"""Text -> Stack, one file a phase; errors point at file:line:column.

    discover     which files make up the stack; where the project directory, .env and the name come from
    read         YAML text -> tree (maps and lists that know where each key and value was written)
    interpolate  $VARIABLES in the values of a tree
    gather       the documents of a part -> one tree: variables, extends, include, then combine
    extends      services that stand on others, of their own file or of another
    include      files that are part of another: where they count from, what they bring in, what conflicts
    intake       the files that come in so, read once, counted
    paths        relative paths -> absolute ones, before trees of different directories meet
    combine      several files or documents -> one tree, by the rules of the Compose merge specification
    trail        how a value came to be, for `config --explain`
    check        is the tree what our JSON Schemas allow: a fast yes or no
    explain      why not, in sentences (the only user of the jsonschema package)
    shorthand    short forms -> the long, canonical ones (long, sections, forms, ports, mounts, words do it)
    enable       which services the profiles and the command line switch on
    complete     canonical tree -> names, absolute paths, environments, implied dependencies, nothing unused
                 (contexts: those of build and develop sections)
    resolve      complete tree -> model.Stack (recipe, wiring, placed, borrowed, limits, carried: its parts;
                 sound: what no container could be started with)
    unsupported  the one table of keys that commands refuse to run, warn about, or that mean nothing here
    reference    the page that lists every key
    dotenv       the format of .env and env_file
    load         the whole way, and the only entry for other rooms
    outline      the way with some steps left out (switches), for `config --no-...`; variables: which are used
    sift         what is right in a tree that is not, so that one look finds all that is wrong
    write        plain data -> YAML text

    findings     what is allowed and yet better looked at: the table of rules, and `find`
    finding      what a rule is, looks at and finds; risks and doubts are the rules
    catalogue    the page that lists every finding and error

The room is pure: text comes in through the `Files` that the caller passes; nothing here asks the clock, the
environment or the disk (the JSON Schemas, which are part of the package, excepted).
Does not belong here: commands, defaults that depend on the machine, anything that runs.
"""
