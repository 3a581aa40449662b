"""The hooks that a command itself runs: after the start, and after the end."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.kernel import hooks
from orchestrator.kernel.reading import Document
from orchestrator.oci import status
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope


def run(scope: Scope, config: Mapping[str, object], kind: str, found: Record, what: str) -> None:
    """Run poststart or poststop hooks; one that fails is a warning, and the next goes on (runtime.md)."""
    state = json.dumps(status.describe(found, what)).encode()
    hooks.run_hooks(
        Document(config.get("hooks"), "hooks"),
        kind,
        state,
        lambda said: scope.journal.warning(f"{kind} hook: {said}"),
    )
