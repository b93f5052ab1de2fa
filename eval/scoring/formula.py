r"""Values of LaTeX arithmetic: "4+\sqrt{6}", "\frac{9}{5}", "2\pi r^2". A recursive-descent evaluator over floats.

Not sympy: its parser runs `eval` over the text, and math-verify needs signals for its time limit. Here the time is
linear in a capped number of tokens, and variables are tested at three points, which tells formulas apart in practice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MAX_LENGTH = 300
MAX_DEPTH = 40
POINTS = (0.7390851, 1.9021605, 3.3028775)
"""Where variables are tested; each variable gets another multiple of them."""

_TOKEN = re.compile(
    r"\s+|(?P<number>\d+(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+\.?\d*|\.\d+)|\\(?P<command>[a-zA-Z]+)"
    r"|(?P<letter>[a-zA-Z\u03b1-\u03c9])|(?P<sign>\*\*|[-+*/^(){}\[\]|_!%\u221a\u00d7\u00f7\u00b7\u00b2\u00b3])|(?P<other>.)",
    re.DOTALL,
)
_DRESS = re.compile(
    r"\\(?:left|right|displaystyle|limits|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])|\\[,;:! ]|\\?\$|\\\(|\\\)|\\\[|\\\]|~|\{\}"
)
_GREEK = frozenset(["alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "rho", "sigma", "tau", "phi", "omega"])
_WORD = re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|log|ln|exp)(?![a-zA-Z])")
_FUNCTIONS = {
    **{"sin": math.sin, "cos": math.cos, "tan": math.tan, "exp": math.exp, "log": math.log10, "ln": math.log},
    **{"arcsin": math.asin, "arccos": math.acos, "arctan": math.atan},
}
_TIMES = {"cdot": "*", "times": "*", "div": "/", "ast": "*"}
_SIGNS = {"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "**": "^", "[": "(", "]": ")"}


class _NoFormula(Exception):
    """The text is no arithmetic that this evaluator knows."""


def values(text: str) -> tuple[float, ...] | None:
    """The value of a formula at each test point (the same thrice where it has no variables), or None."""
    if not text or len(text) > MAX_LENGTH:
        return None
    try:
        tokens = _tokens(text)
        return tuple(_Parser(tokens, point).whole() for point in POINTS)
    except (_NoFormula, ValueError, ZeroDivisionError, OverflowError):
        return None


def value(text: str) -> float | None:
    """The number a formula without variables stands for, or None."""
    found = values(text)
    return found[0] if found and found[0] == found[1] == found[2] else None


def same_values(one: Sequence[float], other: Sequence[float], tolerance: float = 1e-6) -> bool:
    """Whether two formulas agree at every point, within a relative tolerance."""
    return all(math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-9) for a, b in zip(one, other, strict=True))


def _tokens(text: str) -> list[tuple[str, str]]:
    text = _WORD.sub(r"\\\1 ", _DRESS.sub(" ", text))
    text = text.replace("\u03c0", "\\pi ").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    found: list[tuple[str, str]] = []
    for match in _TOKEN.finditer(text):
        kind, word = match.lastgroup, match[match.lastgroup] if match.lastgroup else ""
        if kind == "other":
            raise _NoFormula
        if kind == "command" and word in _TIMES:
            found.append(("sign", _TIMES[word]))
        elif kind == "sign":
            if word in "\u00b2\u00b3":
                found += [("sign", "^"), ("number", "2" if word == "\u00b2" else "3")]
            elif word == "\u221a":
                found.append(("command", "sqrt"))
            else:
                found.append(("sign", _SIGNS.get(word, word)))
        elif kind:
            found.append((kind, word))
    if not found:
        raise _NoFormula
    return found


class _Parser:
    """One pass over the tokens: sum > product > power > atom."""

    def __init__(self, tokens: list[tuple[str, str]], point: float) -> None:
        self.tokens, self.at, self.depth, self.point = tokens, 0, 0, point

    def whole(self) -> float:
        result = self.sum()
        if self.at < len(self.tokens) or not math.isfinite(result):
            raise _NoFormula
        return result

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, sign: str) -> bool:
        if self.peek() == ("sign", sign):
            self.at += 1
            return True
        return False

    def sum(self) -> float:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoFormula
        result = self.product()
        while self.peek() in (("sign", "+"), ("sign", "-")):
            plus = self.take("+") or not self.take("-")
            result = result + self.product() if plus else result - self.product()
        self.depth -= 1
        return result

    def product(self) -> float:
        sign = 1
        while self.peek() in (("sign", "+"), ("sign", "-")):
            sign, self.at = (-sign if self.peek()[1] == "-" else sign), self.at + 1
        result = sign * self.power()
        while True:
            if self.take("*"):
                result *= self.signed_power()
            elif self.take("/"):
                result /= self.signed_power()
            elif self.peek()[0] in ("number", "command", "letter") or self.peek() in (("sign", "("), ("sign", "{")):
                result = self.next_to(result)
            else:
                return result

    def next_to(self, before: float) -> float:
        """An implicit product; a whole number before a fraction of numbers is a mixed number."""
        mixed = self.peek() == ("command", "frac") and self.tokens[self.at - 1][0] == "number" and before.is_integer()
        if self.peek()[0] == "number" and self.tokens[self.at - 1][0] == "number":
            raise _NoFormula
        factor = self.power()
        return before + factor if mixed and 0 < factor < 1 else before * factor

    def signed_power(self) -> float:
        return -self.power() if self.take("-") else self.power()

    def power(self) -> float:
        base = self.atom()
        while self.take("!"):
            if not base.is_integer() or not 0 <= base <= 20:
                raise _NoFormula
            base = float(math.factorial(int(base)))
        if self.take("%"):
            base /= 100
        if self.take("^"):
            if self.peek() == ("command", "circ") or self.degree_in_braces():
                self.at += 1
                return base
            exponent = -self.atom() if self.take("-") else self.atom()
            return _power(base, exponent)
        return base

    def degree_in_braces(self) -> bool:
        if self.tokens[self.at : self.at + 3] == [("sign", "{"), ("command", "circ"), ("sign", "}")]:
            self.at += 2
            return True
        return False

    def atom(self) -> float:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoFormula
        result = self.bare_atom()
        self.depth -= 1
        return result

    def bare_atom(self) -> float:
        kind, word = self.peek()
        self.at += 1
        if kind == "number":
            return float(word.replace(",", ""))
        if kind == "letter":
            return self.variable(word)
        if kind == "sign" and word in "({|":
            result = self.sum()
            if not self.take({"(": ")", "{": "}", "|": "|"}[word]):
                raise _NoFormula
            return abs(result) if word == "|" else result
        if kind == "command":
            return self.command(word)
        raise _NoFormula

    def variable(self, letter: str) -> float:
        if self.take("_"):
            letter += str(self.peek()[1])
            self.at += 1
        if letter == "e":
            return math.e
        return self.point * (1 + sum(map(ord, letter)) % 97 / 50)

    def command(self, name: str) -> float:
        if name == "pi":
            return math.pi
        if name == "frac":
            above = self.fraction_part()
            return above / self.fraction_part()
        if name == "sqrt":
            root = 2.0
            if self.peek() == ("sign", "(") and self.is_index():
                root = self.atom()
            radicand = self.atom()
            return _power(radicand, 1 / root)
        if name in _FUNCTIONS:
            power = self.atom() if self.take("^") else 1.0
            return _power(_FUNCTIONS[name](self.power()), power)
        if name in ("text", "mathrm", "mathbf", "boxed", "mbox", "textbf"):
            return self.atom()
        if name in _GREEK:
            return self.variable(name)
        raise _NoFormula

    def is_index(self) -> bool:
        """Whether brackets after a root hold its index: `\\sqrt[3]{x}` (brackets were made round)."""
        after = [word for _, word in self.tokens[self.at : self.at + 4]]
        return len(after) == 4 and after[2] == ")" and after[3] == "{"

    def fraction_part(self) -> float:
        kind, word = self.peek()
        if kind == "number" and len(word) > 1 and word.isdigit():  # \frac12 is one half
            self.tokens[self.at : self.at + 1] = [("number", digit) for digit in word]
        return self.atom()


def _power(base: float, exponent: float) -> float:
    result = base**exponent
    if isinstance(result, complex):
        raise _NoFormula
    return result
