"""Mathematics in a model's words → a sympy expression, without eval, sympify or parse_expr: those run what they read.

A tokenizer and a recursive-descent parser of our own read plain text, LaTeX and Unicode alike. Length, depth, digits
and exponents are bounded before sympy sees a number, so `9**9**9**9` is refused, not computed.
"""

import re
import unicodedata
from collections.abc import Callable

import sympy

MAX_CHARACTERS = 600
MAX_TOKENS = 300
MAX_DEPTH = 24
MAX_DIGITS = 40
MAX_EXPONENT = 512
MAX_BITS = 4096  # of an exact power

DEGREE = sympy.Symbol("°", real=True)
PERCENT = sympy.Symbol("%", real=True)


class NotMath(Exception):
    """The text is no expression this parser knows, or a larger one than it accepts."""


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
    return text.strip()


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
FUNCTIONS: dict[str, Callable] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "sec": sympy.sec, "csc": sympy.csc, "cot": sympy.cot,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "asin": sympy.asin, "acos": sympy.acos,
    "atan": sympy.atan, "ln": sympy.log, "log": sympy.log, "exp": sympy.exp, "abs": sympy.Abs, "sqrt": sympy.sqrt,
    "cbrt": lambda x: sympy.root(x, 3)
}
INVERSE = {"sin": sympy.asin, "cos": sympy.acos, "tan": sympy.atan}


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
        self.tokens, self.i, self.depth, self.bars = tokens, 0, 0, 0

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        return self.tokens[self.i + ahead] if self.i + ahead < len(self.tokens) else ("end", "")

    def take(self, text: str | None = None) -> str:
        kind, found = self.peek()
        if kind == "end" or (text is not None and found != text):
            raise NotMath(f"expected {text}, found {found}")
        self.i += 1
        return found

    def expression(self) -> sympy.Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMath("too deep")
        value = self.term()
        while self.peek()[1] in ("+", "-"):
            value = value + self.term() if self.take() == "+" else value - self.term()
        self.depth -= 1
        return value

    def term(self) -> sympy.Expr:
        value = self.unary()
        while True:
            kind, text = self.peek()
            if text in ("*", "/"):
                self.take()
                factor = self.unary()
                value = value * factor if text == "*" else divide(value, factor)
            elif self.starts_factor():
                if kind == "number":
                    raise NotMath("a number after a factor")  # "5 6" is no product
                value = value * self.power()
            else:
                return value

    def starts_factor(self) -> bool:
        kind, text = self.peek()
        return kind in ("number", "name", "command") or text in ("(", "{", "[") or (text == "|" and not self.bars)

    def starts_function(self) -> bool:
        """sin x cos x is a product: the second name ends the first one's argument."""
        return self.peek()[1].removeprefix("\\").lower() in FUNCTIONS

    def unary(self) -> sympy.Expr:
        sign = 1
        while self.peek()[1] in ("+", "-"):
            sign = sign if self.take() == "+" else -sign
        return sign * self.power()

    def power(self) -> sympy.Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMath("too deep")
        base = self.postfix()
        if self.peek()[1] in ("^", "**"):
            self.take()
            base = raise_to(base, self.unary())
        self.depth -= 1
        return base

    def postfix(self) -> sympy.Expr:
        value = self.atom()
        while self.peek()[1] in ("°", "%", "!"):
            mark = self.take()
            if mark != "!":
                value = value * (DEGREE if mark == "°" else PERCENT)
            elif value.is_Integer and 0 <= value <= 60:
                value = sympy.factorial(value)
            else:
                raise NotMath("factorial")
        return value

    def group(self, opening: str, closing: str) -> sympy.Expr:
        self.take(opening)
        self.bars += opening == "|"
        value = self.expression()
        self.take(closing)
        self.bars -= opening == "|"
        return value

    def argument(self) -> sympy.Expr:
        """What a LaTeX command takes: a braced group, a bracketed group, or one atom."""
        return self.group("{", "}") if self.peek()[1] == "{" else self.atom()

    def atom(self) -> sympy.Expr:
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
                return sympy.Abs(value) if opening == "|" else value
        raise NotMath(f"unexpected {text!r}")

    def mixed(self, whole: sympy.Rational) -> sympy.Expr:
        """3 1/2 and 3\\frac{1}{2} are three and a half; 9\\frac{\\sqrt3}{2} stays a product."""
        if not whole.is_Integer:
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
            return whole + sympy.Rational(int(top), int(bottom))
        return whole

    def command(self) -> sympy.Expr:
        name = self.take()[1:]
        if name == "frac":
            return divide(self.argument(), self.argument())
        if name == "sqrt":
            index = self.group("[", "]") if self.peek()[1] == "[" else sympy.Integer(2)
            return raise_to(self.argument(), divide(sympy.Integer(1), index))
        if name in FUNCTIONS:
            return self.function(name)
        if name in GREEK:
            return self.subscript(name.replace("var", ""))
        raise NotMath(f"unknown command {name}")

    def name(self) -> sympy.Expr:
        text = self.take()
        if text in ("pi", "oo"):
            return getattr(sympy, text)
        if text.lower() in FUNCTIONS:
            return self.function(text.lower())
        if text in GREEK:
            return self.subscript(text)
        letters = text.rstrip("'")
        if len(letters) == 1:
            return sympy.E if text == "e" else self.subscript(text)
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

    def subscript(self, name: str) -> sympy.Symbol:
        if self.peek()[1] == "_":
            self.take()
            braces = self.peek()[1] == "{" and self.take()
            if self.peek()[0] not in ("number", "name"):
                raise NotMath("subscript")
            name = f"{name}_{self.take()}"
            if braces:
                self.take("}")
        return sympy.Symbol(name, real=True)

    def function(self, name: str) -> sympy.Expr:
        base, exponent = None, None
        if self.peek()[1] == "_" and name == "log":
            self.take()
            base = self.argument()
        if self.peek()[1] in ("^", "**"):
            self.take()
            exponent = self.group("{", "}") if self.peek()[1] == "{" else self.unary()
        if self.peek()[1] == "(":
            value = self.group("(", ")")
        else:
            value = self.argument() if name == "sqrt" else self.power()
            while name != "sqrt" and self.starts_factor() and not self.starts_function():
                value = value * self.power()
        if name in ("sin", "cos", "tan", "sec", "csc", "cot"):
            value = value.subs(DEGREE, sympy.pi / 180)
        if exponent == -1 and name in INVERSE:
            return INVERSE[name](value)
        if name == "exp":
            result = raise_to(sympy.E, value)
        elif name == "log":
            result = divide(sympy.log(value), sympy.log(10 if base is None else base))
        else:
            result = FUNCTIONS[name](value)
        return result if exponent is None else raise_to(result, exponent)


WORDS = set(
    "the and all any are has not yes no odd one two six ten is of on at in to or as by be an it if so we he she its "
    "for can sum red up cat dog off out per top low max min end day age boy man men box but car bus cup".split()
)


def number(text: str) -> sympy.Rational:
    """An exact rational from 12, 1,234.5, .5 or 1.2e3."""
    text = text.replace(",", "")
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or abs(int(exponent or 0)) > 60:
        raise NotMath("too many digits")
    whole, _, decimals = mantissa.partition(".")
    return sympy.Rational(int(whole + decimals or 0), 10 ** len(decimals)) * sympy.Integer(10) ** int(exponent or 0)


def divide(top: sympy.Expr, bottom: sympy.Expr) -> sympy.Expr:
    """top / bottom; NotMath for a division by nought."""
    if bottom == 0:
        raise NotMath("division by nought")
    return top / bottom


def raise_to(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """base ** exponent; NotMath where it would be large: beyond MAX_EXPONENT, or of MAX_BITS as an exact power."""
    if exponent.is_number:
        size = abs(sympy.N(exponent, 15))
        if not size.is_comparable or size > MAX_EXPONENT:
            raise NotMath("exponent too large")
        if base.is_Rational and (abs(base.p).bit_length() + base.q.bit_length()) * float(size) > MAX_BITS:
            raise NotMath("power too large")
        if base.is_Pow and base.exp.is_number and abs(sympy.N(base.exp * exponent, 15)) > MAX_EXPONENT:
            raise NotMath("tower of powers")
        if base == 0 and exponent.is_nonpositive:
            raise NotMath("division by nought")
    elif exponent.has(sympy.Pow) and any(not p.exp.is_number for p in exponent.atoms(sympy.Pow)):
        raise NotMath("tower of powers")
    return sympy.Pow(base, exponent)


def parse_expression(text: str) -> sympy.Expr:
    """Plain text (see `plain`) → sympy expression; NotMath for what is not one expression within the limits."""
    parser = _Parser(tokenize(text))
    try:
        value = parser.expression()
    except (RecursionError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise NotMath(str(error)) from error
    if parser.peek()[0] != "end":
        raise NotMath(f"left over: {parser.peek()[1]}")
    if value.has(sympy.nan, sympy.zoo):
        raise NotMath("not a number")
    return value
