"""Commands in a README and what they print, run for real.

A block that is run stands below the comment `<!-- run -->`:

    <!-- run -->
    ```console
    $ pystack ps
    NAME ... STATUS ...
    hello-web-1 ... Up ...
    ```

Lines from `$` on are given to a shell in the repository's root. What follows must be all that the command
prints on both streams; `...` stands for anything, over lines too; blanks count as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"<!-- run -->\n+```console\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A command and what the README says that it prints; `line` counts from 1."""

    command: str
    output: str
    line: int


def commands(text: str) -> Iterator[Told]:
    """All commands of the blocks that are run, in order."""
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1)) + 1
        for part in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = f"{command[:-1]} {more.strip()}"
            yield Told(command=command, output=output.strip(), line=line)


def agrees(told: str, printed: str) -> bool:
    """Whether what was printed is what was told."""
    parts = [re.escape(" ".join(part.split())) for part in told.split("...")]
    # A blank beside the dots is no promise: there may be any number, or none.
    pattern = r"\s?.*?\s?".join(part.removeprefix("\\ ").removesuffix("\\ ") for part in parts)
    return re.fullmatch(pattern, " ".join(printed.split()), re.DOTALL) is not None
