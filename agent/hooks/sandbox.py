"""What hooks may use and touch, by agent.yaml, in systemd's words: systemd.exec(5)."""

from __future__ import annotations

from agent.model.settings import HookSettings, Sandbox


def _quoted(path: str) -> str:
    """One path where systemd expects a list of them: systemd.syntax(7), "Quoting"."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_KERNEL = (
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("PrivateDevices", "yes"),
    ("RestrictRealtime", "yes"),
    ("LockPersonality", "yes"),
)


def properties(settings: HookSettings, release: str) -> list[tuple[str, str]]:
    """Of the unit of a hook. release: the folder that it may always write to."""
    found: list[tuple[str, str]] = []
    if settings.memory_max_bytes:
        found.append(("MemoryMax", str(settings.memory_max_bytes)))
    if settings.processes_max:
        found.append(("TasksMax", str(settings.processes_max)))
    if settings.cpu_weight:
        found.append(("CPUWeight", str(settings.cpu_weight)))
    match settings.sandbox:
        case Sandbox.NONE:
            return found
        case Sandbox.SYSTEM:
            return [*found, *_KERNEL, ("ProtectSystem", "yes")]
        case Sandbox.STRICT:
            return [
                *found,
                *_KERNEL,
                ("ProtectSystem", "strict"),
                ("ProtectHome", "read-only"),
                ("PrivateTmp", "yes"),
                ("ReadWritePaths", _quoted(release)),
            ]
