"""The environment of hooks: short, documented (docs/hooks.md), and nothing of the agent's own."""

from __future__ import annotations

from pathlib import Path

from agent.hooks.scene import HookScene
from agent.model.appspec import Hook
from agent.system.process import SEARCH_PATH
from agent.system.users import Account


def make_environment(
    scene: HookScene, hook: Hook, account: Account, *, commands_dir: Path, socket: Path
) -> dict[str, str]:
    """All that a hook sees. AWS: "Environment variable availability for hooks"."""
    bundle = {
        "BUNDLE_BUCKET": scene.bundle.bucket,
        "BUNDLE_KEY": scene.bundle.key,
        "BUNDLE_VERSION": scene.bundle.version,
        "BUNDLE_ETAG": scene.bundle.etag,
        "BUNDLE_COMMIT": scene.bundle.commit,
    }
    return {
        "PATH": f"{SEARCH_PATH}:{commands_dir}",
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
        "LANG": "C.UTF-8",
        "LIFECYCLE_EVENT": hook.event,
        "HOOK_TIMEOUT": f"{hook.timeout_seconds:g}",
        "DEPLOYMENT_ID": scene.deployment_id,
        "APPLICATION_NAME": scene.application,
        "DEPLOYMENT_GROUP_NAME": scene.group,
        "DEPLOYMENT_GROUP_ID": scene.group_id,
        "REVISION_VERSION": scene.version,
        "PREVIOUS_VERSION": scene.previous_version,
        "RELEASE_DIR": str(scene.tree),
        "DEPLOY_AGENT_SOCKET": str(socket),
        **{name: value for name, value in bundle.items() if value},
    }
