"""`python -m reopold_vl.train`: the command. The main loop is in `loop.py`, the settings are in `config.py`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from reopold_vl.cli import parse
from reopold_vl.cli_errors import fail
from reopold_vl.launch import launched, launched_rank, run
from reopold_vl.out_of_memory import what_to_lower
from reopold_vl.progress import TrainingDiverged
from reopold_vl.stop import Stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, report; the exit status (0 done, 2 bad input, 1 failed, 130 or 143 stopped and resumable)."""
    try:
        config, resume = parse(list(sys.argv[1:] if argv is None else argv))
    except ValueError as error:
        return fail(str(error)) if launched_rank() == 0 else 2
    again = f"{command()} -m reopold_vl.train --resume {config.run_dir}"
    try:
        # torch and transformers take seconds to import: after the arguments have proved good.
        from reopold_vl.distributed import ProcessLost, Silenced
        from reopold_vl.loop import train
    except KeyboardInterrupt:
        print("stopped while loading: nothing was written", file=sys.stderr)
        return 130
    try:
        train(config, resume=resume)
    except KeyboardInterrupt:
        print("stopped while loading: nothing was written", file=sys.stderr)
        return 130
    except Stopped as stop:
        begun = (config.run_dir / "config.yaml").is_file()
        print(f"stopped by {stop}: {f'go on with  {again}' if begun else 'nothing was written'}", file=sys.stderr)
        return stop.code
    except Silenced:
        return 1
    except (TrainingDiverged, ProcessLost) as error:
        fail(str(error))
        return 1
    except ValueError as error:
        return fail(str(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        reason, order = str(error).splitlines()[0], "; ".join(what_to_lower(config))
        fail(f"out of memory ({reason}): lower or set, in this order, {order}")
        return 1
    except OSError as error:  # a full disk, a directory that may not be written to
        fail(f"{error}; once that is mended, go on with  {again}")
        return 1
    if launched_rank() == 0:
        print(f"student, plots, rollouts.html and summary.json are in {config.run_dir}")
    return 0


def command() -> str:
    """What this process was started with."""
    return f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', 1)}" if launched() else "python"


if __name__ == "__main__":
    run(main)
