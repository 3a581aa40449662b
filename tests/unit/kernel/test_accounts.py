"""`user: name[:group]` against passwd and group texts of an image, well-formed and hostile."""

from __future__ import annotations

import pytest

from orchestrator.kernel.accounts import Account, AccountError, resolve

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
broken line
app:x:1000:1001:App:/home/app:/bin/sh
app:x:7:7:second:/second:/bin/sh
nohome:x:5:5:::/bin/sh
minus:x:-1:-1::/:/bin/sh
big:x:4294967296:0::/:/bin/sh
4294967296:x:0:0::/evil:/bin/sh
77777:x:0:0::/evil:/bin/sh
short:x:9
"""
GROUP = """\
root:x:0:root
app:x:1001:
log:x:44:other,app
audio:x:29:app
huge:x:99999999999:app
12345:x:0:
"""


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", Account(0, 0, (0,), "/root")),
        ("root", Account(0, 0, (0,), "/root")),
        ("app", Account(1000, 1001, (1001, 44, 29), "/home/app")),
        ("1000", Account(1000, 1001, (1001, 44, 29), "/home/app")),
        ("app:log", Account(1000, 44, (44,), "/home/app")),
        ("1000:2000", Account(1000, 2000, (2000,), "/home/app")),
        ("4242", Account(4242, 0, (0,), "/")),
        ("nohome", Account(5, 5, (5,), "/")),
        ("2147483647", Account(2147483647, 0, (0,), "/")),
        ("77777", Account(77777, 0, (0,), "/")),
        ("0:12345", Account(0, 12345, (12345,), "/root")),
    ],
)
def test_users(user: str, account: Account) -> None:
    assert resolve(user, [], PASSWD, GROUP) == account


@pytest.mark.parametrize(
    "user",
    [
        *"nobody app:nogroup minus big short 4294967296 2147483648 0:2147483648 -1 0x0 1e3 ٣".split(),
        *("1000:", ":0", ":", "a:b:c", "1000:-1", " 0", "9" * 5000),
    ],
)
def test_users_that_are_refused(user: str) -> None:
    with pytest.raises(AccountError):
        resolve(user, [], PASSWD, GROUP)


def test_extra_groups_come_after_the_primary_one_without_repetition() -> None:
    account = resolve("app", ["29", 50, "log", "app"], PASSWD, GROUP)
    assert account.groups == (1001, 44, 29, 50)


def test_an_unknown_extra_group_is_named() -> None:
    with pytest.raises(AccountError, match="wheel"):
        resolve("app", ["wheel"], PASSWD, GROUP)


def test_no_files_at_all() -> None:
    assert resolve("", [], "", "") == Account(0, 0, (0,), "/")
    with pytest.raises(AccountError):
        resolve("root", [], "", "")


def test_more_groups_than_the_kernel_takes() -> None:
    many = "".join(f"g{number}:x:{number}:app\n" for number in range(1, 70_000))
    with pytest.raises(AccountError, match="limit"):
        resolve("app", [], PASSWD, many)
