"""`--change` instructions."""

from __future__ import annotations

import json

import pytest

from orchestrator.images import changes, config
from orchestrator.model.errors import UserError


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["cmd echo $HOME"], {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        (["CMD [a]"], {"Cmd": ["/bin/sh", "-c", "[a]"]}),
        (['CMD ["x"]', 'ENTRYPOINT ["/e"]'], {"Cmd": ["x"], "Entrypoint": ["/e"]}),
        (["ENV A=1 B='x y'", "ENV A=2", "ENV C one two"], {"Env": ["A=2", "B=x y", "C=one two"]}),
        (['LABEL a=1 "b c"="d e"'], {"Labels": {"a": "1", "b c": "d e"}}),
        (["ENV A=1", "ENV A=2 B=$A", "USER u$B"], {"Env": ["A=2", "B=1"], "User": "u1"}),
        (
            ["ENV P=/srv Q='$P' R=\\$P S=\"$P/x y\"", "WORKDIR ${P}/../w", "VOLUME ${V:-/v} ${P:+/w}"],
            {
                "Env": ["P=/srv", "Q=$P", "R=$P", "S=/x y"],
                "WorkingDir": "/w",
                "Volumes": {"/v": {}, "/w": {}},
            },
        ),
        (["# why\nENV A=1 \\\n  B=2\n\nCMD x"], {"Env": ["A=1", "B=2"], "Cmd": ["/bin/sh", "-c", "x"]}),
        (["ONBUILD RUN $x", "ONBUILD COPY a b"], {"OnBuild": ["RUN $x", "COPY a b"]}),
        (["CMD []", "STOPSIGNAL 9"], {"Cmd": [], "StopSignal": "9"}),
        (["USER app:1000"], {"User": "app:1000"}),
        (["WORKDIR /a", "WORKDIR b"], {"WorkingDir": "/a/b"}),
        (
            ["EXPOSE 80 53/udp 90-91"],
            {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}},
        ),
        (["VOLUME /a /b", 'VOLUME ["/c d"]'], {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        (["STOPSIGNAL SIGQUIT"], {"StopSignal": "SIGQUIT"}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD curl -f x"],
            {
                "Healthcheck": {
                    "Interval": 90 * 10**9,
                    "Timeout": 5 * 10**8,
                    "Retries": 2,
                    "Test": ["CMD-SHELL", "curl -f x"],
                }
            },
        ),
        (['HEALTHCHECK CMD ["curl", "x"]'], {"Healthcheck": {"Test": ["CMD", "curl", "x"]}}),
    ],
)
def test_instructions_build_a_config_that_can_be_read_back(instructions: list[str], expected: object) -> None:
    made = changes.apply({}, instructions)
    assert made == expected
    config.parse(json.dumps({"config": made}).encode(), "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    "instruction",
    [
        *(
            "RUN x",
            "FROM y",
            "",
            "CMD",
            "ENV",
            "ENV A",
            "ENV A=1 B",
            "ENV =1",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 9-8",
        ),
        *("EXPOSE 80/icmp", "EXPOSE 65536", "HEALTHCHECK", "HEALTHCHECK CMD", "HEALTHCHECK x"),
        *("HEALTHCHECK --interval=3 CMD x", "HEALTHCHECK --nap=3s CMD x", "HEALTHCHECK --retries=many CMD x"),
        *("ENV A='unclosed", "# nothing", "ENV A=${B", "USER ${A:?is needed}", "USER ${1}", 'VOLUME [""]'),
        *(
            "ONBUILD ONBUILD RUN x",
            "ONBUILD FROM y",
            "STOPSIGNAL SIGNOTHING",
            "STOPSIGNAL 0",
            "HEALTHCHECK NONE x",
        ),
    ],
)
def test_what_cannot_be_applied_is_named(instruction: str) -> None:
    with pytest.raises(UserError):
        changes.apply({}, [instruction])


def test_an_entry_point_takes_the_command_of_the_old_one_away_and_the_images_shell_runs_the_new() -> None:
    base = {"Cmd": ["old"], "Shell": ["/bin/bash", "-c"]}
    made = changes.apply(base, ["ENTRYPOINT run $x"])
    assert made == {"Shell": ["/bin/bash", "-c"], "Entrypoint": ["/bin/bash", "-c", "run $x"]}


def test_the_config_given_is_not_changed() -> None:
    before = {"Env": ["A=1"], "Cmd": ["x"]}
    changes.apply(before, ["ENV B=2", 'ENTRYPOINT ["y"]'])
    assert before == {"Env": ["A=1"], "Cmd": ["x"]}
