"""Install the files of the plan; undo puts back, exactly, what was there."""

from __future__ import annotations

from agent.files import apply
from agent.steps.context import Context, Result
from agent.system import process
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Carry the plan out."""
    changed = await run_blocking(
        ctx.cancel,
        apply.install,
        ctx.work_dir,
        capture=process.capture_blocking,
        progress=ctx.progress,
        cancel=ctx.cancel,
    )
    return Result(note=f"{changed} paths changed")


async def undo(ctx: Context) -> None:
    """Put back what was there, exactly."""
    await ctx.put_files_back()
