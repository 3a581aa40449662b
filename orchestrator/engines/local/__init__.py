"""This machine as an engine: our own namespace runtime.

    machine     everything of one state root, shared by all stacks; makes an Engine for each
    engine      the port, for one stack
    places      which file stands where
    records     what is written down about containers, networks and volumes; read back after a crash
    keeper      the supervisor's line to the keeper process, which forks, reaps and holds descriptors
    bundle      pure: a container -> OCI bundle (config.json, launch.json)
    allowed     pure: limits -> OCI's linux.resources
    runtimes    another runtime than ours (`runtime:`): where it is, what it needs
    resolvconf  pure: the texts of /etc/hosts, /etc/hostname and /etc/resolv.conf
    ground      what the bundle needs of the machine, looked up and prepared
    containers  create, start, signal, remove; what happens when one exits
    creating    what `create` makes: directory, files, record
    joining     whose namespaces a run joins
    output      its pump begins and ends
    facts       pure: what should be true of the kernel's objects, and in what it differs from what is
    sighting    looks it up; watching hears from the kernel whom to look at; gathering asks both
    mending     what others have changed is put right (repairs), or told
    wiring      networks: bridges, veths, addresses, published ports
    names       who answers to which name (pure); dns and resolver serve it
    storage     volumes and root filesystems
    pump        FIFO or terminal -> log file; loses nothing when we are killed
    logs        the log file: its records, its rotation
    turns       whoever floods gives way to the others
    lines       whether a run has printed the line that says that it is ready; readiness keeps book of it
    hostfiles   the host's files that configs and secrets come from, watched; swapping exchanges them
    probes      one run of a health check's command
    asking      health checks without one: by TCP and HTTP
    execs       further processes in a container

Nothing here decides: names, addresses, ports and times come with the action.
"""
