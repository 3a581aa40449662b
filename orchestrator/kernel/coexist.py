"""Living beside other firewalls: a line of ours in their forward chain, where that drops by policy.

A packet has to be accepted by every table it passes, so our own can't overrule the policy `drop` that
Docker and ufw give to `ip filter FORWARD` (iptables-nft). There we append rules that accept what comes from
or goes to our bridges: after all of theirs, so what they refuse stays refused; our own table still has
its say. Both rules carry our table's name as a comment and go with it. The older iptables, which is not
nftables, and firewalld's zones are left alone.
"""

from __future__ import annotations

import errno
import struct
from contextlib import suppress

from orchestrator.kernel import nftables as nft
from orchestrator.kernel.netlink import Netlink, Request, attributes

_TABLE, _CHAIN = "filter", "FORWARD"
_CHAIN_POLICY = 5
_RULE_HANDLE, _RULE_USERDATA = 3, 7
_DROP = struct.pack("!I", nft.DROP)


def admit(firewall: Netlink, table: str, prefix: str) -> bool:
    """Let packets of interfaces whose names start with `prefix` pass; True if that took a change.

    Cheap (two questions) and repeatable: call it after every sign that another firewall has changed.
    """
    if not _drops(firewall):
        return False
    if _ours(firewall, table):
        return False
    rules = [
        nft.new_rule(
            _TABLE,
            _CHAIN,
            *nft.named(side, prefix),
            nft.verdict(nft.ACCEPT),
            comment=table,
        )
        for side in (nft.IIFNAME, nft.OIFNAME)
    ]
    with suppress(FileNotFoundError):  # the chain went away meanwhile, and its policy with it
        firewall.transact(nft.transaction(rules))
    return True


def withdraw(firewall: Netlink, table: str) -> None:
    """Take our rules out of the foreign chain."""
    ours = _ours(firewall, table)
    if ours:
        gone = (errno.ENOENT,)
        firewall.transact(nft.transaction(nft.delete_rule(_TABLE, _CHAIN, handle, gone) for handle in ours))


def _drops(firewall: Netlink) -> bool:
    answer = firewall.ask(nft.get_chain(_TABLE, _CHAIN))
    return answer is not None and attributes(answer, 4).get(_CHAIN_POLICY) == _DROP


def _ours(firewall: Netlink, table: str) -> list[bytes]:
    """Handles of the rules with our comment."""
    request: Request = nft.get_rules(_TABLE, _CHAIN)
    try:
        listed = firewall.dump(request.kind, request.body)
    except FileNotFoundError:
        return []
    found = []
    for _, data in listed:
        parts = attributes(data, 4)
        if parts.get(_RULE_USERDATA) == nft.comment_data(table) and _RULE_HANDLE in parts:
            found.append(parts[_RULE_HANDLE])
    return found
