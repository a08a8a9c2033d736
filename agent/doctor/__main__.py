"""The doctor as a program: one JSON object on one line, for `agentctl doctor` to show."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import agent
from agent.doctor import host, rounds
from agent.doctor.finding import Finding, Level
from agent.doctor.host import Host
from agent.model.errors import AgentError, Code

SCHEMA = 1
_FIND_SECONDS = 5.0


def main() -> int:
    """Look, and print. Always 0: what was found is in the output."""
    parser = argparse.ArgumentParser(prog="python -m agent.doctor", description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--socket", type=Path)
    options = parser.parse_args()
    found: list[Host] = []
    reader = threading.Thread(
        target=lambda: found.append(host.find_host(options.config, options.socket)), daemon=True
    )
    reader.start()
    reader.join(_FIND_SECONDS)
    if not found:
        error = AgentError(
            f"cannot read the configuration: no answer within {_FIND_SECONDS:g} s",
            code=Code.CONFIG_INVALID,
            remedy=f"See what it is: ls -l {options.config or '/etc/deploy-agent'}",
        )
        found.append(host.assume_host(options.config, options.socket, error))
    print(json.dumps(_view(rounds.examine(found[0]))), flush=True)
    return 0


def _view(results: list[tuple[str, Finding]]) -> dict[str, object]:
    levels = [each.level for _, each in results]
    return {
        "schema": SCHEMA,
        "version": agent.__version__,
        "examined_at": time.time(),
        "problems": levels.count(Level.PROBLEM),
        "warnings": levels.count(Level.WARNING),
        "unknown": levels.count(Level.UNKNOWN),
        "findings": [
            {
                "subject": subject,
                "level": each.level,
                "text": each.text,
                "remedy": each.remedy,
            }
            for subject, each in results
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
