"""The HTTP API on the unix socket (docs/api.md): who may ask what, and what is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent import named, planning, views
from agent.equipment import Equipment
from agent.formats import loglines
from agent.model.deployment import Deployment, Status, Trigger
from agent.model.errors import AgentError, Code, Conflict, NotFound, NotPermitted
from agent.model.messages import Message
from agent.model.release import Layout
from agent.queue import DeploymentQueue
from agent.status import StatusView
from agent.store.drains import Drain
from agent.store.state import Hold
from agent.system import peer
from agent.upkeep import draining, run_once
from agent.upkeep.run_once import RunOnce

if TYPE_CHECKING:  # only hosts with Consul load it
    from agent.upkeep.registrations import Registrations

logger = logging.getLogger(__name__)

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]
_EVENT_SECONDS = 0.2
_FOR_HOOKS = "/v1/run-once/"  # who may ask there is decided by process, not by user
_BAD_BUNDLE = (
    Code.APPSPEC_INVALID,
    Code.BUNDLE_DAMAGED,
    Code.BUNDLE_REFUSED,
    Code.MANIFEST_REFUSED,
)
_STATUS = {NotPermitted: 403, NotFound: 404, Conflict: 409}


class Api:
    """The routes. Reading is for everybody on the host, changing for root and the API group."""

    def __init__(
        self,
        equipment: Equipment,
        queue: DeploymentQueue,
        status: StatusView,
        registrations: Registrations | None,
    ) -> None:
        self._equipment = equipment
        self._registrations = registrations
        self._state = equipment.state
        self._queue = queue
        self._status = status
        self._once = RunOnce(equipment, queue)
        self._is_ending = False

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[_answer_errors, self._check_access])
        app.on_shutdown.append(self._end_streams)
        app.add_routes(
            [
                web.get("/v1/version", self._version),
                web.get("/v1/status", self._read_status),
                web.get("/v1/deployments", self._history),
                web.post("/v1/deployments", self._deploy),
                web.get("/v1/deployments/{id}", self._deployment),
                web.get("/v1/deployments/{id}/events", self._events),
                web.get("/v1/deployments/{id}/log", self._log),
                web.post("/v1/deployments/{id}/abort", self._abort),
                web.post("/v1/plan", self._plan),
                web.post("/v1/rollback", self._rollback),
                web.post("/v1/retry", self._retry),
                web.post(f"{_FOR_HOOKS}{{name}}/{{action}}", self._run_once),
                web.put("/v1/hold", self._hold),
                web.delete("/v1/hold", self._unhold),
                web.put("/v1/drain", self._drain),
                web.delete("/v1/drain", self._undrain),
            ]
        )
        return app

    async def _end_streams(self, _app: web.Application) -> None:
        """Let go of who follows: aiohttp waits for open answers, a minute long."""
        self._is_ending = True

    # access

    @web.middleware
    async def _check_access(self, request: web.Request, handler: Route) -> web.StreamResponse:
        uid, gid = peer.read_peer(_connection(request))
        group = self._equipment.settings.api_group
        request["by"] = await asyncio.to_thread(peer.user_name, uid)
        request["may_change"] = await asyncio.to_thread(peer.may_change, uid, gid, group)
        # a log has all that hooks print, which may be anything
        is_for_hooks = request.path.startswith(_FOR_HOOKS)
        if not is_for_hooks and (request.method != "GET" or request.path.endswith("/log")):
            self._refuse_others(request, group)
        return await handler(request)

    def _refuse_others(self, request: web.Request, group: str) -> None:
        if not request["may_change"]:
            raise NotPermitted(
                f"cannot do this as user {request['by']}: it is for root and the group {group}",
                code=Code.NOT_PERMITTED,
                remedy=f"Use sudo, or join the group: adduser {request['by']} {group}",
            )

    # reading

    async def _version(self, _request: web.Request) -> web.Response:
        return _json(self._status.agent())

    async def _read_status(self, request: web.Request) -> web.Response:
        status = await self._status.read(request.query.get("application"))
        return _json(_shown(request, status))

    async def _history(self, request: web.Request) -> web.Response:
        limit = min(max(_number(request, "limit", default=20), 1), 1000)
        found = await asyncio.to_thread(
            self._state.deployments, request.query.get("application"), limit
        )
        shown = {"deployments": [views.deployment_view(each) for each in found]}
        return _json(_shown(request, shown))

    async def _deployment(self, request: web.Request) -> web.Response:
        shown = {"deployment": await self._view(await self._find(request))}
        return _json(_shown(request, shown))

    async def _find(self, request: web.Request) -> Deployment:
        name = request.match_info["id"]
        if name != "last":
            return await asyncio.to_thread(self._state.deployment, name)
        if self._queue.running is not None:
            return self._queue.running.deployment
        newest = await asyncio.to_thread(self._state.deployments, None, 1)
        if not newest:
            raise NotFound(
                "cannot find the last deployment: there has been none on this host",
                code=Code.NOT_FOUND,
                remedy="Deploy something: agentctl deploy BUNDLE",
            )
        return newest[0]

    async def _view(self, deployment: Deployment) -> dict[str, Any]:
        running = self._queue.running
        if running is not None and running.deployment.id == deployment.id:
            return views.running_view(running.record, aborting=bool(running.abort_reason))
        saved = await asyncio.to_thread(self._state.deployment, deployment.id)
        return views.whole_view(saved, await asyncio.to_thread(self._state.steps, saved.id))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        deployment = await self._find(request)

        async def events() -> AsyncIterator[dict[str, Any]]:
            last = None
            while True:
                view = await self._view(deployment)
                if (now := {**view, "seconds": 0}) != last:
                    yield _shown(request, {"deployment": view})
                    last = now
                if view["outcome"] is not None or self._is_ending:
                    return
                await self._queue.wait_for_change(_EVENT_SECONDS)

        return await _stream(request, events())

    async def _log(self, request: web.Request) -> web.StreamResponse:
        deployment = await self._find(request)
        layout = Layout(self._equipment.settings.state_dir)
        path = layout.work_dir(deployment.id) / "log"
        follow = request.query.get("follow") == "1"
        to_skip = _number(request, "skip", default=0)

        async def lines() -> AsyncIterator[dict[str, Any]]:
            offset, left_out = 0, 0
            while True:
                saved = await asyncio.to_thread(self._state.deployment, deployment.id)
                found, offset = await asyncio.to_thread(_read_lines, path, offset)
                skipped = min(to_skip - left_out, len(found))
                left_out += skipped
                for line in loglines.in_order(found[skipped:]):
                    yield {"line": line}
                if found:
                    continue
                has_ended = saved.status in (Status.DONE, Status.FAILED)
                if not follow or has_ended or self._is_ending:
                    return
                await self._queue.wait_for_change(_EVENT_SECONDS)

        return await _stream(request, lines())

    # changing

    async def _deploy(self, request: web.Request) -> web.Response:
        body = await _body(request, named.KEYS | {"force"})
        revision = await named.find_revision(self._equipment, body)
        trigger = Trigger.RETRY if body.get("force") is True else Trigger.OPERATOR
        by = request["by"]
        if "unsigned" in body:
            by += f" (unsigned: {body['unsigned']})"
        deployment = await self._queue.request(revision, trigger, by=by)
        return _json({"deployment": views.deployment_view(deployment)}, status=202)

    async def _plan(self, request: web.Request) -> web.Response:
        body = await _body(request, named.KEYS)
        # a plan changes nothing, so whose bundle it is does not matter
        revision = await named.find_revision(self._equipment, {**body, "unsigned": "a plan"})
        plan = await planning.plan_bundle(self._equipment, revision)
        return _json({"plan": plan})

    async def _rollback(self, request: web.Request) -> web.Response:
        body = await _body(request, {"application", "to"})
        committed = await asyncio.to_thread(self._state.committed)
        application = await self._one_application(body.get("application"), committed)
        to = body.get("to")
        version = None if to is None else named.check_name(to, "to")
        deployment = await self._queue.rollback(application, version, by=request["by"])
        return _json({"deployment": views.deployment_view(deployment)}, status=202)

    async def _retry(self, request: web.Request) -> web.Response:
        body = await _body(request, {"application"})
        known = await asyncio.to_thread(self._state.applications)
        application = await self._one_application(body.get("application"), known)
        deployment = await self._queue.retry(application, by=request["by"])
        return _json({"deployment": views.deployment_view(deployment)}, status=202)

    async def _one_application(self, asked: object, known: list[str]) -> str:
        """The application that was asked for, or the only one of `known`."""
        everyone = await asyncio.to_thread(self._state.applications)
        return named.choose_application(asked, known, everyone)

    async def _abort(self, request: web.Request) -> web.Response:
        body = await _body(request, {"now"})
        deployment = await self._find(request)
        await self._queue.abort(deployment.id, by=request["by"], now=body.get("now") is True)
        return _json({"deployment": await self._view(deployment)}, status=202)

    async def _run_once(self, request: web.Request) -> web.Response:
        body = await _body(request, run_once.KEYS)
        name, action = request.match_info["name"], request.match_info["action"]
        pid = peer.read_pid(_connection(request))
        return _json(await self._once.answer(name, action, body, pid=pid))

    async def _hold(self, request: web.Request) -> web.Response:
        body = await _body(request, {"reason", "for_seconds"})
        reason, until = named.reason_and_end(body)
        hold = Hold(reason, request["by"], time.time(), until)
        await asyncio.to_thread(self._state.save_hold, hold)
        logger.warning(
            "deployments are held by %s: %s",
            hold.by,
            reason,
            extra={"fields": {"MESSAGE_ID": Message.HELD}},
        )
        return _json({"hold": views.hold_view(hold)})

    async def _unhold(self, request: web.Request) -> web.Response:
        lifted = await asyncio.to_thread(self._state.hold)
        await asyncio.to_thread(self._state.save_hold, None)
        self._queue.look_again()
        logger.info(
            "the hold is lifted by %s",
            request["by"],
            extra={"fields": {"MESSAGE_ID": Message.UNHELD}},
        )
        return _json({"hold": None, "lifted": views.hold_view(lifted)})

    async def _drain(self, request: web.Request) -> web.Response:
        body = await _body(request, {"application", "reason", "for_seconds"})
        reason, until = named.reason_and_end(body)
        committed = await asyncio.to_thread(self._state.committed)
        application = await self._one_application(body.get("application"), committed)
        drain = Drain(application, reason, request["by"], time.time(), until)
        return _json(await draining.drain(self._registrations, drain))

    async def _undrain(self, request: web.Request) -> web.Response:
        body = await _body(request, {"application"})
        committed = await asyncio.to_thread(self._state.committed)
        application = await self._one_application(body.get("application"), committed)
        return _json(await draining.undrain(self._registrations, application, by=request["by"]))


def _connection(request: web.Request) -> Any:
    transport = request.transport
    return None if transport is None else transport.get_extra_info("socket")


@web.middleware
async def _answer_errors(request: web.Request, handler: Route) -> web.StreamResponse:
    try:
        return await handler(request)
    except AgentError as error:
        status = _STATUS.get(type(error), 400 if error.code is Code.BAD_REQUEST else 500)
        if error.code in _BAD_BUNDLE:
            status = 400
        return _error(error, status)
    except web.HTTPException as error:
        return _error(
            named.bad_request(f"{request.method} {request.path}: {error.reason}"), error.status
        )
    except Exception as error:
        logger.exception(
            "%s %s failed",
            request.method,
            request.path,
            extra={"fields": {"MESSAGE_ID": Message.INTERNAL_ERROR}},
        )
        internal = AgentError(
            f"cannot answer: internal error {type(error).__name__}: {error}",
            code=Code.INTERNAL,
            remedy="Report this with the traceback: journalctl -u deploy-agent",
        )
        return _error(internal, 500)


def _error(error: AgentError, status: int) -> web.Response:
    body = {
        "code": error.code,
        "message": error.message,
        "details": list(error.details),
        "remedy": error.remedy,
        "where": error.where,
    }
    return _json({"error": body}, status=status)


def _json(body: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.json_response({"schema": views.SCHEMA, **body}, status=status)


def _shown(request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
    """The body, for other users without the evidence: it quotes what hooks printed."""
    return body if request["may_change"] else views.without_evidence(body)


def _number(request: web.Request, name: str, *, default: int) -> int:
    try:
        return max(int(request.query.get(name, default)), 0)
    except ValueError as error:
        raise named.bad_request(f"{name} is not a number") from error


async def _body(request: web.Request, known: set[str]) -> dict[str, Any]:
    try:
        body = await request.json() if request.can_read_body else {}
        json.dumps(body, ensure_ascii=False).encode()  # half characters: state keeps UTF-8 only
    except (ValueError, LookupError, RecursionError) as error:  # text, charset, depth
        raise named.bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise named.bad_request("the body is not a JSON object")
    unknown = sorted(set(body) - known)
    if unknown:
        raise named.bad_request(f"unknown keys: {', '.join(unknown)}")
    return body


async def _stream(request: web.Request, items: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async for item in items:
        await response.write(json.dumps(item).encode() + b"\n")
    await response.write_eof()
    return response


def _read_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """Whole lines from `offset` on, at most 1 MiB of them, and where they end."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            piece = file.read(2**20)
    except OSError:
        return [], offset
    end = piece.rfind(b"\n") + 1
    if end == 0:
        return [], offset
    return piece[:end].decode("utf-8", "replace").splitlines(), offset + end
