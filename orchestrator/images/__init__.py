"""Images on this machine: names, content store, archives, layers; and the root assembled from the host.

    reference  names of images: familiar ("redis") and full ("docker.io/library/redis:latest")
    config     an image's run defaults as a frozen value, from the JSON it came with
    store      the content store: an OCI layout plus layers unpacked once each; resolve, tag, remove
    scratch    locks and the directories of work in flight
    tar        the tar format: header reader and writer
    apply      the worker that unpacks one layer, locked into its target directory
    layers     starts the worker; what must be repaired where layers meet
    archive    load: docker-save archives and OCI layouts
    importing  import: a directory or a tarball becomes an image of one layer
    copying    a directory tree -> a layer directory and its tar, in one pass
    changes    `--change` instructions (CMD, ENV ...) -> a config
    hostroot   a root file system made of this machine's own /usr and the harmless part of /etc

Does not belong here: mounting a root (engines/local), what a container runs (kernel), terminal output (cli).
Everything that comes out of an archive is hostile until proven otherwise.
"""
