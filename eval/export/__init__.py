"""Graded answers in the formats that the benchmarks' own programs and VLMEvalKit read, by name."""

from __future__ import annotations

from eval.export import mathv, mathverse, mathvista, vlmevalkit
from eval.export.base import Exporter, ExportError

__all__ = ["EXPORTERS", "ExportError", "Exporter"]

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (mathvista.EXPORTER, vlmevalkit.EXPORTER, mathv.EXPORTER, mathverse.EXPORTER)
}
