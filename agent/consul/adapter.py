"""The local Consul agent: services and checks of this host, and the keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.consul import answers
from agent.consul.calls import Calls
from agent.consul.keys import Keys
from agent.model.consul import CheckStatus, LocalAgent, Right, ServiceHealth, ServiceRegistration
from agent.model.errors import AgentError, NotFound
from agent.model.settings import ConsulSettings

_PATIENCE_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_READ_SERVICES = 'service_prefix "" { policy = "read" }'


class Consul(Keys):
    """The Consul agent of this host. Built once; nothing is loaded or asked before the first call.

    Every call raises TransientError (CONSUL_UNREACHABLE) where Consul is away or has no leader,
    after it was made again for patience_seconds where that does no harm (each time for at most
    answer_seconds, a blocking query for longer by its own time); AgentError
    (CONSUL_DENIED) with the missing ACL rule, or (CONSUL_REFUSED) with Consul's reason.
    """

    def __init__(
        self,
        settings: ConsulSettings,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        calls = Calls(settings, patience_seconds=patience_seconds, answer_seconds=answer_seconds)
        super().__init__(settings, calls)
        # by which token, as a mark of it
        self._registered: dict[str, int] = {}
        self._maintained: dict[str, int] = {}

    @property
    def problem(self) -> AgentError | None:
        """Why the last call failed; None after one that did not."""
        return self._calls.problem

    async def close(self) -> None:
        """Close what is open."""
        await self._calls.transport.close()

    async def register(self, registration: ServiceRegistration) -> None:
        """Register a service, or change it: what it had before, checks too, is replaced.

        Its maintenance stays. A check that it has already keeps its status until it runs again;
        only one with a TTL, which nobody runs, gets the status of the registration.
        """
        mark = await self._calls.transport.token_mark()
        doing = f"register the service {registration.id} in Consul"
        rule = _write_service(registration.name)
        body = answers.registration(registration)
        await self._put(doing, "service/register", rule=rule, body=body)
        # Consul's own ?replace-existing-checks ends the maintenance, which is a check there
        wanted = {check["CheckID"]: check for check in body["Checks"]}
        found = answers.checks_of(
            registration.id, await self._read(doing, "checks", rule=_READ_SERVICES)
        )
        for check in found:
            if check.id not in wanted:
                await self._put(doing, f"check/deregister/{check.id}", rule=rule)
            elif "TTL" in wanted[check.id] and wanted[check.id]["Status"] != check.status:
                await self.set_check(check.id, CheckStatus(wanted[check.id]["Status"]))
        self._registered[registration.id] = mark

    async def has_registered(self, service_id: str) -> bool:
        """Whether it was registered since this process began, and with the token of now.

        The Consul agent keeps the token of a registration and tells its servers of the service, and
        of its checks, with that one: once it is deleted they hear nothing more of either.
        """
        return self._registered.get(service_id) == await self._calls.transport.token_mark()

    async def deregister(self, service_id: str) -> None:
        """Remove a service with its checks and its maintenance; one that is not there is fine."""
        try:
            await self._put(
                f"deregister the service {service_id} in Consul",
                f"service/deregister/{service_id}",
                rule=_write_named(service_id),
            )
        except NotFound:
            return

    async def set_maintenance(self, service_id: str, reason: str | None) -> None:
        """Take a service out of traffic for a reason, or with None let it in again.

        Raises NotFound for a service that the local agent does not know.
        """
        mark = await self._calls.transport.token_mark()
        if self._maintained.pop(service_id, None) != mark:
            await self._take_over(service_id)
        query = {"enable": "false"} if reason is None else {"enable": "true", "reason": reason}
        await self._put(
            f"{'end' if reason is None else 'begin'} the maintenance of {service_id} in Consul",
            f"service/maintenance/{service_id}",
            rule=_write_named(service_id),
            query=query,
        )
        if reason is not None:
            self._maintained[service_id] = mark

    async def has_maintained(self, service_id: str) -> bool:
        """The same of its maintenance, which has a token of its own."""
        return self._maintained.get(service_id) == await self._calls.transport.token_mark()

    async def _take_over(self, service_id: str) -> None:
        """Let maintenance that another token began belong to the one of now; it goes on meanwhile.

        With a token that was deleted the Consul agent can tell its servers neither that it is in
        maintenance nor that this has ended. To begin it again would change nothing, so its check is
        registered, as one with a TTL that nobody lives to see.
        """
        doing = f"take over the maintenance of {service_id} in Consul"
        name = answers.maintenance_of(service_id)
        found = (await self._read(doing, "checks", rule=_READ_SERVICES)).get(name)
        if found is not None:
            await self._put(
                doing,
                "check/register",
                rule=_write_named(service_id),
                body={
                    "ID": name,
                    "Name": found["Name"],
                    "ServiceID": service_id,
                    "Notes": found["Notes"],
                    "Status": CheckStatus.CRITICAL.value,
                    "TTL": "87600h",
                },
            )

    async def set_check(self, check_id: str, status: CheckStatus, output: str = "") -> None:
        """Say how a TTL check is, for as long as its TTL. Raises NotFound for an unknown one."""
        await self._put(
            f"set the check {check_id} in Consul",
            f"check/update/{check_id}",
            rule='service "<its service>" { policy = "write" }',
            body={"Status": status.value, "Output": output},
        )

    async def services_here(self) -> dict[str, ServiceHealth]:
        """The services of the local agent, by id, with their checks as this host sees them.

        Those that the token may not read are left out by Consul without a word: whether one is
        there is answered by service_here.
        """
        doing = "read the services of this host in Consul"
        services = await self._read(doing, "services", rule=_READ_SERVICES)
        checks = await self._read(doing, "checks", rule=_READ_SERVICES)
        return answers.services_here(services, checks)

    async def service_here(self, service_id: str) -> ServiceHealth | None:
        """One service of the local agent; None where it is not there, which a denial never is."""
        found = (await self.services_here()).get(service_id)
        if found is None:
            try:
                await self._read(
                    f"read the service {service_id} of this host in Consul",
                    f"service/{service_id}",
                    rule=f'service "{service_id}" {{ policy = "read" }}',
                )
            except NotFound:
                return None
            found = (await self.services_here()).get(service_id)
        return found

    async def health(
        self, service: str, *, is_consistent: bool = False
    ) -> tuple[ServiceHealth, ...]:
        """Every registration of a service, whatever its status, in the agent's own datacenter.

        is_consistent: asks a quorum of the servers, where an old leader could otherwise answer.
        Raises AgentError (CONSUL_DENIED) where nothing is seen since the service may not be read.
        """
        doing = f"read the health of the service {service} in Consul"
        rule = f'service "{service}" {{ policy = "read" }} node_prefix "" {{ policy = "read" }}'
        found = await self._calls.ask_json(
            "GET",
            doing,
            f"/v1/health/service/{service}",
            query={"consistent": "1"} if is_consistent else {},
            rule=rule,
        )
        if not found:  # filtered without a word, perhaps: this question is answered by 403 then
            await self._calls.ask_status(doing, f"/v1/agent/health/service/name/{service}", rule)
        return answers.service_health(found)

    async def reload_agent(self) -> None:
        """Let the local agent read its configuration directory again."""
        await self._put(
            "reload the Consul agent", "reload", rule='agent_prefix "" { policy = "write" }'
        )

    async def read_self(self) -> LocalAgent:
        """Who the local agent is."""
        given = await self._read(
            "read the Consul agent's own configuration",
            "self",
            rule='agent_prefix "" { policy = "read" }',
        )
        return answers.local_agent(given)

    async def missing_rights(self, wanted: Iterable[Right]) -> list[Right]:
        """Those of at most 64 rights that the token does not have; none where ACLs are off.

        Raises NotFound for a Consul that cannot be asked: it is what Consul's own pages ask.
        """
        asked = list(wanted)
        body = [
            {"Resource": each.resource, "Segment": each.name, "Access": each.access}
            for each in asked
        ]
        try:
            given = await self._calls.ask_json(
                "POST",
                "ask Consul what the token may do",
                "/v1/internal/acl/authorize",
                body=body,
                rule=_READ_SERVICES,
            )
        except AgentError as error:
            if "ACL support disabled" not in error.message:
                raise
            return []
        return [right for right, answer in zip(asked, given, strict=True) if not answer["Allow"]]

    async def leader(self) -> str:
        """Address of the leader of Consul's servers; "" while they have none."""
        try:
            given = await self._calls.ask_json(
                "GET", "read Consul's leader", "/v1/status/leader", rule="none is needed"
            )
        except AgentError as error:
            if "No cluster leader" not in error.message:
                raise
            return ""
        return str(given)

    async def _put(
        self,
        doing: str,
        path: str,
        *,
        rule: str,
        query: dict[str, str] | None = None,
        body: object = None,
    ) -> None:
        await self._calls.ask_json(
            "PUT", doing, f"/v1/agent/{path}", query=query, body=body, rule=rule
        )

    async def _read(self, doing: str, path: str, *, rule: str) -> Any:
        return await self._calls.ask_json("GET", doing, f"/v1/agent/{path}", rule=rule)


def _write_service(name: str) -> str:
    return f'service "{name}" {{ policy = "write" }}'


def _write_named(service_id: str) -> str:
    """For a call that knows the id only; rules are about names."""
    return f"{_write_service(service_id)} (with the service's name, where that is another one)"
