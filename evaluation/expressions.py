"""Mathematics in a model's words → an expression of algebra.py, without eval, sympify or parse_expr: those run what
they read.

A tokenizer and a recursive-descent parser of our own read plain text, LaTeX and Unicode alike. Length, depth and digits
are bounded here, the size of numbers in algebra.py, so `9**9**9**9` is refused, not computed.
"""

import math
import re
import unicodedata
from fractions import Fraction

from evaluation import algebra
from evaluation.algebra import DEGREE, PERCENT, Expression, NotMath, apply, divide, negative, plus, power, times

MAX_CHARACTERS = 600
MAX_TOKENS = 300
MAX_DEPTH = 24
MAX_DIGITS = 40


# -----------------------------------------------------------------------------
# LaTeX and Unicode → one plain notation

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
CHARACTERS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*",
    "÷": "/", "∕": "/", "⁄": "/", "√": r"\sqrt ", "∛": r"\sqrt[3]", "π": " pi ", "𝜋": " pi ", "∞": " oo ", "≤": "<=",
    "⩽": "<=", "≦": "<=", "≥": ">=", "⩾": ">=", "≧": ">=", "≠": "≠", "º": "°", "˚": "°", "∘": "°", "掳": "°", "∪": "∪",
    "⋃": "∪", "≒": "≈", "≅": "≈", "％": "%", "½": " 1/2 ", "⅓": " 1/3 ", "⅔": " 2/3 ", "¼": " 1/4 ", "¾": " 3/4 ",
    "⅕": " 1/5 ", "⅛": " 1/8 ", "′": "'", "’": "'", "∠": " ", "△": " ", "“": '"', "”": '"', "（": "(", "）": ")",
    "【": "[", "】": "]", "，": ",", "：": ":", "∶": ":", "度": "°", "；": ";", "\u00a0": " ", "\u2009": " ",
    "\u202f": " ", "\u200b": "", "\ufeff": "", "\t": " ", "\r": " ", "¥": "", "€": "", "£": "", "$": ""
})
GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau phi "
    "varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega"
).split()


def _greek_letter(name: str) -> str:
    case = "CAPITAL" if name[0].isupper() else "SMALL"
    return unicodedata.lookup(f"GREEK {case} LETTER {name.lower().replace('var', '').replace('lambda', 'lamda')}")


GREEK_LETTERS = {_greek_letter(name): name.replace("var", "") for name in GREEK}
COMMANDS = {
    "leq": "<=", "le": "<=", "leqslant": "<=", "lt": "<", "geq": ">=", "ge": ">=", "geqslant": ">=", "gt": ">",
    "neq": "≠", "ne": "≠", "approx": "≈", "simeq": "≈", "cdot": "*", "times": "*", "ast": "*", "div": "/",
    "infty": " oo ", "cup": "∪", "pm": "±", "pi": " pi ", "circ": "°", "degree": "°", "degrees": "°", "dfrac": r"\frac",
    "tfrac": r"\frac", "cfrac": r"\frac", "left": "", "right": "", "big": "", "Big": "", "bigg": "", "Bigg": "",
    "bigl": "", "bigr": "", "displaystyle": "", "textstyle": "", "limits": "", "hline": "", "quad": " ", "qquad": " ",
    "ldots": "...", "dots": "...", "therefore": " ", "implies": " ", "in": "∈", "Rightarrow": " ", "rightarrow": " ",
    "to": " ", "angle": " ", "triangle": " ", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "colon": ":"
}
WRAPPERS = (
    "text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|boldsymbol|operatorname|mbox|bm|emph|underline"
    "|overline|boxed|fbox"
)
TEXT_WRAPPER = re.compile(rf"\\(?:{WRAPPERS})\s*\{{([^{{}}]*)\}}")
COMMAND = re.compile(r"\\([A-Za-z]+)")


def plain(text: str) -> str:
    """One plain notation for LaTeX, Unicode and everyday spelling. NotMath for control characters, too long a text."""
    if len(text) > MAX_CHARACTERS or any(ord(c) < 32 and c not in "\t\r\n" for c in text):
        raise NotMath("too long, or control characters")
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m.group().translate(SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀-₉]+", lambda m: "_" + m.group().translate(SUBSCRIPTS), text)
    text = text.replace("Â°", "°").replace(r"\$", "").translate(CHARACTERS)
    text = re.sub(r"\\mathbb\s*\{?\s*R\b\s*\}?|ℝ|\ball real numbers\b", "(-oo, oo)", text, flags=re.I)
    text = unicodedata.normalize("NFKC", text).replace("π", " pi ")
    if len(text) > 2 * MAX_CHARACTERS:  # one sign may become eighteen
        raise NotMath("too long")
    text = re.sub(r"(?<![\d.,])([1-9]\d{0,2})((?:(?: |\\,|\\ )\d{3})+)(?![\d/ ]|\\[, ]\d)", thousands, text)
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))", " * ", text)
    text = "".join(f" {GREEK_LETTERS[c]} " if c in GREEK_LETTERS else c for c in text)
    text = re.sub(r"\\[\[\]()]|\*\*(?=\S.*\*\*)", " ", text) if "\\" in text else text
    text = text.replace(r"\{", "⦃").replace(r"\}", "⦄").replace(r"\%", "%").replace("{,}", "").replace("\\\\", "\n")
    text = re.sub(r"\\[,;:!> ]|~", " ", text)
    for _ in range(4):  # wrappers nest, seldom deeper
        text, count = TEXT_WRAPPER.subn(r" \1 ", text)
        if not count:
            break
    text = re.sub(r"\\circ(?=[A-Za-z])", "°", text)
    text = COMMAND.sub(lambda m: COMMANDS.get(m.group(1), m.group()), text)
    text = re.sub(r"\^\s*\{?\s*°\s*\}?", "°", text)
    text = re.sub(r"\*?\s*\b(?:degrees?|deg)\b", "°", text, flags=re.I)
    text = re.sub(r"\*\s*°", "°", text)
    text = re.sub(r"(\d+)\s*°\s*(\d+(?:\.\d+)?)\s*'(?:\s*(\d+(?:\.\d+)?)\s*(?:''|\"))?", minutes, text)
    text = re.sub(r"\b(?:minus|negative)\s+(?=\d)", "-", text, flags=re.I)
    text = re.sub(r"\bper\s?cent\b", "%", text, flags=re.I)
    text = re.sub(r"[+-]?\binf(?:inity)?\b", lambda m: m.group()[:1].strip("iI") + " oo ", text, flags=re.I)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<![\w}])\{(\d+)\}\{(\d+)\}", r"\\frac{\1}{\2}", text)  # a fraction that lost its command
    text = re.sub(r"[^\S\n]+", " ", text)  # the patterns that follow try every way to share a run of spaces out
    return re.sub(r" ?\n\s*", "\n", text).strip()


def thousands(match: re.Match) -> str:
    """320 000 → 320000."""
    return match[1] + re.sub(r"\D", "", match[2])


def minutes(match: re.Match) -> str:
    """60°30' and 60°30'15\" → (60 + 30/60 + 15/3600)°."""
    return f"({match[1]} + {match[2]}/60 + {match[3] or 0}/3600)°"


# -----------------------------------------------------------------------------
# tokens

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3}(?![\w.]))?"
TOKEN = re.compile(
    rf"\s*(?:(?P<number>{NUMBER})|(?P<command>\\[A-Za-z]+)|(?P<name>[A-Za-z]+'?)|(?P<op>\*\*|[-+*/^_(){{}}\[\]|!°%]))"
)
FUNCTIONS = {name: name for name in "sin cos tan sec csc cot asin acos atan log exp abs sqrt cbrt".split()} | {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log"}
INVERSE = {"sin": "asin", "cos": "acos", "tan": "atan"}
CIRCULAR = ("sin", "cos", "tan", "sec", "csc", "cot")


def tokenize(text: str) -> list[tuple[str, str]]:
    """(kind, text) pairs: number, command, name, op. Raises NotMath on anything else and on more than MAX_TOKENS."""
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None or len(tokens) >= MAX_TOKENS:
            raise NotMath(f"unknown sign or too many: {text[position : position + 10]!r}")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return tokens


# -----------------------------------------------------------------------------
# the parser: expression → term → unary → power → postfix → atom


class _Parser:
    """Recursive descent over one list of tokens; `i` is the next one, `depth` bounds the recursion."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.i, self.depth, self.bars, self.circular = tokens, 0, 0, 0, 0

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        return self.tokens[self.i + ahead] if self.i + ahead < len(self.tokens) else ("end", "")

    def take(self, text: str | None = None) -> str:
        kind, found = self.peek()
        if kind == "end" or (text is not None and found != text):
            raise NotMath(f"expected {text}, found {found}")
        self.i += 1
        return found

    def deeper(self) -> None:
        """Count one level; whoever calls takes it off."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMath("too deep")

    def expression(self) -> Expression:
        self.deeper()
        value = self.term()
        while self.peek()[1] in ("+", "-"):
            value = plus(value, self.term()) if self.take() == "+" else plus(value, negative(self.term()))
        self.depth -= 1
        return value

    def term(self) -> Expression:
        value = self.unary()
        while True:
            kind, text = self.peek()
            if text in ("*", "/"):
                self.take()
                factor = self.unary()
                value = times(value, factor) if text == "*" else divide(value, factor)
            elif self.starts_factor():
                if kind == "number":
                    raise NotMath("a number after a factor")  # "5 6" is no product
                value = times(value, self.power())
            else:
                return value

    def starts_factor(self) -> bool:
        kind, text = self.peek()
        return kind in ("number", "name", "command") or text in ("(", "{", "[") or (text == "|" and not self.bars)

    def starts_function(self) -> bool:
        """sin x cos x is a product: the second name ends the first one's argument."""
        return self.peek()[1].removeprefix("\\").lower() in FUNCTIONS

    def unary(self) -> Expression:
        sign = 1
        while self.peek()[1] in ("+", "-"):
            sign = sign if self.take() == "+" else -sign
        return self.power() if sign == 1 else negative(self.power())

    def power(self) -> Expression:
        self.deeper()
        base = self.postfix()
        if self.peek()[1] in ("^", "**"):
            self.take()
            base = power(base, self.unary())
        self.depth -= 1
        return base

    def postfix(self) -> Expression:
        value = self.atom()
        while self.peek()[1] in ("°", "%", "!"):
            mark = self.take()
            if mark == "°":
                value = times(value, divide(algebra.PI, Fraction(180)) if self.circular else DEGREE)
            elif mark == "%":
                value = times(value, PERCENT)
            elif isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 60:
                value = Fraction(math.factorial(int(value)))
            else:
                raise NotMath("factorial")
        return value

    def group(self, opening: str, closing: str) -> Expression:
        self.take(opening)
        self.bars += opening == "|"
        value = self.expression()
        self.take(closing)
        self.bars -= opening == "|"
        return value

    def argument(self) -> Expression:
        """What a LaTeX command takes: a braced group, a bracketed group, or one atom."""
        if self.peek()[1] == "{":
            return self.group("{", "}")
        self.deeper()
        value = self.atom()
        self.depth -= 1
        return value

    def atom(self) -> Expression:
        kind, text = self.peek()
        if kind == "number":
            self.take()
            return self.mixed(number(text))
        if kind == "command":
            return self.command()
        if kind == "name":
            return self.name()
        for opening, closing in ("()", "{}", "[]", "||"):
            if text == opening:
                value = self.group(opening, closing)
                return apply("abs", value) if opening == "|" else value
        raise NotMath(f"unexpected {text!r}")

    def mixed(self, whole: Fraction) -> Expression:
        """3 1/2 and 3\\frac{1}{2} are three and a half; 9\\frac{\\sqrt3}{2} stays a product."""
        if whole.denominator != 1:
            return whole
        texts = [self.peek(k)[1] for k in range(7)]
        if texts[1] == "/":
            top, bottom, used = texts[0], texts[2], 3
        elif [*texts[:2], *texts[3:5], texts[6]] == [r"\frac", "{", "}", "{", "}"]:
            top, bottom, used = texts[2], texts[5], 7
        else:
            return whole
        if top.isdigit() and bottom.isdigit() and len(bottom) < 6 and 0 < int(top) < int(bottom):
            self.i += used
            return plus(whole, Fraction(int(top), int(bottom)))
        return whole

    def command(self) -> Expression:
        name = self.take()[1:]
        if name == "frac":
            return divide(self.argument(), self.argument())
        if name == "sqrt":
            index = self.group("[", "]") if self.peek()[1] == "[" else Fraction(2)
            return power(self.argument(), divide(Fraction(1), index))
        if name in FUNCTIONS:
            return self.function(name)
        if name in GREEK:
            return self.subscript(name.replace("var", ""))
        raise NotMath(f"unknown command {name}")

    def name(self) -> Expression:
        text = self.take()
        if text in ("pi", "oo"):
            return algebra.PI if text == "pi" else math.inf
        if text.lower() in FUNCTIONS:
            return self.function(text.lower())
        if text in GREEK:
            return self.subscript(text)
        letters = text.rstrip("'")
        if len(letters) == 1:
            return algebra.E if text == "e" else self.subscript(text)
        if letters.isupper() and len(letters) <= 3:  # a segment: AB is BA, an angle: ABC is CBA
            return self.subscript(min(letters, letters[::-1]))
        for known in ("pi", "sin", "cos", "tan", "ln"):  # 2pir, xsin(x)
            if known in letters and len(letters) <= len(known) + 2:
                head, tail = letters.split(known, 1)
                self.tokens[self.i - 1 : self.i] = [("name", part) for part in (*head, known, *tail)]
                self.i -= 1
                return self.power()
        if letters.islower() and len(letters) <= 3 and letters not in WORDS:
            self.tokens[self.i - 1 : self.i] = [("name", letter) for letter in letters]
            self.i -= 1
            return self.power()
        raise NotMath(f"a word: {text}")

    def subscript(self, name: str) -> str:
        if self.peek()[1] == "_":
            self.take()
            braces = self.peek()[1] == "{" and self.take()
            if self.peek()[0] not in ("number", "name"):
                raise NotMath("subscript")
            name = f"{name}_{self.take()}"
            if braces:
                self.take("}")
        return name

    def function(self, name: str) -> Expression:
        base, exponent = None, None
        if self.peek()[1] == "_" and name == "log":
            self.take()
            base = self.argument()
        if self.peek()[1] in ("^", "**"):
            self.take()
            exponent = self.group("{", "}") if self.peek()[1] == "{" else self.unary()
        self.circular += name in CIRCULAR  # degrees are radians in here
        if self.peek()[1] == "(":
            value = self.group("(", ")")
        else:
            value = self.argument() if name == "sqrt" else self.power()
            while name != "sqrt" and self.starts_factor() and not self.starts_function():
                value = times(value, self.power())
        self.circular -= name in CIRCULAR
        if exponent == -1 and name in INVERSE:
            return apply(INVERSE[name], value)
        if name == "log":
            result = divide(apply("log", value), apply("log", Fraction(10) if base is None else base))
        elif name in ("sqrt", "cbrt"):
            result = power(value, Fraction(1, 2 if name == "sqrt" else 3))
        elif name == "exp":
            result = power(algebra.E, value)
        else:
            result = apply(FUNCTIONS[name], value)
        return result if exponent is None else power(result, exponent)


WORDS = set(
    "the and all any are has not yes no odd one two six ten is of on at in to or as by be an it if so we he she its "
    "for can sum red up cat dog off out per top low max min end day age boy man men box but car bus cup".split()
)


def number(text: str) -> Fraction:
    """An exact rational from 12, 1,234.5, .5 or 1.2e3."""
    text = text.replace(",", "")
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or abs(int(exponent or 0)) > 60:
        raise NotMath("too many digits")
    return Fraction(f"{mantissa}e{exponent or 0}")


def parse_expression(text: str) -> Expression:
    """Plain text (see `plain`) → an expression that has a value; NotMath for what is none, within the limits."""
    parser = _Parser(tokenize(text))
    value = parser.expression()
    if parser.peek()[0] != "end":
        raise NotMath(f"left over: {parser.peek()[1]}")
    return algebra.checked(value)
