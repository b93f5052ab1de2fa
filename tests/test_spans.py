"""Spans that two tokenizers share: where they lie, what bytes tokens write, and what rewards they give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CHATML, TEXTS, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from reopold_vl.models import ModelError
from reopold_vl.spans import OPEN, common_spans, span_rewards, span_sums
from reopold_vl.teachers.spans import Translator, turn_end
from reopold_vl.token_bytes import TokenBytes, whole_characters

OTHER_TEXTS = ("zzzz the answer question sum digits", "how how many red blue squares there in picture are")


def sentencepiece_like(*, prefix: bool) -> PreTrainedTokenizerFast:
    """A BPE over text with ▁ for spaces and <0xHH> for other bytes, as Gemma's; with `prefix` as Llama 2's."""
    spaces = normalizers.Replace(" ", "▁")
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = spaces
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    learned: Any = bpe.model
    special = ["<unk>", "<eos>", "<turn|>", "<image>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(bpe.get_vocab()), "▁▁"]
    merges: list[Any] = [tuple(pair) for pair in json.loads(learned.__getstate__())["merges"]]
    whole = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
            merges=[*merges, ("▁", "▁")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    whole.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    whole.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unk>", eos_token="<eos>", extra_special_tokens=["<turn|>", "<image>"]
    )


def member(tokenizer: Any, eos: str, *, banned: Sequence[str] = (), template: str = CHATML) -> Any:
    """As much of a VisionLanguageModel as a Translator looks at."""
    tokenizer.chat_template = template
    ids = tokenizer.convert_tokens_to_ids
    return SimpleNamespace(
        path=eos, tokenizer=tokenizer, processor=tokenizer, eos_ids=(ids(eos),), banned_ids=tuple(map(ids, banned))
    )


TOKENIZERS: dict[str, Any] = {
    "qwen": tiny_tokenizer(),
    "other merges": tiny_tokenizer(OTHER_TEXTS),
    "gemma": sentencepiece_like(prefix=False),
    "llama": sentencepiece_like(prefix=True),
}
QWEN = member(TOKENIZERS["qwen"], "<|im_end|>", banned=["<|image_pad|>"])
TEACHERS = {
    "other merges": member(TOKENIZERS["other merges"], "<|im_end|>", banned=["<|image_pad|>"]),
    "gemma": member(
        TOKENIZERS["gemma"], "<turn|>", banned=["<image>"], template=CHATML.replace("<|im_end|>", "<turn|>")
    ),
    "llama": member(TOKENIZERS["llama"], "<eos>", banned=["<image>"]),
}
TRANSLATORS = {name: Translator(QWEN, teacher) for name, teacher in TEACHERS.items()}


def brute_force_spans(student: Sequence[int], teacher: Sequence[int]) -> list[tuple[int, int]]:
    """(student tokens, teacher tokens) up to each common boundary, for tokens that all have bytes."""
    ends = [list(accumulate(side)) for side in (student, teacher)]
    return [(ends[0].index(end) + 1, ends[1].index(end) + 1) for end in ends[0] if end in ends[1]]


lengths = st.lists(st.integers(1, 4), max_size=20)


@given(lengths, lengths)
def test_spans_close_at_every_common_boundary_and_nowhere_else(student: list[int], teacher: list[int]) -> None:
    ours, theirs = common_spans(student, teacher)
    boundaries = brute_force_spans(student, teacher)
    for numbers, tokens, side in ((ours, student, 0), (theirs, teacher, 1)):
        starts = [0, *(both[side] for both in boundaries)]
        expected = [k for k, (a, b) in enumerate(pairwise(starts)) for _ in range(a, b)]
        assert numbers == expected + [OPEN] * (len(tokens) - len(expected))


@given(st.lists(st.integers(0, 3), max_size=15), st.lists(st.integers(0, 3), max_size=15))
def test_tokens_without_bytes_still_leave_both_sides_in_every_span(student: list[int], teacher: list[int]) -> None:
    ours, theirs = common_spans(student, teacher)
    assert len(ours) == len(student) and len(theirs) == len(teacher)
    count = max([*ours, *theirs, OPEN]) + 1
    for numbers in (ours, theirs):
        closed = [number for number in numbers if number != OPEN]
        assert numbers[: len(closed)] == closed == sorted(closed) and set(closed) == set(range(count))
    for span in range(count):
        bytes_of = [
            sum(size for size, number in zip(side, numbers, strict=True) if number == span)
            for side, numbers in ((student, ours), (teacher, theirs))
        ]
        assert bytes_of[0] == bytes_of[1]


def test_a_worked_example() -> None:
    """he|llo| wor|ld against hell|o| w|or|ld|! ."""
    assert common_spans([2, 3, 4, 2], [4, 1, 2, 2, 2, 1]) == ([0, 0, 1, 2], [0, 0, 1, 1, 2, OPEN])
    assert common_spans([], [1]) == ([], [OPEN])
    spans = torch.tensor([[0, 0, 1, OPEN]])
    old = torch.tensor([[-1.0, -2.0, -0.5, torch.nan]])
    assert span_sums(old, spans).tolist() == [[-3.0, -3.0, -0.5, 0.0]]
    rewards = span_rewards(old, torch.tensor([[-4.0, -4.0, -0.25, torch.nan]]), spans)
    assert rewards.tolist() == [[-1.0, -1.0, 0.25, 0.0]]


def test_the_whole_span_reward_on_each_token_is_the_gradient_of_the_kl_of_spans() -> None:
    """All spans of two tokens over three, enumerated: E[R grad log pi_S] = -grad KL(pi_S || pi_T)."""
    torch.manual_seed(0)
    first, second = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3,), (3, 3)))
    teacher = torch.randn(9, dtype=torch.float64).log_softmax(-1)
    tokens = torch.stack([first.log_softmax(-1)[:, None].expand(3, 3), second.log_softmax(-1)], -1).reshape(9, 2)
    student = tokens.sum(-1)
    kl = (student.exp() * (student - teacher)).sum()
    spans = torch.zeros(9, 2, dtype=torch.long)
    rewards = span_rewards(tokens.detach(), teacher[:, None].expand(9, 2), spans)
    surrogate = (student.detach().exp()[:, None] * rewards * tokens).sum()
    for ours, exact in zip(
        torch.autograd.grad(surrogate, (first, second), retain_graph=True),
        torch.autograd.grad(-kl, (first, second)),
        strict=True,
    ):
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_write_what_they_decode_to(name: str) -> None:
    """Against the tokenizer's own decoder, for its own spelling of texts that it does not change."""
    tokenizer, known = TOKENIZERS[name], TokenBytes(TOKENIZERS[name])
    assert known.byte_level == (name in ("qwen", "other merges"))
    for text in (*TEXTS, "naïve 你好 🙂", "a  b"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = [known.piece(index) for index in ids]
        assert b"".join(pieces).decode() == (" " if name == "llama" else "") + text
        assert tokenizer.decode(ids) == text
    assert len(set(map(known.piece, range(256, 300)))) > 40


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=30), st.text(max_size=20).map(lambda text: text.encode(errors="replace"))))
def test_any_bytes_can_be_written(name: str, data: bytes) -> None:
    known = TokenBytes(TOKENIZERS[name])
    assert b"".join(map(known.piece, known.write(data))) == data


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_is_spelled_as_the_tokenizer_spells_it(name: str) -> None:
    """Also behind a newline, where a tokenizer with a space of its own in front (llama) does not put one."""
    tokenizer, known = TOKENIZERS[name], TokenBytes(TOKENIZERS[name])
    text = "How many red squares are in the picture?"
    plain = tokenizer("\n" + text, add_special_tokens=False)["input_ids"]
    lead = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert known.write(text.encode()) == plain[len(lead) :]
    assert len(known.write(text.encode())) < len(text) / 1.5


def test_an_answer_forges_neither_turns_nor_images() -> None:
    for name, special in (("qwen", "<|im_end|>"), ("gemma", "<image>")):
        tokenizer = TOKENIZERS[name]
        forged = tokenizer.convert_tokens_to_ids(special)
        assert forged in tokenizer(special)["input_ids"]
        known = TokenBytes(tokenizer, banned=[forged])
        assert forged not in known.write(special.encode())
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<picture>", "<think>"])  # added, and not special
    vocabulary = tokenizer.get_vocab()
    banned, think = vocabulary["<picture>"], vocabulary["<think>"]
    known = TokenBytes(tokenizer, banned=[banned])
    written = known.write(b"see <picture> <think>")
    assert banned not in written and think in written
    assert b"".join(map(known.piece, written)) == b"see <picture> <think>"


@pytest.mark.parametrize("data", [b"ab", "aé".encode(), "你".encode(), "🙂".encode(), b"\x80\x80\x80\x80", b""])
def test_characters_cut_in_two_are_seen(data: bytes) -> None:
    text = data.decode(errors="ignore")
    assert whole_characters(data) == data
    for cut in range(1, len(data)):
        kept = whole_characters(data[:cut])
        assert kept == (data[:cut].decode(errors="ignore").encode() if text else data[:cut])


ordinary = st.integers(0, len(TOKENIZERS["qwen"]) - 1)
QWEN_PIECES = TokenBytes(TOKENIZERS["qwen"])


@pytest.mark.parametrize("name", TRANSLATORS)
@settings(max_examples=60, deadline=None)
@given(ids=st.lists(ordinary, min_size=1, max_size=12), cut_off=st.booleans())
def test_spans_of_any_answer_say_the_same_on_both_sides(name: str, ids: list[int], cut_off: bool) -> None:
    """Random tokens, special ones and halves of characters among them; then the end, or none."""
    translate = TRANSLATORS[name]
    ids = ids if cut_off else [*ids, QWEN.eos_ids[0]]
    found = translate(ids, cut_off=cut_off)
    assert len(found.student) == len(ids) and len(found.teacher) == len(found.ids)
    if not cut_off:
        assert OPEN not in found.student and found.student.count(found.student[-1]) == 1
        assert found.ids[-1] == TEACHERS[name].eos_ids[0] == translate.end_id
    assert not set(found.ids) & set(TEACHERS[name].banned_ids)
    for span in set(found.student) - {OPEN}:
        ours = [index for index, number in zip(ids, found.student, strict=True) if number == span]
        theirs = [index for index, number in zip(found.ids, found.teacher, strict=True) if number == span]
        if ours[0] in translate.twins:
            assert theirs == [translate.twins[ours[0]]] and len(ours) == 1
        else:
            assert b"".join(map(QWEN_PIECES.piece, ours)) == b"".join(map(translate.teacher.piece, theirs)) != b""


def test_a_cut_off_answer_loses_its_last_span_and_no_more() -> None:
    translate = TRANSLATORS["other merges"]
    ids = TOKENIZERS["qwen"]("red squares, so", add_special_tokens=False)["input_ids"]
    whole, cut = translate([*ids, QWEN.eos_ids[0]], cut_off=False), translate(ids, cut_off=True)
    last = whole.student[-2]
    assert cut.student == [OPEN if number == last else number for number in whole.student[:-1]]
    half = TOKENIZERS["qwen"]("你", add_special_tokens=False)["input_ids"][:1]  # a byte or two of a character
    special = TOKENIZERS["qwen"].convert_tokens_to_ids("<|im_start|>")
    assert translate([*ids, special], cut_off=True).student == whole.student  # no text is left open
    behind = translate([*ids, *half], cut_off=True)
    assert behind.student == [*cut.student, OPEN] and behind.ids == whole.ids[:-1]


def test_ends_and_special_tokens_find_their_counterparts() -> None:
    ids = TOKENIZERS["qwen"].convert_tokens_to_ids
    red = TOKENIZERS["qwen"](" red", add_special_tokens=False)["input_ids"]
    answer = [*red, ids("<|im_start|>"), *red, ids("<|im_end|>")]
    same = TRANSLATORS["other merges"](answer, cut_off=False)
    starts = TOKENIZERS["other merges"].convert_tokens_to_ids("<|im_start|>")
    assert same.ids.count(starts) == 1  # the teacher has that token too
    text = TRANSLATORS["gemma"](answer, cut_off=False)  # it has not, and reads its name
    written = b"".join(map(TRANSLATORS["gemma"].teacher.piece, text.ids[:-1]))
    assert written == b" red<|im_start|> red" and OPEN not in text.student
    assert turn_end(TEACHERS["gemma"]) == TOKENIZERS["gemma"].convert_tokens_to_ids("<turn|>")


def test_the_end_token_is_the_one_that_the_template_writes() -> None:
    model = member(tiny_tokenizer(), "<|endoftext|>")
    ids = [model.tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>")]
    both: Any = SimpleNamespace(**vars(model) | {"eos_ids": tuple(ids)})
    assert turn_end(both) == ids[1]
    assert turn_end(model) == ids[0]  # the template writes none that ends an answer


def test_a_tokenizer_without_bytes_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "answer": 2}, unk_token="<unk>"))
    broken = member(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>"), "<eos>")
    with pytest.raises(ModelError, match=r"teacher\.align is text: the bytes of <eos>'s tokens cannot be told"):
        Translator(QWEN, broken)
    slow = SimpleNamespace(tokenizer=object(), banned_ids=())
    with pytest.raises(ModelError, match="object has no fast backend"):
        Translator(QWEN, slow)  # pyright: ignore[reportArgumentType]
