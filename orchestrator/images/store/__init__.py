"""The content store: an OCI layout, and layers unpacked once each (docs/store.md).

content    the store itself: resolve, add, tag, remove
index      index.json as values: which names mean which images, and how that changes
leases     what living processes are about to use
partials   blobs that have arrived in part
collecting garbage: what nobody needs any more
catalog    what registries said, and when (SQLite)
pairs      which compressed blobs are which layers
repairs    what must be mended where layers meet
verifying  is everything what it is called; mending it
comparing  two unpacked layers, path by path
rebuilding index.json anew, when it is damaged
removal    when taking an image away is refused
listing    what a list shows of all images, read quickly
describing what `inspect` and `history` show of one
usage      what images take of the disk
"""
