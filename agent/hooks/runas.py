"""Who a hook runs as: another user only as root, and without su, so that nologin users work."""

from __future__ import annotations

from collections.abc import Iterable

from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError, Code, NotFound
from agent.system import users
from agent.system.users import Account


def find_runas(hook: Hook) -> tuple[Account, bool]:
    """The hook's account, and whether the agent has to switch to it; blocks.

    Raises NotFound where there is no such user, AgentError (NOT_PERMITTED) where only root could.
    """
    own = users.own_account()
    if not hook.runas or hook.runas == own.name:
        return own, False
    account = users.find_account(hook.runas)
    if own.uid == 0:
        return account, True
    if account.uid == own.uid:
        return account, False
    raise AgentError(
        f"cannot run {hook.location} as {hook.runas}: the agent runs as {own.name}, not as root",
        code=Code.NOT_PERMITTED,
        remedy=f"Run the agent as root, or leave runas out of the hook (or set it to {own.name})",
        where=f"{hook.event} {hook.location}",
    )


def check_runas(hooks: Iterable[Hook]) -> tuple[list[str], list[str]]:
    """What keeps hooks from running as their user, a line each: problems, warnings; blocks.

    A user that is not there yet is no problem for a hook that runs after a BeforeInstall hook:
    that is where bundles for AWS CodeDeploy create theirs.
    """
    known = list(hooks)
    may_create = any(hook.event is LifecycleEvent.BEFORE_INSTALL for hook in known)
    order = list(LifecycleEvent)
    later = order[order.index(LifecycleEvent.BEFORE_INSTALL) + 1 :]
    problems, warnings = [], []
    for hook in known:
        try:
            find_runas(hook)
        except NotFound as error:
            text = f"{hook.event} {hook.location}: {error.message}"
            if may_create and hook.event in later:
                warnings.append(f"{text}; BeforeInstall has to create it")
            else:
                problems.append(f"{text}. {error.remedy}")
        except AgentError as error:
            problems.append(f"{hook.event} {hook.location}: {error.message}. {error.remedy}")
    return list(dict.fromkeys(problems)), list(dict.fromkeys(warnings))


def with_sudo(hook: Hook, argv: tuple[str, ...]) -> tuple[str, ...]:
    """`sudo: true` asks for root's rights; where the agent is root it has nothing to do."""
    if hook.sudo and users.own_account().uid != 0:
        return ("sudo", "-n", *argv)
    return argv
