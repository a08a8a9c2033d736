"""What a deployment of a bundle would do, found out without being one."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from pathlib import Path
from typing import Any

from agent.archive import removal
from agent.equipment import Equipment
from agent.lifecycle import LIFECYCLE
from agent.model.deployment import Deployment, Revision, Status, StepName, Trigger
from agent.model.errors import AgentError, Code
from agent.model.release import Layout
from agent.steps import plan
from agent.steps.context import Context
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog


def plans_dir(state_dir: Path) -> Path:
    """Where bundles are unpacked for a plan only; what lies here at start is of no use."""
    return state_dir / "plans"


async def plan_bundle(equipment: Equipment, revision: Revision) -> dict[str, Any]:
    """The plan of a revision as the API gives it; raises AgentError for a bundle that is bad."""
    scratch = plans_dir(equipment.settings.state_dir) / secrets.token_hex(8)
    layout = Layout(scratch)
    deployment = Deployment(
        id="plan",
        revision=revision,
        release="plan",
        trigger=Trigger.OPERATOR,
        requested_by="",
        status=Status.DOING,
        created_at=time.time(),
    )
    try:
        for folder in (layout.bundles, layout.releases, layout.work_dir("plan")):
            await asyncio.to_thread(folder.mkdir, parents=True, mode=0o711)
        base = await asyncio.to_thread(
            equipment.context,
            deployment,
            log=DeploymentLog(layout.work_dir("plan") / "log"),
            cancel=Cancel(),
            progress=lambda _done, _total: None,
            pass_name=StepName.PLAN,
            steps={},
            unpacked=set(),
        )
        base = dataclasses.replace(
            base,
            settings=dataclasses.replace(equipment.settings, state_dir=scratch),
            work_dir=layout.work_dir("plan"),
        )
        for row in LIFECYCLE[: _names().index(StepName.PLAN)]:
            result = await row.do(_for(base, layout, deployment))
            if result is not None and result.revision is not None:
                deployment = dataclasses.replace(deployment, revision=result.revision)
        base = dataclasses.replace(base, settings=equipment.settings)
        return await plan.report(_for(base, layout, deployment))
    except OSError as error:
        raise AgentError(
            f"cannot plan {revision.bundle}: {error.strerror}",
            code=Code.DISK_FULL,
            remedy=f"Look at the free space of {scratch.parent}",
        ) from error
    finally:
        await asyncio.to_thread(removal.remove_tree, scratch, Cancel())


def _names() -> list[StepName]:
    return [row.name for row in LIFECYCLE]


def _for(base: Context, layout: Layout, deployment: Deployment) -> Context:
    """The context of the next row, now that more is known of the revision."""
    return dataclasses.replace(
        base, deployment=deployment, release=layout.release("plan", deployment.revision)
    )
