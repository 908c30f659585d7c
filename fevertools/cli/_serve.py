"""`fevertools serve`: an HTTP server for this machine."""

import argparse
import sys
from dataclasses import fields

from fevertools.cli._parser import FINE
from fevertools.serve import Settings, is_loopback, run


def serve(options: argparse.Namespace) -> int:
    """`fevertools serve`."""
    given = vars(options)
    settings = Settings(**{field.name: given[field.name] for field in fields(Settings) if field.name in given})
    address = {name: given[name] for name in ("host", "port") if name in given}
    if not is_loopback(address.get("host", "127.0.0.1")):
        _tell(
            f"warning: whoever reaches {address['host']} can use this server: it asks for no password and does not "
            "encrypt. Put a proxy that does before it, or leave --host out"
        )
    run(settings, **address, told=lambda url: _tell(f"listening on {url}; Ctrl-C ends it"))
    return FINE


def _tell(text: str) -> None:
    print(f"fevertools: {text}", file=sys.stderr, flush=True)
