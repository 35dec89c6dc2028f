"""Archives of ours, unpacked once they are found whole."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection
from pathlib import Path

from imagexplain.archive.spec import SPEC_FILE
from imagexplain.ops.check_archive import SPECS, ArchiveError, check


def unpack(archive: Path, folder: Path, handlers: Collection[str] = SPECS) -> str:
    """Unpack an archive; returns its handler.

    Args:
        archive: Archive of a model.
        folder: Empty folder.
        handlers: Handlers that will do.

    Raises:
        ArchiveError: an archive that is damaged, or of no such handler.
        OSError: no room for its files.
    """
    check(archive)
    with zipfile.ZipFile(archive) as content:
        ours = SPEC_FILE in content.namelist()
        handler: str = json.loads(content.read(SPEC_FILE))["handler"] if ours else "none of ours"
        if handler not in handlers:
            raise ArchiveError(f"{archive}: wanted the archive of a {' or a '.join(handlers)}, got handler {handler!r}")
        content.extractall(folder)
    return handler
