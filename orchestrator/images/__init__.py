"""Images on this machine: names, content store, archives, layers; and the root assembled from the host.

    reference  names of images: familiar ("redis") and full ("docker.io/library/redis:latest")
    config     an image's run defaults as a frozen value, from the JSON it came with
    changes    `--change` instructions (CMD, ENV ...) -> a config
    wording    quotes and variables in them
    scratch    locks and the directories of work in flight
    trees      writing and removing trees that came from elsewhere

    registry/  everything that speaks to a registry
    layers/    a layer's archive becomes files
    store/     the content store
    archives/  load, save, import
    transfer/  pull and push
    files/     cp, diff, commit, export

    hostroot   a root file system made of this machine's own /usr and the harmless part of /etc

Does not belong here: mounting a root (engines/local), what a container runs (kernel), terminal output (cli).
Everything that comes out of an archive is hostile until proven otherwise.
"""
