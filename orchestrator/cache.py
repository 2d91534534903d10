"""Where downloads and rebuilt models are kept: outside the project, shared by all of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """The tool's cache: ORCHESTRATOR_CACHE, else the platform's own place for caches."""
    if chosen := os.environ.get("ORCHESTRATOR_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("orchestrator")


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes when it does not.

    Two builders at once are harmless: the later one finds the target in place and drops its own copy.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
