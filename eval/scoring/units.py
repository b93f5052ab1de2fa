"""Units at the end of answers: "26 square units", "8 \\mbox{cm}^2", "0.5 m" against "50 cm"."""

from __future__ import annotations

import re

_FACTORS = {
    **{"mm": ("m", 1e-3), "cm": ("m", 1e-2), "dm": ("m", 0.1), "m": ("m", 1.0), "km": ("m", 1e3)},
    **{"in": ("in", 1.0), "ft": ("in", 12.0), "yd": ("in", 36.0), "mi": ("in", 63360.0)},
    **{"mg": ("g", 1e-3), "g": ("g", 1.0), "kg": ("g", 1e3)},
    **{"s": ("s", 1.0), "min": ("s", 60.0), "h": ("s", 3600.0)},
    **{"ml": ("l", 1e-3), "l": ("l", 1.0)},
}
_NAMES = {
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("inch", "inche"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **{"yard": "yd", "mile": "mi", "gram": "g", "kilogram": "kg", "sec": "s", "second": "s", "minute": "min"},
    **{"hour": "h", "hr": "h", "liter": "l", "litre": "l", "milliliter": "ml", "millilitre": "ml"},
}
_OTHERS = (
    "unit|degree|radian|dollar|cent|percent|point|year|day|week|month|mph|rpm|people|student|way|time|n|j|w|v|hz|pa|k"
)
_WORDS = "|".join(sorted([*_FACTORS, *_NAMES, *_OTHERS.split("|")], key=len, reverse=True))
_SUFFIX = re.compile(
    r"(?P<unit>(?<=[\d)}\s%\u03c0i])\s*(?:\\[,;:! ]|~|\s)*(?:\\(?:text|mathrm|mbox|textrm|rm)\s*\{)?[\s~]*"
    rf"(?P<power>square|sq\.?|cubic)?\s*(?P<name>{_WORDS})s?\.?\s*\}}?\s*(?P<exponent>\^\s*\{{?\s*[23]\s*\}}?|[\u00b2\u00b323])?\s*\}}?)$",
    re.IGNORECASE,
)
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "\u00b2": 2, "\u00b3": 3}


def split_unit(text: str) -> tuple[str, str, int]:
    """(amount, unit, its power) of an answer; the unit is "" where there is none, and an abbreviation where known."""
    bare = text.strip().rstrip(".$ ").strip()
    match = _SUFFIX.search(bare, max(0, len(bare) - 60))
    if not match or not match.start():
        return bare, "", 1
    name = match["name"].lower()
    name = _NAMES.get(name, name)
    digit = re.search(r"[23]", match["exponent"] or "")
    power = _POWERS.get((match["power"] or match["exponent"] or "").lower().strip(), int(digit[0]) if digit else 1)
    return bare[: match.start()].strip().rstrip("$\\,~ "), name, power


def scale(unit: str, power: int, other: str, other_power: int) -> float | None:
    """What an amount in `unit` is multiplied by to be in `other`; 1 where one of them has none; None if they differ."""
    if not unit or not other or (unit == other and power == other_power):
        return 1.0
    if unit not in _FACTORS or other not in _FACTORS or power != other_power:
        return None
    (family, factor), (other_family, other_factor) = _FACTORS[unit], _FACTORS[other]
    return (factor / other_factor) ** power if family == other_family else None
