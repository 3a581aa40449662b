"""Images: which have to be pulled, and when (Compose Specification, services, pull_policy).

missing (also when nothing is said)   when there is none of that name
always, refresh                       also once in each `up`
daily, weekly, every_<duration>       also in an `up`, when the registry was last asked longer ago
never, build                          not at all
"""

from __future__ import annotations

from orchestrator.model.action import PullImage
from orchestrator.model.images import period
from orchestrator.model.stack import ImageRoot, Service
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import Survey

MISSING = "missing"
NOT_AT_ALL = ("never", "build")
BRINGS = "`pystack pull`, `pystack load -i FILE` or `pystack import DIRECTORY NAME` brings it"


def needed(survey: Survey, service: Service) -> str:
    """Why the image of a service would have to be pulled, "" if it is good as it is."""
    if not isinstance(service.root, ImageRoot) or service.name in survey.desired.pins:
        return ""
    policy = service.pull_policy or MISSING
    image = survey.observation.images.get(service.root.reference)
    if image is None:
        return "" if policy in NOT_AT_ALL else MISSING
    every = period(policy)
    intent = survey.intent(service.name)
    # An order of an earlier boot has a time that may be still to come.
    if every is None or intent is None or not 0.0 < intent.asked <= survey.now:
        return ""
    fresh = image.checked is not None and image.checked >= intent.asked - every
    return "" if fresh else f"pull_policy is {policy}"


def is_here(survey: Survey, service: Service) -> bool:
    return survey.image(service) is not None


def is_out_of_reach(survey: Survey, service: Service) -> bool:
    """No container can be made of it: its image is not here, and may not or can't be pulled."""
    if not isinstance(service.root, ImageRoot) or is_here(survey, service):
        return False
    failure = survey.observation.failures.get(f"image:{service.root.reference}")
    return not needed(survey, service) or (failure is not None and not failure.retryable)


def arrange(survey: Survey, draft: Draft) -> None:
    """All at the same time: nobody waits for another's image."""
    for name, because in survey.pulls.items():
        service = survey.desired.stack.services[name]
        assert isinstance(service.root, ImageRoot)
        draft.act(
            PullImage(
                reference=service.root.reference,
                stack=survey.desired.stack.name,
                platform=service.platform or "",
                because=because,
            )
        )


def absent(service: Service) -> str:
    """What is said of an image that is not here and may not be pulled."""
    assert isinstance(service.root, ImageRoot)
    return f"image not here: {service.root.reference}, and pull_policy is {service.pull_policy}"
