"""What flags of the command line change in a loaded stack."""

from __future__ import annotations

from orchestrator.cli.arrange import tighten
from tests.kit.stacks import service, stack


def test_strict_means_no_new_privileges_unless_a_service_says_otherwise() -> None:
    own = ("seccomp=unconfined", "no-new-privileges:false")
    made = stack(
        "shop", a=service(), b=service(security_opt=own), c=service(security_opt=("apparmor=unconfined",))
    )
    tight = tighten(made).services
    assert tight["a"].security_opt == ("no-new-privileges:true",)
    assert tight["b"].security_opt == own
    assert tight["c"].security_opt == ("apparmor=unconfined", "no-new-privileges:true")
