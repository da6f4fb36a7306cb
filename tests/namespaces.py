"""Network namespaces that have only the loopback: for Ray, which listens on all interfaces."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

NAMESPACE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Before a command: it runs where there is no network but the loopback."""


def in_namespace(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run *command* where there is no network but the loopback."""
    return subprocess.run([*NAMESPACE, *command], text=True, **settings)


def why_no_namespace() -> str:
    """Return why there can be no such namespace here; "" if there can."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return "unshare and ip are needed for a network namespace"
    tried = in_namespace(["true"], capture_output=True)
    return tried.stderr.strip() if tried.returncode else ""
