"""Files in and out of containers: `cp`, `diff`, `commit`, `export`.

    packing    a tree, found by descriptors -> a tar stream
    placing    a tar stream -> below a directory, and nowhere else
    finding    what a path of `cp` means, and where things go
    visitor    the worker that lives in a container's root while it copies
    visiting   starts it and talks to it
    delta      what a container has changed: its upper directory against the layers below
    committing a container's changes -> an image with one layer more

Whoever works here may be racing with a hostile container: names are resolved once, to a descriptor, and it is
the descriptor that is looked at, opened and changed.
"""
