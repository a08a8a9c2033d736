"""Whose signature this host wants to see, on manifests and on bundles themselves."""

from __future__ import annotations

import os
from pathlib import Path


class Keys:
    """The keys in a folder, read anew at each question. All methods block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def wants_signature(self) -> bool:
        """Whether unsigned is refused here: with the first key. Raises AgentError for a bad key."""
        try:
            if not os.listdir(self.folder):
                return False
        except FileNotFoundError:
            return False
        except OSError:
            pass  # it is explained where keys are read
        from agent.system.keyring import KeyRing  # imported here: most hosts with folders have none

        return not KeyRing.load(self.folder).is_empty

    def check(self, text: bytes, signature: bytes, *, what: str) -> str:
        """Check the signature of a text called `what`; the id of its key."""
        from agent.system.keyring import KeyRing  # as above

        return KeyRing.load(self.folder).check(text, signature, what=what)

    def check_file(self, path: Path, signature: bytes) -> tuple[str, str]:
        """Check the signature of a file: key id, and sha256 of what was signed."""
        from agent.system.keyring import KeyRing  # as above

        return KeyRing.load(self.folder).check_file(path, signature)
