"""`python -m reopold_vl.serve_teacher MODEL`: a teacher for trainings, checks and demos on other machines."""

from __future__ import annotations

import os
import sys

from reopold_vl.cli_errors import fail, parse_flags
from reopold_vl.config.base import ConfigError, require
from reopold_vl.config.teacher import TOKEN_ENV
from reopold_vl.serving.settings import ServeConfig

PROGRAM = "python -m reopold_vl.serve_teacher"
USAGE = """Serve a vision-language model as a teacher: token ids and pictures in, log-probs and answers out.

  python -m reopold_vl.serve_teacher zoo:teacher
  python -m reopold_vl.serve_teacher DIR_OR_ID --host 0.0.0.0 --dtype bfloat16     (set $REOPOLD_VL_TEACHER_TOKEN first)

and on the other machine:  python -m reopold_vl.train --teacher.path http://HOST:8765"""


def parse(argv: list[str]) -> tuple[str, ServeConfig, str | None]:
    """(model, settings, token) from the arguments and the environment; raises ConfigError, or SystemExit for --help."""
    wants_help = any(item in ("-h", "--help") for item in argv)
    model = argv[0] if argv and not argv[0].startswith("-") else None
    if model is None and not wants_help:
        raise ConfigError(f"which model? {PROGRAM} MODEL, a directory, a Hub id or zoo:teacher")
    rest = argv if model is None else argv[1:]
    config = parse_flags(ServeConfig(), rest, program=f"{PROGRAM} MODEL", usage=USAGE, error=ConfigError)
    token = os.environ.get(config.token_env)
    if config.token_env != TOKEN_ENV or token is not None:
        require(bool(token), "token_env", config.token_env, "a variable of the environment that holds a token")
        require(
            token == (token or "").strip(), config.token_env, "not shown here", "a token without white space around"
        )
    return model or "", config, token


def main(argv: list[str] | None = None) -> int:
    """Load and serve until interrupted; the exit status."""
    try:
        model, config, token = parse(list(sys.argv[1:] if argv is None else argv))
        from reopold_vl.serving.launch import serve

        serve(model, config, token)
    except ValueError as error:
        return fail(str(error))
    except KeyboardInterrupt:  # while the model is loaded
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
