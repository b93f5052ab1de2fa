"""`python -m eval.run`: the command. Settings: `config.py`; the run: `measure.py`; what it leaves: `finish.py`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence

from eval.config import PROGRAM, EvalConfig, parse
from reopold_vl.cli_errors import fail
from reopold_vl.stop import Stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, report; the exit status (0 done, 2 bad input, 1 failed, 130 or 143 stopped and resumable)."""
    begun = time.monotonic()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        config = parse(arguments)
    except ValueError as error:
        return fail(str(error))
    again = shlex.join([*PROGRAM.split(), *(item for item in arguments if item != "--no-resume")])
    try:
        _evaluate(config, again, begun)
    except KeyboardInterrupt:
        print(f"stopped; go on with  {again}", file=sys.stderr)
        return 130
    except Stopped as stop:
        print(f"stopped by {stop}: all finished batches are stored; go on with  {again}", file=sys.stderr)
        return stop.code
    except ValueError as error:
        return fail(str(error))
    except OSError as error:  # a full disk, a directory that may not be written to
        fail(f"{error}; once that is mended, go on with  {again}")
        return 1
    return 0


def _evaluate(config: EvalConfig, command: str, begun: float) -> None:
    if config.list:
        from eval.listing import listing

        print(listing())
        return
    from eval.finish import finish, read_run
    from eval.pace import read_speed

    if config.score:
        from eval.rescore import stored_answers

        answers, directory, run = stored_answers(config)
        speed = read_speed(directory)
    else:
        # torch and transformers take seconds to import: after the arguments have proved good.
        from eval.measure import measure

        answers, speed = measure(config, command=command)
        directory, run = config.directory, read_run(config.directory)
    finish(answers, config, directory, run=run, speed=speed, seconds=time.monotonic() - begun)


if __name__ == "__main__":
    raise SystemExit(main())
