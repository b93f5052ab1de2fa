"""Is this pair wired right, does it fit, how long will it take? `python -m reopold_vl.check`, and before step 0.

Silent miswiring is what users of distillation tools lose GPU-days to: a teacher that gets no pixels, other image
tokens, another end token. Each check is a function that returns a `Result`; `pair.py` makes those of two loaded models,
`memory.py` computes what a run needs, `timing.py` what it takes, `__main__.py` is the command.
"""

from __future__ import annotations

from reopold_vl.check.pair import PairReport, check_pair, examine_pair, first_difference
from reopold_vl.check.result import Report, Result

__all__ = ["PairReport", "Report", "Result", "check_pair", "examine_pair", "first_difference"]
