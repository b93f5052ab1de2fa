"""What the tests of generation share: the embedded student, and some problems for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from eval.types import Problem
    from reopold_vl.models import VisionLanguageModel


@pytest.fixture
def student() -> VisionLanguageModel:
    from generating import embedded_student

    return embedded_student()


@pytest.fixture
def problems() -> list[Problem]:
    from generating import embedded_problems

    return list(embedded_problems())
