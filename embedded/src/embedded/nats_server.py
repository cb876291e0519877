"""The real nats-server, on loopback, with what the services need and nothing else."""

import json
import secrets
from pathlib import Path

USER = "tetra"

# An event is never split, and the kernel lets a process have 2 MB of arguments.
_MAX_PAYLOAD_BYTES = 8 << 20


def write_config(folder: Path, port: int) -> tuple[Path, Path]:
    """Write nats.conf and a new password into ``folder``; return the paths of both."""
    password = folder / "nats.password"
    password.write_text(secrets.token_hex(16))
    config = folder / "nats.conf"
    # JSON is valid in nats-server's configuration language, and quotes any path.
    config.write_text(
        json.dumps(
            {
                "server_name": "tetra-embedded",
                "host": "127.0.0.1",
                "port": port,
                "max_payload": _MAX_PAYLOAD_BYTES,
                # The default acknowledges at once and syncs to disk every two minutes.
                "jetstream": {"store_dir": str(folder / "jetstream"), "sync_interval": "always"},
                "authorization": {"user": USER, "password": password.read_text()},
            },
            indent=2,
        )
    )
    return config, password
