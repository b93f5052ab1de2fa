"""The teacher that a run's settings name: each path or address is opened once, whatever the number of its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from reopold_vl.cli_errors import nearest
from reopold_vl.prompts import PromptEncoder
from reopold_vl.teachers import Teacher, TeacherError, server, vllm
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import RoutedTeacher
from reopold_vl.types import Prompt
from reopold_vl.vllm_http import VLLMClient


def build_teacher(
    path: str, routes: Sequence[tuple[str, str]], *, sources: Iterable[str], open_one: Callable[[str], Teacher]
) -> Teacher:
    """The teacher at `path`, or with `routes` (source, path) one for each of these sources and `path` for the rest.

    `sources` are those of the samples to train on. Raises TeacherError for a route that no sample takes, before
    anything is loaded, and what `open_one` raises.
    """
    known = sorted(set(sources))
    for source, _ in routes:
        if source not in known:
            shown = ", ".join(repr(name) for name in known[:12])
            more = f" and {len(known) - 12} more" if len(known) > 12 else ""
            near = nearest(source, known) if len(known) >= 12 else ""
            raise TeacherError(
                f"teacher.routes names {source!r}{near}, of which there is no row: there are {shown}{more}"
            )
    everything_routed = {source for source, _ in routes} == set(known)
    paths = [*(one for _, one in routes), *([] if everything_routed else [path])]
    opened: dict[str, Teacher] = {one: open_one(one) for one in dict.fromkeys(paths)}
    if len(opened) == 1:
        return next(iter(opened.values()))
    by_source = {source: opened[one] for source, one in routes}
    return RoutedTeacher(opened.get(path, next(iter(by_source.values()))), by_source)


def connect(
    address: str,
    *,
    encoder: PromptEncoder,
    end_ids: Sequence[int],
    token: str | None,
    timeout_seconds: float,
    retries: int,
    requests_in_flight: int,
    served_model: str = "",
) -> Teacher:
    """The teacher at an address: a server of ours, or with `vllm+` in front of it one of vLLM (`served_model` names
    its model, where it serves several). Raises TeacherError."""
    if address.startswith("vllm+"):
        client = VLLMClient(address, token, timeout_seconds, retries, at_once=requests_in_flight)
        return vllm.connect(client, encoder=encoder, end_ids=end_ids, served_model=served_model)
    return server.connect(
        address,
        encoder=encoder,
        token=token,
        timeout_seconds=timeout_seconds,
        retries=retries,
        requests_in_flight=requests_in_flight,
    )


def with_shared_prompts(teacher: Teacher, prompts: Sequence[Prompt]) -> Teacher:
    """The teacher, taking the student's prompts as they are where it makes the very same of all of `prompts`."""
    if isinstance(teacher, RoutedTeacher):
        routes = {
            source: with_shared_prompts(one, [prompt for prompt in prompts if prompt.sample.source == source])
            for source, one in teacher.routes.items()
        }
        rest = [prompt for prompt in prompts if prompt.sample.source not in teacher.routes]
        return RoutedTeacher(with_shared_prompts(teacher.other, rest), routes)
    if not isinstance(teacher, LocalTeacher) or not prompts:
        return teacher
    shared = all(teacher.same_prompt(prompt) for prompt in prompts)
    return replace(teacher, share_prompts=shared)
