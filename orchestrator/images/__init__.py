"""Images on this machine: names, content store, archives, layers; and the root assembled from the host.

    reference  names of images: familiar ("redis") and full ("docker.io/library/redis:latest")
    config     an image's run defaults as a frozen value, from the JSON it came with
    store      the content store: an OCI layout plus layers unpacked once each; resolve, tag, remove
    index      index.json as values: which names mean which images, and how that changes
    listing    what a list shows of all images, read quickly
    removal    when taking an image away is refused
    meta       the record beside an unpacked layer
    scratch    locks and the directories of work in flight
    leases     what living processes are about to use
    partials   blobs that have arrived in part
    collecting garbage: what nobody needs any more
    catalog    what registries said, and when (SQLite)
    verifying  is everything what it is called; mending it
    usage      what images take of the disk
    comparing  two unpacked layers, path by path
    rebuilding index.json anew, when it is damaged

    archive    load: the images of an archive come in
    saved      what `docker save` writes and wrote
    layouts    OCI image layouts
    candidates images of an archive before they are in the store
    spool      an archive's files: where they are, and their digests
    importing  import: a directory or a tarball becomes an image of one layer
    copying    a directory tree -> a layer directory and its tar, in one pass
    changes    `--change` instructions (CMD, ENV ...) -> a config
    wording    quotes and variables in them

    layers     unpacking files of layers side by side
    workers    starts the process that forks workers
    worker     a worker: a process of its own, locked into its target directory
    apply      what it does there: a layer's archive becomes files
    fetch      what it reads: a blob that is arriving from a registry
    hashing    digests made beside the work
    repairs    what must be mended where layers meet
    tar        the tar format: header reader and writer
    inflate    decompression with bounds
    trees      writing and removing trees that came from elsewhere

    pulling    a name -> an image in the store
    arriving   its layers on their way in
    push       an image goes to its registry
    packing    plain layers are compressed before that
    registry/  everything that speaks to a registry

    hostroot   a root file system made of this machine's own /usr and the harmless part of /etc

Does not belong here: mounting a root (engines/local), what a container runs (kernel), terminal output (cli).
Everything that comes out of an archive is hostile until proven otherwise.
"""
