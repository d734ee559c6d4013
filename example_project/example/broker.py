"""A folder of files as the broker: enough for a demo on one machine."""

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **options: Any) -> None:
        """Write a message under another name first.

        Kombu writes it in place. A worker that reads it too early finds no JSON, and
        ends.
        """
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        file = Path(self.data_folder_out, name)
        part = file.with_suffix(".part")
        try:
            part.write_text(dumps(payload))
            part.rename(file)
        except OSError:
            part.unlink(missing_ok=True)
            raise


class Transport(filesystem.Transport):
    Channel = Channel
