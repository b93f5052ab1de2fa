"""Load the model, bind the port, serve until a signal ends it."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from reopold_vl.config.base import ConfigError

if TYPE_CHECKING:
    from reopold_vl.serving.settings import ServeConfig

GRACE_SECONDS = 10  # for answers in the making when the server is told to end
LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(path: str, config: ServeConfig, token: str | None) -> None:
    """Serve the model at `path`; returns after SIGINT or SIGTERM. Raises ValueError where it cannot start."""
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise ConfigError(f"the teacher server needs {package}, which is not installed: pip install -e '.[serve]'")
    import torch
    import uvicorn

    from reopold_vl.models import load_model
    from reopold_vl.serving.app import build_app
    from reopold_vl.serving.desk import Desk
    from reopold_vl.serving.requests import Limits
    from reopold_vl.serving.worker import Worker

    limits = Limits(
        body_bytes=config.max_body_mb * 2**20,
        image_pixels=config.max_pixels,
        tokens=config.max_tokens,
        new_tokens=config.max_new_tokens,
    )
    with bound(config.host, config.port) as listener:  # before minutes are spent on loading
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        model = load_model(
            path,
            dtype=config.dtype,
            device=config.device,
            attention=config.attention,
            trust_remote_code=config.trust_remote_code,
            min_pixels=1,
            max_pixels=config.max_pixels,
            max_prompt_tokens=config.max_tokens,
        )
        model.policy.requires_grad_(False)
        desk = Desk(model, limits, name=public_name(path))
        app = build_app(desk, Worker(model, max_batch=config.max_batch), token=token)
        host, port = listener.getsockname()[:2]
        if token is None and config.host not in LOCAL:
            print(f"warning: {host} can be reached by others and no token is asked for: set ${config.token_env}")
        listener.listen()
        asks = "asks for a token" if token else "asks for no token"
        print(f"{desk.name} is at http://{host}:{port} ({asks}; Ctrl-C ends it)", flush=True)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS, lifespan="on"
        )
        uvicorn.Server(settings).run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to the address; raises ConfigError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigError(f"{host}:{port} cannot be listened on ({error}); take another --host or --port") from error
    return listener


def public_name(path: str) -> str:
    """The model as others may know it: of a directory the last part alone."""
    directory = Path(path).expanduser()
    return directory.resolve().name if directory.is_dir() else path
