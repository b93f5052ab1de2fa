"""The examples as tiles: picture and kind of question."""

from __future__ import annotations

from collections.abc import Sequence

from demo.views.markup import text
from reopold_vl.report.page import data_uri
from reopold_vl.types import VisualSample


def gallery_view(samples: Sequence[VisualSample]) -> str:
    """One tile for each sample; the whole question shows on pointing."""
    tiles = "".join(
        f'<button type="button" data-index="{index}" title="{text(sample.question)}"><img src="'
        f'{data_uri(sample.images[0])}" alt="{text(sample.question)}"><span>{text(sample.source)}</span></button>'
        for index, sample in enumerate(samples)
    )
    return f'<p class="rv-soft">Held-out examples, one of each kind</p><div class="rv-tiles">{tiles}</div>'
