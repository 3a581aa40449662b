"""A layer's archive becomes files.

    unpacking  files of layers side by side, each in a process of its own
    workers    starts the process that forks workers
    worker     a worker: locked into its target directory
    apply      what it does there
    fetch      what it reads: a blob that is arriving from a registry
    hashing    digests made beside the work
    tar        the tar format: header reader and writer
    inflate    decompression with bounds
    copying    a directory tree -> a layer directory and its tar, in one pass
    meta       the record beside an unpacked layer

Does not belong here: what layers an image has, and where they are kept (`store`).
"""
