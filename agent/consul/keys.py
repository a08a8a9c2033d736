"""Consul's keys, locks and sessions: what the hosts of one datacenter share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.consul import answers
from agent.consul.calls import Calls
from agent.consul.watch import PrefixWatch
from agent.model.consul import KvEntry, KvSnapshot, SessionBehavior
from agent.model.errors import AgentError, Code
from agent.model.settings import ConsulSettings

MAX_VALUE_BYTES = 512 * 1024  # https://developer.hashicorp.com/consul/api-docs/kv


class Keys:
    """Keys, locks and sessions, of the datacenter that is configured."""

    def __init__(self, settings: ConsulSettings, calls: Calls) -> None:
        self.settings = settings
        self._calls = calls
        self._dc = settings.datacenter or None

    def key(self, *parts: str) -> str:
        """A key of ours: the configured prefix and these parts."""
        return "/".join((self.settings.prefix, *parts))

    async def read_kv(self, key: str, *, is_consistent: bool = False) -> KvEntry | None:
        """One key; None where it is not there, which a denial never is."""
        library = await self._calls.library()
        _, entry = await self._calls.call(
            f"read the key {key} in Consul",
            lambda: library.kv.get(_checked(key), dc=self._dc, consistency=_mode(is_consistent)),
            rule=f'key "{key}" {{ policy = "read" }}',
        )
        return None if entry is None else answers.kv_entry(entry)

    async def read_prefix(self, prefix: str, *, is_consistent: bool = False) -> KvSnapshot:
        """All keys below a prefix, with or without a "/" at its end, at one moment.

        Raises AgentError (CONSUL_DENIED) where the token may not read the prefix as a whole: it is
        never an empty snapshot. Keys below it that are denied one by one are left out by Consul.
        """
        found = await self._read_prefix(prefix, is_consistent=is_consistent)
        assert found is not None
        return found

    async def read_entries(self, prefix: str) -> tuple[KvEntry, ...]:
        """All keys below a prefix with what tells of their locks; raises as read_prefix."""
        found = await self._read_below(_whole(prefix), is_consistent=True)
        assert found is not None
        return tuple(map(answers.kv_entry, found[1]))

    def watch_prefix(self, prefix: str) -> PrefixWatch:
        """Snapshots of a prefix: `async for snapshot in consul.watch_prefix(prefix)`."""

        async def read(index: int, wait_seconds: float) -> KvSnapshot | None:
            return await self._read_prefix(prefix, index, wait_seconds, is_consistent=not index)

        return PrefixWatch(_whole(prefix), read)

    async def put_kv(self, key: str, value: bytes, *, cas: int | None = None) -> bool:
        """Write a key. cas: only if its modify_index is this one, 0: only if it is not there.

        False: it was another one, and nothing was written.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise AgentError(
                f"cannot write the key {key} in Consul: {len(value)} bytes are more than the"
                f" {MAX_VALUE_BYTES} that Consul takes",
                code=Code.CONSUL_REFUSED,
            )
        return await self._put_key(key, value, "write", repeats=cas is None, cas=cas)

    async def delete_kv(self, key: str, *, cas: int | None = None) -> bool:
        """Delete a key, as put_kv writes it; one that is not there is fine."""
        query = {} if cas is None else {"cas": str(cas)}
        given: bool = await self._calls.ask_json(
            "DELETE",
            f"delete the key {key} in Consul",
            f"/v1/kv/{_checked(key)}",
            query=query | self._of_datacenter(),
            rule=_write_key(key),
            repeats=cas is None,
        )
        return given

    async def create_session(
        self,
        name: str,
        *,
        ttl_seconds: float,
        behavior: SessionBehavior = SessionBehavior.RELEASE,
        lock_delay_seconds: float = 15.0,
    ) -> str:
        """The id of a new session, which ends ttl_seconds (10 to 86400) after its last renewal.

        No check belongs to it: serfHealth would end it with each hiccup of the network. Consul may
        end it up to ttl_seconds late. lock_delay_seconds: for how long nobody gets a lock of a
        session that was ended for its holder.
        """
        given = await self._put_session(
            "create",
            f"create the session {name}",
            {
                "Name": name,
                "TTL": answers.duration(ttl_seconds),
                "Behavior": behavior.value,
                "LockDelay": answers.duration(lock_delay_seconds),
                "Checks": [],
            },
            repeats=False,
        )
        assert isinstance(given, dict)
        return str(given["ID"])

    async def renew_session(self, session: str) -> None:
        """Begin its TTL anew. Raises NotFound if it has ended."""
        await self._put_session(f"renew/{session}", "renew a session")

    async def destroy_session(self, session: str) -> None:
        """End it: its keys are released or deleted at once. One that has ended is fine."""
        await self._put_session(f"destroy/{session}", "destroy a session")

    async def acquire(self, key: str, value: bytes, session: str) -> bool:
        """Lock a key and write its value; False while another session holds it, or its delay lasts.

        True again for the session that holds it. Raises NotFound if the session has ended.
        """
        return await self._put_key(key, value, "lock", acquire=session)

    async def release(self, key: str, value: bytes, session: str) -> bool:
        """Unlock a key and write its value; False if this session does not hold it."""
        return await self._put_key(key, value, "unlock", release=session)

    async def _read_prefix(
        self,
        prefix: str,
        index: int = 0,
        wait_seconds: float = 0.0,
        *,
        is_consistent: bool = False,
    ) -> KvSnapshot | None:
        """The snapshot; with an index the first other one, or None after wait_seconds without."""
        whole = _whole(prefix)
        found = await self._read_below(whole, index, wait_seconds, is_consistent=is_consistent)
        return None if found is None else answers.kv_snapshot(whole, *found)

    async def _read_below(
        self,
        whole: str,
        index: int = 0,
        wait_seconds: float = 0.0,
        *,
        is_consistent: bool,
    ) -> tuple[int, list[Mapping[str, Any]]] | None:
        """As _read_prefix: the index, and the entries as Consul gives them.

        Where a list of keys may not be read, Consul answers as if there were no keys; only a single
        key says which it is. Permission may come back between these two questions, so a list that
        is empty is asked for again once it is known that it may be read.
        """
        doing = f"read the keys below {whole} in Consul"
        rule = f'key_prefix "{whole}" {{ policy = "read" }}'
        options = {"dc": self._dc, "consistency": _mode(is_consistent)}
        library = await self._calls.library()

        async def read(**waiting: object) -> tuple[int, list[Mapping[str, Any]]]:
            found, entries = await self._calls.call(
                doing,
                lambda: library.kv.get(whole, recurse=True, **waiting, **options),
                rule=rule,
                repeats=not waiting,
            )
            return int(found), [each for each in entries or () if not each["Key"].endswith("/")]

        waiting = {"index": index, "wait": f"{wait_seconds:.0f}s"} if index else {}
        found = await read(**waiting)
        if index and found[0] == index:
            return None
        await self._calls.call(doing, lambda: library.kv.get(whole, **options), rule=rule)
        return found if found[1] else await read()

    async def _put_key(
        self,
        key: str,
        value: bytes,
        verb: str,
        *,
        repeats: bool = True,
        **options: object,
    ) -> bool:
        library = await self._calls.library()
        given: bool = await self._calls.call(
            f"{verb} the key {key} in Consul",
            lambda: library.kv.put(_checked(key), value, dc=self._dc, **options),
            rule=_write_key(key),
            repeats=repeats,
        )
        return given

    async def _put_session(
        self, path: str, doing: str, body: object = None, *, repeats: bool = True
    ) -> object:
        return await self._calls.ask_json(
            "PUT",
            f"{doing} in Consul",
            f"/v1/session/{path}",
            query=self._of_datacenter(),
            body=body,
            rule='session_prefix "" { policy = "write" }',
            repeats=repeats,
        )

    def _of_datacenter(self) -> dict[str, str]:
        return {"dc": self._dc} if self._dc else {}


def _whole(prefix: str) -> str:
    """A prefix as a folder: "go" must not take in the keys of "go-service"."""
    return _checked(prefix.strip("/")) + "/"


def _checked(key: str) -> str:
    """A key that reaches Consul as it is: empty and dotted parts do not (it redirects them)."""
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise AgentError(
            f"cannot use the key {key!r}: a part of it is empty or made of dots",
            code=Code.BAD_REQUEST,
        )
    return key


def _mode(is_consistent: bool) -> str:  # noqa: FBT001 - one word of a query
    return "consistent" if is_consistent else "default"


def _write_key(key: str) -> str:
    return f'key "{key}" {{ policy = "write" }}'
