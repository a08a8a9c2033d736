"""What S3 answers when it does not do it, in words that say what to change.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html lists the codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from agent.model.errors import AgentError, Code, Conflict, NotFound, TransientError
from agent.remote import web

_ACTION = re.compile(r"to perform: ([a-z0-9-]+:\w+)")
_WHO = re.compile(r"User: (arn:[\w-]+:[\w-]+::(\d{12}):\S+) is not")
_PASSING = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
)
# the credentials themselves were refused: other ones may be there by now
_STALE = frozenset(
    {"ExpiredToken", "TokenRefreshRequired", "InvalidAccessKeyId", "InvalidToken",
     "SignatureDoesNotMatch", "AccessDenied", "RequestExpired"}
)  # fmt: skip
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed",
     "IllegalLocationConstraintException"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. action: the permission that it needs. name: the whole key, or ""."""

    doing: str
    action: str
    bucket: str
    name: str
    region: str
    account: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer that is no success. code, message: "" where it came without a body (HEAD)."""

    status: int
    code: str
    message: str
    region: str
    server_time: str
    retry_after: float

    @property
    def may_be_stale(self) -> bool:
        """Whether other credentials could change it."""
        return self.code in _STALE or (self.status == 403 and not self.code)

    def is_elsewhere(self, region: str) -> bool:
        """Whether the bucket lies in another region, which the answer names."""
        named = bool(self.region) and self.region != region
        return named and (self.code in _ELSEWHERE or self.status in (301, 307, 400))


def parse_xml(body: bytes) -> ET.Element | None:
    """The root, None for anything else; without a DTD, which S3 never sends."""
    if b"<!" in body.replace(b"<![CDATA[", b""):
        return None
    try:
        root = ET.fromstring(body)  # noqa: S314 - no DTD, so no entities; and of limited size
    except ET.ParseError:
        return None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def parse_fault(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """A Fault from an answer, whether it has S3's XML in it or not."""
    root = parse_xml(body)
    found = {} if root is None else {each.tag: each.text or "" for each in root}
    return Fault(
        status=status,
        code=found.get("Code", ""),
        message=" ".join(found.get("Message", "").split())[:500],
        region=headers.get("x-amz-bucket-region", "") or found.get("Region", ""),
        server_time=found.get("ServerTime", "") or headers.get("Date", ""),
        retry_after=web.retry_after(headers),
    )


def error_of(fault: Fault, asked: Asked) -> AgentError:
    """The fault in our words."""
    if fault.is_elsewhere(asked.region):
        return AgentError(
            f"cannot {asked.doing}: the bucket {asked.bucket} lies in {fault.region},"
            f" not in {asked.region}",
            code=Code.CONFIG_INVALID,
            remedy=f"Set region: {fault.region} beside its url",
        )
    if fault.code in _PASSING or fault.status == 429 or fault.status >= 500:
        return TransientError(
            f"cannot {asked.doing}: S3 cannot answer now ({_shown(fault)})",
            code=Code.SOURCE_UNAVAILABLE,
            retry_after=fault.retry_after,
        )
    return _about_credentials(fault, asked) or _about_object(fault, asked)


def _about_credentials(fault: Fault, asked: Asked) -> AgentError | None:
    match fault.code:
        case "RequestTimeTooSkewed":
            cause = f"this host's clock is wrong: S3 says that it is {fault.server_time}"
            remedy = "Set the clock: timedatectl set-ntp true"
        case "ExpiredToken" | "TokenRefreshRequired" | "RequestExpired":
            cause = "the AWS credentials have expired, and no newer ones were found"
            remedy = "Renew what is in the environment or the profile, or use a role instead"
        case "InvalidAccessKeyId" | "InvalidToken":
            cause = "AWS does not know these credentials"
            remedy = "Check which are found first (docs/sources.md): environment, profile, role"
        case "SignatureDoesNotMatch":
            cause = "the secret key does not belong to the access key (SignatureDoesNotMatch)"
            remedy = "Check aws_secret_access_key, and that no proxy changes requests"
        case "" | "AccessDenied" | "AllAccessDisabled" | "AccountProblem" if fault.status == 403:
            return _denied(fault, asked)
        case _:
            return None
    return AgentError(f"cannot {asked.doing}: {cause}", code=Code.SOURCE_DENIED, remedy=remedy)


def _denied(fault: Fault, asked: Asked) -> AgentError:
    """S3 says who, and what is missing, in recent messages only."""
    action = _ACTION.search(fault.message)
    who = _WHO.search(fault.message)
    missing = action[1] if action else asked.action
    account = who[2] if who else asked.account
    place = f"bucket {asked.bucket}, region {asked.region}" + (
        f", account {account}" * bool(account)
    )
    cause = f"access denied ({place}): {missing} is missing" + ("" if action else ", as it seems")
    hidden = missing in ("s3:GetObject", "s3:GetObjectVersion")
    details = [fault.message] if fault.message else []
    if hidden:
        details.append("without s3:ListBucket, S3 says the same of an object that does not exist")
    allow = f"Allow {missing} on {_resource(asked, missing)}"
    return AgentError(
        f"cannot {asked.doing}: {cause}",
        code=Code.SOURCE_DENIED,
        details=tuple(details),
        remedy=f"{allow} to {who[1]}" if who else f"{allow}: docs/sources.md has the policy",
    )


def _resource(asked: Asked, action: str) -> str:
    if action.startswith("kms:"):
        return "the bucket's KMS key"
    bucket = f"arn:aws:s3:::{asked.bucket}"
    return (
        bucket if action in ("s3:ListBucket", "s3:ListBucketVersions") else f"{bucket}/{asked.name}"
    )


def _about_object(fault: Fault, asked: Asked) -> AgentError:
    match fault.code:
        case "NoSuchBucket":
            # not NotFound: that is how an object that was never written looks
            return AgentError(
                f"cannot {asked.doing}: there is no bucket {asked.bucket}",
                code=Code.CONFIG_INVALID,
                remedy="Check the url, and the endpoint where one is set",
            )
        case "NoSuchVersion":
            return NotFound(
                f"cannot {asked.doing}: the object has no such version", code=Code.NOT_FOUND
            )
        case "" | "NoSuchKey" if fault.status == 404:
            return NotFound(
                f"cannot {asked.doing}: the bucket {asked.bucket} has no {asked.name!r}",
                code=Code.NOT_FOUND,
                remedy="Check the prefix, application and deployment_group, and push to it",
            )
        case "ConditionalRequestConflict":
            return Conflict(
                f"cannot {asked.doing}: somebody else writes it at this moment",
                code=Code.CONFLICT,
                remedy="Look at what is there then, and run this again",
            )
        case "InvalidObjectState":
            cause, remedy = (
                "it is in an archive class (Glacier)",
                "Restore it: aws s3api restore-object",
            )
        case "XAmzContentSHA256Mismatch" | "BadDigest" | "InvalidDigest":
            cause, remedy = "what arrived has another digest than what was sent", "Run it again"
        case code if code.startswith("KMS."):
            cause = f"its KMS key cannot be used ({code}: {fault.message})"
            remedy = "Enable that key, and allow kms:Decrypt (to publish: kms:GenerateDataKey)"
        case _:
            cause, remedy = _shown(fault), ""
    return AgentError(f"cannot {asked.doing}: {cause}", code=Code.SOURCE_UNAVAILABLE, remedy=remedy)


def _shown(fault: Fault) -> str:
    text = f"HTTP {fault.status} {fault.code}".rstrip()
    return f"{text}: {fault.message}" if fault.message else text
