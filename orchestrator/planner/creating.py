"""New occupants for free seats. They wait for networks, volumes and the image, never for dependencies."""

from __future__ import annotations

import hashlib
import signal as _signals
from collections.abc import Mapping

from orchestrator.model.action import CreateContainer
from orchestrator.model.errors import ExitCode
from orchestrator.model.frozen import dataclass
from orchestrator.model.health import in_force
from orchestrator.model.observation import ImageState, PublishedPort
from orchestrator.model.stack import Attachment, Healthcheck, ImageRoot, Service
from orchestrator.planner import images, volumes
from orchestrator.planner.draft import Draft
from orchestrator.planner.layout import attachments
from orchestrator.planner.networks import Addresses
from orchestrator.planner.ports import HostPorts, Refusal
from orchestrator.planner.survey import Fate, Survey, name_of

SIGTERM = 15


def create(survey: Survey, draft: Draft, ports: HostPorts) -> None:
    """A CreateContainer for each vacant seat that has all it needs; a Wait for every other."""
    vacant = [(name, slots) for name, slots in survey.vacant.items() if slots]
    if not vacant:
        return
    maker = _Maker(survey, draft, ports)
    for name, slots in vacant:
        for slot in slots:
            maker.make(survey.desired.stack.services[name], slot)


class _Maker:
    def __init__(self, survey: Survey, draft: Draft, ports: HostPorts) -> None:
        self._survey = survey
        self._draft = draft
        self._ports = ports
        self._addresses = Addresses(survey=survey)
        self._shared: dict[str, _Common] = {}
        self._names = {container.name: container for container in survey.observation.containers}

    def make(self, service: Service, slot: int) -> None:
        survey, draft = self._survey, self._draft
        name = name_of(survey.desired.stack.name, service, slot)
        target = f"container:{name}"
        if target in survey.in_flight or self._held_up(service, name, target):
            return
        addresses: dict[str, str] = {}
        for attachment in attachments(service):
            problem = self._address(attachment, addresses)
            if problem:
                draft.refuse(target, problem, ExitCode.CONFLICT)
                return
        published = self._ports.pick(name, service)
        if isinstance(published, Refusal):
            if published.passing:
                draft.wait(target, published.because)
            else:
                draft.refuse(target, published.because, ExitCode.CONFLICT, published.hint)
            return
        draft.act(self._action(service, slot, name, addresses, published))

    def _held_up(self, service: Service, name: str, target: str) -> bool:
        """Say why the seat can't be filled yet. False when it can."""
        survey, draft = self._survey, self._draft
        root = service.root
        if isinstance(root, ImageRoot) and service.name in survey.pulls:
            self._wait_for(target, f"image:{root.reference}", f"waiting for image {root.reference}")
            return True
        if isinstance(root, ImageRoot) and not images.is_here(survey, service):
            draft.refuse(target, images.absent(service), ExitCode.IMAGE, images.BRINGS)
            return True
        for network in survey.layout.networks[service.name]:
            segment = survey.segments[network]
            if segment.because:
                if segment.refused:
                    draft.refuse(target, segment.because, segment.exit_code)
                else:
                    self._wait_for(target, f"network:{network}", segment.because)
                return True
        volume = volumes.missing(survey, service.name)
        if volume:
            self._wait_for(target, f"volume:{volume}", f"waiting for volume {volume}")
            return True
        holder = self._names.get(name)
        if holder is not None:
            if survey.fate(holder) in (Fate.REMOVE, Fate.REPLACE):
                draft.wait(target, f"an older container {name} has to go first")
            else:
                because = f"the name {name} is held by a container of service {holder.service}"
                draft.refuse(target, because, ExitCode.CONFLICT)
            return True
        return self._without_peer(service, target)

    def _wait_for(self, target: str, other: str, because: str) -> None:
        """What fails for its network or volume fails for the same reason."""
        refusal = self._draft.refusal(other)
        if refusal is not None:
            self._draft.refuse(target, refusal.because, refusal.exit_code, refusal.hint)
        else:
            self._draft.wait(target, because)

    def _without_peer(self, service: Service, target: str) -> bool:
        """It is made after the container whose namespace it joins, and remembers which that was."""
        survey = self._survey
        for peer, shared in survey.layout.shares[service.name].items():
            there = survey.peer(peer)
            leaving = there is not None and survey.fate(there) in (Fate.REPLACE, Fate.REMOVE)
            if there is not None and not leaving:
                continue
            because = f"{peer}, whose {shared} it shares, is not there"
            vacant = survey.vacant.get(peer, ())
            if vacant:
                seat = name_of(survey.desired.stack.name, survey.desired.stack.services[peer], vacant[0])
                self._wait_for(target, f"container:{seat}", because)
            elif there is not None and survey.fate(there) is Fate.REPLACE:
                self._draft.wait(target, because)
            else:
                self._draft.refuse(target, because)
            return True
        return False

    def _address(self, attachment: Attachment, addresses: dict[str, str]) -> str:
        network = self._survey.desired.stack.networks[attachment.network]
        segment = self._survey.segments[network.name]
        address, problem = self._addresses.pick(segment, attachment.ipv4_address)
        if not problem:
            addresses[network.name] = address
        return problem

    def _action(
        self,
        service: Service,
        slot: int,
        name: str,
        addresses: Mapping[str, str],
        published: tuple[PublishedPort, ...],
    ) -> CreateContainer:
        survey = self._survey
        stack = survey.desired.stack
        common = self._common(service)
        fingerprint = survey.fingerprint(service)
        owner = stack.services[service.step.of] if service.step is not None else service
        return CreateContainer(
            id=container_id(stack.name, name, common.generation, fingerprint, survey.now),
            name=name,
            stack=stack.name,
            service=service,
            slot=slot,
            fingerprint=fingerprint,
            generation=common.generation,
            image_id=common.image.id if common.image is not None else "",
            networks=common.networks,
            addresses=addresses,
            volumes=common.volumes,
            anonymous_volumes=volumes.anonymous(
                f"{stack.name}\0{survey.desired.began}", service, slot, common.image, owner
            ),
            ports=published,
            healthcheck=common.healthcheck,
            stop_signal=common.stop_signal,
            peers=common.peers,
            because="missing",
        )

    def _common(self, service: Service) -> _Common:
        if service.name not in self._shared:
            self._shared[service.name] = _common(self._survey, service)
        return self._shared[service.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What the new containers of a service have in common."""

    image: ImageState | None
    generation: int
    networks: Mapping[str, str]
    volumes: Mapping[str, str]
    healthcheck: Healthcheck | None
    stop_signal: int
    peers: Mapping[str, str]


def _common(survey: Survey, service: Service) -> _Common:
    stack = survey.desired.stack
    image = survey.image(service)
    intent = survey.intent(service.name)
    shares = survey.layout.shares[service.name]
    return _Common(
        image=image,
        generation=intent.generation if intent is not None else 0,
        networks={a.network: stack.networks[a.network].name for a in attachments(service)},
        volumes={key: stack.volumes[key].name for key in survey.layout.volumes[service.name]},
        healthcheck=in_force(service.healthcheck, image.healthcheck if image is not None else None),
        stop_signal=stop_signal(service, image),
        peers={peer: there.id for peer in shares if (there := survey.peer(peer)) is not None},
    )


def container_id(stack: str, name: str, generation: int, fingerprint: str, now: float) -> str:
    """64 hex digits: the same for the same decision, another for each later occupant of the seat."""
    text = "\0".join((stack, name, str(generation), fingerprint, repr(now)))
    return hashlib.sha256(text.encode()).hexdigest()


def stop_signal(service: Service, image: ImageState | None) -> int:
    """The service's, else the image's, else SIGTERM. Names with or without SIG, numbers, RTMIN+n."""
    return signal_number(service.stop_signal or (image.stop_signal if image is not None else None))


def signal_number(text: str | None) -> int:
    """SIGTERM for what is no signal."""
    if not text:
        return SIGTERM
    word = text.strip().upper().removeprefix("SIG")
    if word.isdigit():
        return int(word)
    base, plus, offset = word.partition("+")
    number = getattr(_signals.Signals, f"SIG{base}", None)
    if number is None:
        return SIGTERM
    return int(number) + (int(offset) if plus and offset.isdigit() else 0)
