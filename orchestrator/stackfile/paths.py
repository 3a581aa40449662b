"""Relative paths of a tree -> absolute ones, before it meets the tree of another directory.

Works on trees as they were written, long forms and short ones; what has the wrong shape stays as it is, for
`check` to tell. Which paths count from the file's own directory: docker compose 2.40.3, observed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.stackfile import mounts
from orchestrator.stackfile.tree import Map, Node, Seq, Tagged

Move = Callable[[Node], Node]
_REMOTE = ("git@", "github.com/", "service:")


def move(tree: Map, folder: str, home: str) -> Map:
    """The tree with the relative paths of services, volumes, configs and secrets counted from `folder`."""

    def absolute(path: Node) -> Node:
        return mounts.absolute(path, folder, home) if isinstance(path, str) and path else path

    moved = _keys(tree, _rules(absolute))
    assert isinstance(moved, Map)
    return moved


def settle_contexts(tree: Map, folder: str) -> Map:
    """The tree with the build context of services that build and name none: the directory of their file."""

    def build(node: Node) -> Node:
        if not isinstance(node, Map) or node.get("context") is not None:
            return node
        settled = node.copy()
        settled["context"] = folder
        return settled

    settled = _keys(tree, {"services": _every({"build": build})})
    assert isinstance(settled, Map)
    return settled


def is_local(context: str) -> bool:
    """Is a build context a directory of this machine?"""
    return "://" not in context and not context.startswith(_REMOTE)


def _rules(absolute: Move) -> Mapping[str, Move]:
    def context(node: Node) -> Node:
        return absolute(node) if isinstance(node, str) and is_local(node) else node

    def contexts(node: Node) -> Node:
        return _each(node, lambda entry: _after("=", entry, context), context)

    def build(node: Node) -> Node:
        rules = {"context": context, "additional_contexts": contexts}
        return context(node) if isinstance(node, str) else _keys(node, rules)

    def mount(node: Node) -> Node:
        if isinstance(node, str):
            source, colon, rest = node.partition(":")
            return f"{absolute(source)}{colon}{rest}" if colon and source.startswith(".") else node
        is_bind = isinstance(node, Map) and node.get("type") == "bind"
        return _keys(node, {"source": absolute}) if is_bind else node

    def env_file(node: Node) -> Node:
        return absolute(node) if isinstance(node, str) else _keys(node, {"path": absolute})

    def seccomp(node: Node) -> Node:
        named = isinstance(node, str) and node.partition("=")[2] not in ("unconfined", "builtin")
        isolated = named and isinstance(node, str) and node.startswith("seccomp=")
        return _after("=", node, absolute) if isolated else node

    def watch(node: Node) -> Node:
        return _each(node, lambda entry: _keys(entry, {"path": absolute}))

    service: Mapping[str, Move] = {
        "build": build,
        "env_file": lambda node: _each(node, env_file) if isinstance(node, Seq) else env_file(node),
        "label_file": lambda node: _each(node, absolute) if isinstance(node, Seq) else absolute(node),
        "volumes": lambda node: _each(node, mount) if isinstance(node, Seq) else node,
        "security_opt": lambda node: _each(node, seccomp) if isinstance(node, Seq) else node,
        "develop": lambda node: _keys(node, {"watch": watch}),
        "x-rootfs": lambda node: _keys(node, {"path": absolute}),
    }
    return {
        "services": _every(service),
        "volumes": lambda node: _each(node, lambda volume: _device(volume, absolute)),
        "configs": _every({"file": absolute}),
        "secrets": _every({"file": absolute}),
    }


def _every(rules: Mapping[str, Move]) -> Move:
    """The rule for a mapping of mappings that have these keys."""
    return lambda node: _each(node, lambda entry: _keys(entry, rules))


def _under_tag(rule: Move, node: Node) -> Node:
    if not isinstance(node, Tagged):
        return rule(node)
    moved = rule(node.value)
    return node if moved is node.value else Tagged(node.tag, moved)


def _keys(node: Node, rules: Mapping[str, Move]) -> Node:
    """A mapping with the rules applied to its keys."""
    if not isinstance(node, Map):
        return node
    fresh: Map | None = None
    for key in rules.keys() & node.keys():
        moved = _under_tag(rules[key], node[key])
        if moved is not node[key]:
            fresh = fresh or node.copy()
            fresh[key] = moved
    return node if fresh is None else fresh


def _each(node: Node, rule: Move, value: Move | None = None) -> Node:
    """A list or a mapping with the rule applied to every entry; `value` instead for those of a mapping."""
    if isinstance(node, Map):
        fresh: Map | None = None
        for key, entry in node.items():
            moved = _under_tag(value or rule, entry)
            if moved is not entry:
                fresh = fresh or node.copy()
                fresh[key] = moved
        return node if fresh is None else fresh
    if isinstance(node, Seq):
        moved_entries = [_under_tag(rule, entry) for entry in node]
        if any(new is not old for new, old in zip(moved_entries, node, strict=True)):
            listed = Seq()
            listed.extend(moved_entries)
            listed.at = node.at
            return listed
    return node


def _after(sign: str, node: Node, rule: Move) -> Node:
    """A text with the rule applied to what stands after a sign."""
    if not isinstance(node, str) or sign not in node:
        return node
    key, _, value = node.partition(sign)
    return f"{key}{sign}{rule(value)}"


def _device(volume: Node, absolute: Move) -> Node:
    """A local volume that binds a directory of this machine."""
    options = volume.get("driver_opts") if isinstance(volume, Map) else None
    if not (isinstance(volume, Map) and isinstance(options, Map)) or volume.get("driver", "local") != "local":
        return volume
    device = options.get("device")
    if not (isinstance(device, str) and device[:1] == "." and "bind" in str(options.get("o", "")).split(",")):
        return volume
    return _keys(volume, {"driver_opts": lambda node: _keys(node, {"device": absolute})})
