"""`palimpsest run`: the app."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from dashboard.commands.options import ENVIRONMENT, example
from rewrite_core.errors import RequestError

__all__ = ["run"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command(epilog=example("palimpsest run --port 8600 --no-browser"))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Where to listen; 0 takes any.  [default: the first free one from 8501]",
)
@click.option("--host", help="Address to listen on; 0.0.0.0 serves other machines too.  [default: 127.0.0.1]")
@click.option(
    "--allow",
    "names",
    metavar="NAME",
    multiple=True,
    help="A name that visitors may reach a server under, for other machines; may be repeated.  [default: any]",
)
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of models that visitors may open by path.",
)
@click.option(
    "--device", help="Where to compute: auto, cpu, cuda:0 … or mps.  [default: PALIMPSEST_DEVICE, else cpu]"
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def run(
    port: int | None,
    host: str | None,
    names: tuple[str, ...],
    models: Path | None,
    device: str | None,
    no_browser: bool,
) -> None:
    """Start the app and open it in the browser; Ctrl-C stops it."""
    if device or ENVIRONMENT in os.environ:
        from rewrite_core.generators import find_device

        os.environ[ENVIRONMENT] = str(find_device(device))
    _require_free(host or LOOPBACK[0], port or 0)
    if models:
        os.environ["PALIMPSEST_MODELS"] = str(models.resolve())
    from streamlit.web.cli import main

    app = Path(__file__).parents[1] / "app.py"
    main(["run", str(app), *_flags(port, host, names, no_browser)], standalone_mode=False)


def _flags(port: int | None, host: str | None, names: tuple[str, ...], no_browser: bool) -> list[str]:
    """Streamlit's own flags; what is left out stays as `dashboard/.streamlit/config.toml` has it."""
    if host is not None and host not in LOOPBACK:
        names = names or ("*",)
    return [
        *([] if port is None else [f"--server.port={port}"]),
        *([] if host is None else [f"--server.address={host}"]),
        *(f"--server.allowedHosts={name}" for name in names),
        *(["--server.headless=true"] if no_browser else []),
    ]


def _require_free(host: str, port: int) -> None:
    """Raise unless one can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as problem:
        raise RequestError(
            found=f"{host} port {port or 'any'} ({problem.strerror})",
            expected="an address of this machine and a port that is free",
            remedy="Choose another --port or --host; without --port the next free one is taken.",
        ) from None
