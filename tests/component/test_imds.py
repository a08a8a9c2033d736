"""EC2's metadata service is asked by version 2, and each way it can fail has its own remedy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.remote import imds
from tests.imds_server import Imds, metadata_service
from tests.web_server import answer


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imds]:
    with metadata_service() as (metadata, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield metadata


async def test_version_2_with_a_tag(metadata: Imds) -> None:
    found = await imds.read_identity(tag="DeploymentGroup")
    assert found == imds.Ec2Identity("eu-west-1", "111111111111", "i-0abc", "canary")


async def test_without_a_tag(metadata: Imds) -> None:
    assert (await imds.read_identity()).tag_value == ""


async def test_a_missing_tag_names_those_that_are_there(metadata: Imds) -> None:
    with pytest.raises(NotFound, match="the tag 'Group' of i-0abc: it has no such tag") as caught:
        await imds.read_identity(tag="Group")
    assert caught.value.details == ("its tags: DeploymentGroup, Name",)
    assert "aws ec2 create-tags --region eu-west-1 --resources i-0abc" in caught.value.remedy


async def test_tags_that_are_not_shown(metadata: Imds) -> None:
    metadata.tags = None
    with pytest.raises(NotFound, match="EC2 does not show its tags to this host") as caught:
        await imds.read_identity(tag="Group")
    assert "--instance-id i-0abc --instance-metadata-tags enabled" in caught.value.remedy


async def test_a_low_hop_limit(metadata: Imds, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token's answer gets lost on its way, and only that."""
    monkeypatch.setattr(imds, "_PATIENCE", imds.Patience(attempts=1, connect=1.0, stall=0.2))
    metadata.answers_token = False
    with pytest.raises(TransientError, match="its hop limit is too low") as caught:
        await imds.read_identity()
    assert "--http-put-response-hop-limit 2" in caught.value.remedy


async def test_nobody_there(metadata: Imds) -> None:
    assert metadata.server is not None
    metadata.server.close()
    with pytest.raises(TransientError, match="connection refused; nothing else is answered"):
        await imds.read_identity()


async def test_version_1_only_where_it_is_allowed(metadata: Imds) -> None:
    metadata.has_v2, metadata.allows_v1 = False, True
    with pytest.raises(AgentError, match="HTTP 404"):
        await imds.read_identity(tag="Name")
    assert (await imds.read_identity(tag="Name", allow_v1=True)).tag_value == "web 1"


async def test_switched_off(metadata: Imds) -> None:
    assert metadata.server is not None
    metadata.server.answering = lambda _: answer(403)
    with pytest.raises(AgentError, match="it is switched off") as caught:
        await imds.read_identity()
    assert caught.value.code is Code.SOURCE_DENIED


async def test_not_the_metadata_service(metadata: Imds) -> None:
    assert metadata.server is not None
    metadata.server.answering = lambda _: answer(200, b"<html>")
    with pytest.raises(AgentError, match="document: HTTP 200"):
        await imds.read_identity()
