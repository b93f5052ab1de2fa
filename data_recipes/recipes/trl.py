"""Data sets in TRL's formats, unchanged: prompt-only, prompt and completion, messages; text or conversational.

`prompt` is a text or a list of messages, `completion` likewise, `messages` (or `conversations`) a whole exchange;
images are in `images` or `image`, or in the message parts themselves. The answer is the column `answer`, `solution` or
`ground_truth` where there is one (what TRL's reward functions read), else the completion (or `chosen`, of a preference
data set), else the last assistant message. See TRL's documentation, "Dataset formats and types". The licence is the
data set's own.

Traps: one exchange a row (a conversation of several questions has no one answer and is rejected); a completion whose
`label` is false (unpaired preference) is no gold and is rejected; message structs out of parquet carry null fields.
"""

from __future__ import annotations

from typing import Any

from data_recipes.recipes.reading import cell, make_sample, text
from data_recipes.recipes.turns import Turns, read_turns
from data_recipes.types import Recipe, Row, RowError
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """See the module's docstring for the columns."""
    asked = _conversation(cell(row, "prompt", "messages", "conversations", "chosen"))
    if cell(row, "prompt") is not None and asked.reply is not None:
        raise RowError("a prompt must end with the user's turn; an answer belongs into completion")
    gold = cell(row, "answer", "solution", "ground_truth")
    if gold is None and (completion := cell(row, "completion", "chosen")) is not None:
        if row.get("label") is False:
            raise RowError("the completion's label is false, so it is no answer")
        gold = _last_reply(completion)
    return make_sample(
        row,
        question=asked.question,
        answer=asked.reply if gold is None else gold,
        images=cell(row, "images", "image") or asked.images,
        choices=cell(row, "choices", "options"),
        id=cell(row, "id"),
        source=cell(row, "source"),
        system=asked.system,
    )


def _conversation(value: Any) -> Turns:
    return read_turns(value) if isinstance(value, list | tuple) else Turns(None, text(value, "prompt"), None)


def _last_reply(completion: Any) -> str:
    """The text of a completion: a text, assistant messages, or a whole exchange (the `chosen` of implicit prompts)."""
    if not isinstance(completion, list | tuple):
        return text(completion, "completion")
    last = completion[-1]
    if not isinstance(last, dict) or last.get("role") != "assistant":
        raise RowError(f"a completion must end with the assistant's turn, not {last!r:.60}")
    return read_turns([{"role": "user", "content": "-"}, last]).reply or ""


RECIPE = Recipe(
    name="trl",
    title="A data set in TRL's formats, unchanged",
    licence="the data set's own",
    citation="",
    sources=(),
    splits=("train", "validation", "test"),
    columns=(("prompt", "messages", "conversations", "chosen"),),
    read=read,
)
