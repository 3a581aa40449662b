"""Images in files: what comes in by `load` and `import`, and goes out by `save`.

loading    the images of an archive come in
spool      an archive's files: where they are, and their digests
candidates images of an archive before they are in the store
saved      what `docker save` writes and wrote
layouts    OCI image layouts
importing  a directory or a tarball becomes an image of one layer
saving     images become an archive
"""
