"""What the agent tells the journal: one MESSAGE_ID for each kind of message, and its fields.

systemd.journal-fields(7), sd-id128(3). The texts that `journalctl -x` adds to them are in
systemd/deploy-agent.catalog.
"""

from __future__ import annotations

import re
from enum import StrEnum

from agent.model.appspec import LifecycleEvent
from agent.model.deployment import Deployment, Failure, Outcome
from agent.model.errors import Code


class Message(StrEnum):
    """The kinds of messages. The values are matched by users' alerts: never change one."""

    AGENT_STARTED = "ae86cb23369b4c8d98c2f3d57030e84e"
    AGENT_STOPPING = "180172ad97ab483697e0b389cf7eecdf"
    AGENT_REFUSED = "d2e2acdc153f411889a861cba9722b86"
    AGENT_STUCK = "589e2c9c0c6c433cbc025c990e325431"
    DEPLOYMENT_REQUESTED = "43b8a3bb88d24e358f3a37aa8fadbdd4"
    DEPLOYMENT_BEGUN = "e5a4135f4ceb42cdbd7cc8fdd8565562"
    DEPLOYMENT_RESUMED = "a779ff15d8ca40bb955fbe3c5b30ec4d"
    DEPLOYMENT_SUPERSEDED = "2299696dd4614b6381081c02e7b9a946"
    STEP_BEGUN = "36e10d98a1674e099873d277a24827ed"
    STEP_DONE = "14577641fe624c81ac85165bf7a5ca51"
    STEP_FAILED = "08de82a148a3495fa513f869e3d6675c"
    HOOK_FAILED = "508532b6e49b41bf838a922d21117749"
    UNIT_FAILED = "6c36dc6fc7ae41eeaeb814cb18ba385a"
    SERVICE_NOT_PROVED = "a50d1ba4114744e3bf67ec8645fdd3dc"
    UNDO_BEGUN = "325c41a97274435d9c1e7745b0a6d352"
    UNDO_DONE = "ef452995955f444299ea24b279b3d672"
    UNDO_FAILED = "9487ee40bed0432aa9854f8338a9d7bf"
    COMMITTED = "e33baa4b3b4949b48b3f27438a948430"
    FAILED = "adb460e7d7714da19ca3aab6c7a3e23a"
    ROLLED_BACK = "84e57329072148e283819fe4fbb524b8"
    ABORTED = "e503ab0934ca43eca7b6e2c2fd35b1dd"
    INCONSISTENT = "130185a928794c1396d293dd762a1469"
    QUARANTINED = "d9044490907c4660afc60d9f4bb699a9"
    HELD = "a85dec90ff684709ad450f1ac476e674"
    UNHELD = "a6fa4f1356b84113a8e672a1c6f799ee"
    DRAINED = "5b0701e5a1934bb2be61c9e6cd39022e"
    UNDRAINED = "9e56b809f206455da4d2a8c2659be782"
    SOURCE_PROBLEM = "203603d269f842aca8f6d5061686ae8a"
    SOURCE_RECOVERED = "023b4e96fd134ca9afd158e99efefd66"
    CONSUL_PROBLEM = "2ad6f148836d4c2097a73c1e90e36045"
    CONSUL_RECOVERED = "cec32c72b5ae4d26b42d096a05227f66"
    ENVIRONMENT_DECIDED = "b923cbfc55dd4aaca1b33adc62b126f9"
    STATE_PROBLEM = "04fe4d96f798499a98a9291bbe662cdc"
    INTERNAL_ERROR = "87dc02b523ba4c36ba1288775832be97"


BY_OUTCOME = {
    Outcome.SUCCEEDED: Message.COMMITTED,
    Outcome.FAILED: Message.FAILED,
    Outcome.ROLLED_BACK: Message.ROLLED_BACK,
    Outcome.SUPERSEDED: Message.DEPLOYMENT_SUPERSEDED,
    Outcome.ABORTED: Message.ABORTED,
    Outcome.INCONSISTENT: Message.INCONSISTENT,
}
_BY_CODE = {
    Code.HOOK_FAILED: Message.HOOK_FAILED,
    Code.HOOK_TIMEOUT: Message.HOOK_FAILED,
    Code.HOOK_NOT_RUNNABLE: Message.HOOK_FAILED,
    Code.UNIT_FAILED: Message.UNIT_FAILED,
    Code.STATUS_UNREACHABLE: Message.SERVICE_NOT_PROVED,
    Code.STATUS_UNHEALTHY: Message.SERVICE_NOT_PROVED,
    Code.VERSION_MISMATCH: Message.SERVICE_NOT_PROVED,
    Code.INTERNAL: Message.INTERNAL_ERROR,
}
_UNIT = re.compile(
    r"(?<![^ '\"])[\w:@.\\-]+\.(?:service|socket|timer|path|target|mount|slice|scope)(?![\w.-])"
)


def of_failure(code: str) -> Message:
    """The kind of message that tells of a step that failed by this cause code."""
    return _BY_CODE.get(Code(code), Message.STEP_FAILED)


def deployment_fields(deployment: Deployment) -> dict[str, str]:
    """What every line about a deployment carries."""
    return {
        "DEPLOYMENT_ID": deployment.id,
        "APPLICATION": deployment.revision.application,
        "REVISION_VERSION": deployment.revision.version,
    }


def failure_fields(failure: Failure) -> dict[str, str]:
    """A failure, taken apart; LIFECYCLE_EVENT and OBJECT_SYSTEMD_UNIT where it was in one.

    By OBJECT_SYSTEMD_UNIT, `systemctl status` of that unit shows the line, too.
    """
    fields = {
        "FAILURE_CODE": str(failure.code),
        "FAILURE_WHERE": failure.where,
        "FAILURE_MESSAGE": failure.message,
        "FAILURE_EVIDENCE": "\n".join(failure.evidence),
        "FAILURE_NEXT": failure.next,
    }
    event = failure.where.partition(" ")[0]
    if event in set(LifecycleEvent):
        fields["LIFECYCLE_EVENT"] = event
    if failure.code == Code.UNIT_FAILED:
        named = _UNIT.search(failure.where) or _UNIT.search(failure.message)
        if named:
            fields["OBJECT_SYSTEMD_UNIT"] = named[0]
    return {name: value for name, value in fields.items() if value}
