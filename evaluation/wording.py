"""The words by which a response marks, states, denies and takes back its answer: patterns, read by answers.py and
choices.py.

Those up to NEXT_QUESTION meet a whole response, however long, and are linear in it. The others meet its last 4,000
characters or a sentence of them, in which each run of blanks is one blank.
"""

import re

from evaluation.values import NUMBER_WORDS

SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<eos>|<(?:start|end)_of_turn>")
THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷|<\|channel\|>final<\|message\|>", re.I)
THINKING = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷|<\|channel\|>analysis<\|message\|>", re.I)
LEADING_TOKENS = re.compile(r"(?:\s|<\|[^|<>\n]{1,40}\|>|</?s>|<eos>|<start_of_turn>|assistant\b|model\n)*")
# what a model writes on when its turn is over: a token that ends it, or the next question
TURN_END = re.compile(r"<\|(?:im_end|im_start|endoftext|end|eot_id|eom_id|end▁of▁sentence|user)\|>|</s>|<eos>"
                      r"|<(?:end|start)_of_turn>")
NEXT_QUESTION = re.compile(r"\n[ \t*#]*(?:Question|Q|User|USER|Human|问题|问)[ \t]{0,3}\d{0,4}[* \t]{0,4}:")
MARK = re.compile(
    r"(?P<boxed>\\(?:boxed|fbox)\s*\{)|(?P<bare>\\(?:boxed|fbox)(?=\s+\w|\d)\s*)|(?P<tag><\s*(?:answer|conclusion)\s*>:?)"
    r"|(?P<dagger>†(?:\s*answer\s*:)?)"
    r"|(?P<words>(?:final\s+|correct\s+|right\s+|my\s+)?\banswer\b(?:\s*\(option\))?[\"'*_`)\]>]*"
    r"\s*(?:(?:must|should|would|will)\s+be|is|are|:|=|[-–—]\s)[*_]*\s*:?|\bans\b\s*[.:=]"
    r"|\b(?:correct|right|best|matching)\s+(?:option|choice|statement|letter)\b(?:\s+letter\b)?[\"'*_`]*\s*"
    r"(?:(?:must|should|would|will)\s+be|is|:|=)[*_]*\s*:?"
    r"|\b(?:option|choice)\s*:[*_]*|\bI\s+(?:choose|chose|pick|select|would choose|go with)\b"
    r"|\[答案\]|(?:答案(?:选项)?|选项)\s*(?:应该是|应为|应是|是|为|选(?!项)|:)|[故应]选|(?:因此|所以)选|答\s*:)",
    re.I,
)
AFFIRMED = re.compile(  # "B is the correct answer", "option C must be right"; no point, angle or triangle B
    r"(?<!angle )(?<!triangle )(?<!point )(?<!line )(?<!∠)(?<![A-Za-z∠])(?P<letter>[A-H])\b[)\]*_\"']*\s+"
    r"(?:is|must be|should be)\s+(?:therefore\s+|thus\s+|indeed\s+|clearly\s+|also\s+)?(?:the\s+)?(?:only\s+)?"
    r"(?:(?:correct|right|best)\b|answer\b)"
)
CORRECTED = re.compile(
    r"\b(?:wait|oops|scratch that|correction|on second thoughts?|no,? (?:wait|sorry)|hmm+\W* no"
    r"|(?<=[.!?] )no,? (?:that|it)|(?:that|this)(?:'s| is| was) (?:not (?:right|correct)|wrong|incorrect|a mistake)"
    r"|I(?:'ve| have| was)? (?:made an? (?:mistake|error)|wrong)|(?<=[.!?] )actually"
    r"|let me re-?(?:check|consider|examine))\b",
    re.I,
)
CANNOT = r"(?:cannot|can't|can not|could not|couldn't|(?:unable|not able|not possible|impossible) to) (?:\w+ly )?"
UNDETERMINED = re.compile(  # said after an answer, it takes the answer back
    rf"\b{CANNOT}(?:be (?:determined|found|answered)|(?:determine|answer|find|give|provide) (?:the|a|an|this|any)"
    r"(?: \w+)? (?:answer|question|option))\b|\b(?:not enough|insufficient) information\b", re.I
)
NOT_LISTED = re.compile(r"\bnone of the (?:\w+ )?(?:options|choices|answers)\b", re.I)
UNANSWERED = re.compile(  # a sentence that says so is none of an answer, nor is what stands before it
    rf"{UNDETERMINED.pattern}|\b{CANNOT}(?:be )?(?:determined?|answer(?:ed)?|found|tell|told|say|said|provided?|known?"
    r"|seen?|viewe?d?|help)\b|(?:\bnot|n't) (?:have|provide|contain|include|give|specify)\b[^.\n]{0,40}"
    r"\b(?:information|context|details|data|image|picture|graph|function)\b|\bno (?:information|context|data)\b"
    r"|\bnot (?:clear|certain|sure|known|applicable)(?: (?:if|whether|what|which)\b|\s*[.,])"
    r"|\b(?:question|problem) (?:is|seems|appears)(?: to be)? (?:incomplete|unclear|invalid|not (?:clear|valid))"
    rf"|\b(?:answer|value|result|it)\b[^.,]* depends? on\b|\bnot specific\b|{NOT_LISTED.pattern}"
    r"|\bmistake in the (?:question|problem|options|choices)\b"
    r"|\bnot (?:an? (?:option|choice)|available|listed|among)\b|\bplease provide\b|\bsorry\b", re.I
)
# what stands before a mark that is none: "if the answer is B", "neither A nor B is correct"
SUPPOSED = re.compile(r"\b(?:if|suppose|assum\w+|whether)\s+(?:that\s+)?(?:the\s+)?(?:option\s+|choice\s+)?[(\[]?$"
                      r"|(?:^|[.!?:,]\s+|\n)\W*(?:if(?! (?:we|you) )|suppose|assuming)\b[^.!?\n]*$"
                      r"|\b(?:not (?:true|the case|correct)|false|wrong|unlikely|doubt\w*|mistake)\b[^.!?\n]*$", re.I)
SUPPOSING = re.compile(r"\W*(?:if(?! (?:we|you) )|suppose|assuming)\b", re.I)
DENIED = re.compile(
    r"\b(?:neither|none|not|nor|no one|nobody|unlikely|might|mistake|wrong|false|doubt)\b[^.!?\n]*$|n't\b[^.!?\n]*$"
    r"|\b[A-H]\b\W*(?:,|and|or)\W*(?:option\s+|choice\s+)?[(\[]?$", re.I
)
# what follows a value without being part of it: "12 cm, because the triangle is isosceles", "9 when x = 3"
REASON = re.compile(
    r"\s*(?:,\s*)?\b(?:because|since|which|so that|given that|as (?:the|it|this|we|shown|there|they)"
    r"|where|i\.e|rejecting|rounded|correct to|to the nearest|to \w+ decimal)\b.*$"
    r"|\s*,\s*(?:and\s+)?not\b.*$|\s*\(\s*not\b[^()]*\)\s*$",
    re.I | re.S,
)
# the mean of 4 and 6, which is 5
WHICH_IS = re.compile(r",?\s+which\s+(?:is|equals|gives|makes)\s+(\S*\d.*)$", re.I | re.S)
DELIMITER = re.compile(r"\$|\\[()\[\]]|\\q?quad\b|\\text\s*\{\s*(?=(?:and|or)\s*\})|(?<=and)\s*\}|(?<=or)\s*\}")
SOLUTION = re.compile(r"(?<![\w\\])([A-Za-z])\s*=\s*([-+\d./√π()]+(?:\\\w+[{}\d]*)*)(?=\s*(?:,|;|and\b|or\b|\W*$))")
CONTRAST = re.compile(r",?\s+(?:(?:when|while|whereas)\b|(?:with|at)\s+\w\s*=).*$", re.I | re.S)  # after the value
SENTENCE = re.compile(r"(?<=[.!?])(?<!^[A-Z]\.)(?<![\n*(.][A-Z]\.)\s+(?=[A-Z(*\"\\$∠]|$)|(?<=。)")
# a line of an answer that has several: "Domain: [-4, 0)", then "Range: (-3, 1]"
PART = re.compile(
    r"[\s*_•-]*(?:the\s+)?(?:domain|range|(?:in|de)creas\w+|constant|(?:local|absolute|global)\s+m(?:ax|in)\w*)\b", re.I
)
PARTS = re.compile(r"\b(?:domain|range|increasing|decreasing|amplitude|period|asymptotes?|m(?:ax|in)imum)\b", re.I)
EQUATION = re.compile(r"\bequation\b[^=]*?\bis\b\s*:?\s*(.*=.*)$", re.I | re.S)
CLAUSES = re.compile(r"[;,]\s|\b(?:but|so|hence|thus|therefore)\b")
NEGATED = re.compile(
    r"\b(?:not|except|but|in(?:correct|valid)|wrong|cannot|never|unless|neither|nor|eliminat\w+|exclud\w+|rul\w+ out)\b"
    r"|n't\b",
    re.I,
)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|boldsymbol|bf|rm)\s*\{([^{}]*)\}")
# what stands before a value in a sentence: first the equals sign and verbs, then weaker words
SEPARATORS = (
    r"=|\b(?:is|are|was|were|equals?(?:\s+to)?|gives?|get|be|measures?|costs?|has|have|totals"
    r"|(?:shows?|reads?)(?=\s+\W?\d))\b|[是为]|等于",
    r"≈|(?<!out )\b(?:of|to|as)\b",
)
NUMBER = r"(?<![\w.^])-?\d[\d,]*(?:\.\d+)?(?![\w^])(?:\s*(?:°|%))?"
COUNTED = "|".join(NUMBER_WORDS)
COUNT = re.compile(  # "there are two bars", "which leaves 8", "3 objects remain"
    rf"\b(?:there\s+(?:is|are|was|were|will\s+be|remains?)|leav(?:es|ing))\s+(?:(?:only|exactly|still|a\s+total\s+of)\s+)*"
    rf"(?P<count>\d+|{COUNTED})\b(?!\s*[-+*/×÷=.:^]\s*\d)"
    r"(?!\s+(?:\w+\s+)?(?:ways?|cases|possib\w+|interpretations|steps|methods|degrees|things to)\b)"
    rf"|\b(?P<left>\d+|{COUNTED})\s+(?:\w+\s+){{0,3}}(?:remain\b|(?:is|are|were)\s+left\b)", re.I
)
FURTHER_NUMBER = re.compile(rf"\d|\b(?!one\b)(?:{COUNTED})\b", re.I)
DIFFERENCE = re.compile(r"\d\s*(?:[^\W\d]\w{0,20}\s+)?(?:less|more|fewer)\s+than\s+\S*\d", re.I)
COMPARED = re.compile(
    rf"\b(?:than|above|below|under|over|at\s+(?:least|most)|up\s+to)\s+(?:[\w=]+\s+){{0,4}}?{NUMBER}", re.I
)
BOLD = re.compile(
    r"\*\*(?!\W{0,3}(?:step|case|part|method|figure|table|option|question|note)\b)([^*:\n]{0,40}\d[^*:\n]{0,40})\*\*",
    re.I,
)
TABLE = re.compile(r"^[^\n|]*\|[^\n]*\n[ \t|:]*-{2,}[-|: \t]*\n(?:[^\n|]*\|[^\n]*(?:\n|$))*", re.M)
NOT_EMPTY = re.compile(r"[^\s*#`$\\\[\]\-=_]").search
# sentences that state nothing: what is said to the reader before and after, and how the answer is checked
OPENING = re.compile(
    r"\W*(?:sure|certainly|of\s+course|okay|ok|I\s+(?:see|understand|can\s+help)|yes,\s+I\s+can|let(?:'s|\s+us|\s+me)"
    r"|here(?:'s|\s+is|\s+are))\b", re.I
)
CLOSING = re.compile(
    r"\W*(?:(?:I\s+)?hope|(?:please\s+)?(?:let\s+me\s+know|feel\s+free)|if\s+you\s+(?:have|need|want|would)"
    r"|(?:is|are)\s+there\s+any\w*|(?:do|would|can|could|does|may|shall)\b[^.!]*\?\W*$|thanks?(?!\s+to)"
    r"|you(?:'re|\s+are)\s+welcome|good\s+luck|happy\s+to\s+help)(?!\w)(?!.*\d)"
    r"|\W*(?:confidence|tip|remember|source|references?|note|remark)\b\W*(?::|that\b)"
    r"|\W*(?:希望|如果你|如有|还有(?:其他|什么))", re.I
)
CHECK = re.compile(
    r"[\W_]*(?:(?:quick|sanity|double)[-\s]+)?(?:check(?:ing)?\s*[:.!✓—-]|verif(?:ication|ying)\b|proof\s*:|验证|检验"
    r"|(?:(?:let(?:'s|\s+us|\s+me)|we\s+can|I\s+(?:will|can)|to)\s+)?(?:now\s+|also\s+)?(?:check|verify)\b\s*(?:[,:]|this|it\b"
    r"|that|by\b|(?:the|our|my)\s+(?:answer|result|solution))|substitut\w+\s+(?:this\s+|it\s+)?back|plugging\b[^.\n]*\bback)",
    re.I
)
FAILS = re.compile(r"\b(?:wrong|incorrect|fails|does(?:n't| not)|is not|isn't)\b|≠|不", re.I)  # of a check
CONCLUDES = re.compile(
    r"\W*(?:so|thus|hence|therefore|consequently|finally|in\s+conclusion|as\s+a\s+result|因此|所以|故|综上)(?![a-z])",
    re.I
)
# a sentence that works its value out, which then outranks a number in bold
DERIVES = re.compile(
    rf"^{CONCLUDES.pattern}|\b(?:so|thus|hence|therefore|we (?:get|obtain|find|have)|gives|result)\b", re.I
)
DENIES = re.compile(  # of a value or a choice in the same clause; NEGATED is of letters
    r"\b(?:not|never|neither|nor|cannot|no longer|nobody|no one|nothing|unlikely|hardly|fail(?:s|ed)? to|instead of"
    r"|rather than|less of|except|mistake|wrong|false|reject|discard|exclude|tempted)\b"
    r"|n't\b|不[是选对可能]|错|排除|\btoo (?:small|short|low|large|big|long|high)\b", re.I
)
# a sentence that states nothing of its own: a task, a supposition, what is given
STATES_NOTHING = re.compile(
    r"^\W*given:|^\W*(?:given\b[^.]*\bfind|find|to (?:find|answer|determine|solve|get|calculate)|let|suppose|assum\w+"
    r"|consider|what|which|how|subtract|add|remove|multiply|divide|start|we (?:have|need) to)\b"
    r"|^\W*the (?:question|problem) asks\b"
    r"|\b(?:(?:asks?|check|tell|determine|depends on) (?:whether|if|what)|whether|hard to (?:tell|say))\b"
    r"|\b(?:mistake|wrong) to\b", re.I
)
SHOWS = re.compile(  # what a picture shows is no answer, unless it is all that is said
    r"^\W*(?:in |from )?(?:the|this) (?:diagram|image|picture|photo|graph|figure|chart|table|question|problem)\b[^.]*"
    r"\b(?:shows?|shown|displays?|depicts?|is of|represents?|contains?)\b", re.I
)
HYPOTHETICAL = re.compile(
    r"^\W*if\b.*\b(?:were|was|had)\b.*\bwould\b|\bwould\b.*\bif\b|\bonly if\b|\bunless\b|如果|假如", re.I
)
PENDING = re.compile(  # the work is not done
    r"\b(?:we|I|you|still) (?:still )?need\b|\bneeded to\b|\blet(?:'s| us| me)\b|^\W*using\b|\bwe can (?:use|solve)\b"
    r"|\bcan be (?:found|solved|computed|calculated|used)\b|(?<!this )\bfollows from\b"
    r"|\bis not (?:given|shown|known|provided)\b",
    re.I
)
# a last sentence that gives the reason, whose numbers are none of an answer; one that speaks of the sentence before it
EXPLAINS = re.compile(r"\W*(?:this (?:is because|follows|comes from|is so))\b", re.I)
EXPLAINING = re.compile(
    r"\W*(?:this|that|these|it|they|because|the reason)\b(?! (?:means|makes|gives|requires|leaves|is (?:the|a) "
    r"(?:equation|formula|number|value)\b))", re.I
)
# a sentence that breaks off, and one that may be the end of a response
DANGLING = re.compile(
    r"(?:\b(?:so|then|thus|therefore|and|or|is|the|of|by|to|with|from)|所以|因此|,|\(|\s[-+*/=×÷])\s*$", re.I
)
STEP = re.compile(r"\s*(?:#+\s*)?(?:\*\*)?(?:step\s+\d+\s*[.:]?(?:\*\*)?|\d+[.)](?=\s+\S))\s*", re.I)  # a line's head
COMPLETE = re.compile(r"[.!?。:)\]}$*\"'%°\d]\W*$|\d\s?\w{1,20}\W*$")
UNSOLVED = re.compile(  # 3x + 40 = 180
    r"(?:\d\s*[a-z]|\b[a-z]\s*[-+*/^]|[-+*/]\s*\d*[a-z])\b[^=<>]*=[^=]*$"
)
# what may stand between two boxes that are one answer: "\boxed{2} or x = \boxed{3}"
JOINT = re.compile(
    r"(?:\\q?quad\b|\\[,;:]|[\s$\\()\[\].~])*(?:,|;|and|or|\\text\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|或|和)?"
    r"(?:\\q?quad\b|\\[,;:]|[\s$\\()~])*(?:[A-Za-z]\w?(?:_\{?\w\}?)?\s*=)?[\s$]*"
)

# -----------------------------------------------------------------------------
# choices

TOLD = re.compile(r"\b(?:option|choice)\s+\(?([A-H])\b|\(([A-H])\)")
OPENS = re.compile(r"\W*(?:(?:option|choice)\s+)?(?:\([A-H]\)|[A-H](?:[.:)]|\s*$))", re.I)
CONDITION = re.compile(
    r"^\W*(?:based on[^,]*,\s*)?(?:if|when|as|since|because|given|while|although|to)\b[^,]*,|\bif\b[^,]*$", re.I
)
CHANGE = re.compile(  # "A decrease in the number of foxes would ...": what happens, not what comes of it
    r"^\W*(?:an?|the|this)\s+(?:\w+\s+)?(?:increase|decrease|rise|drop|decline|reduction|lack|shortage|loss|removal)"
    r"\s+(?:in|of)\b[^,.]*?\b(?=would|will|could|may|might|can|leads?|causes?|means|results?)", re.I
)
NO_OTHER = re.compile(  # "no other line is higher" is no answer; "no the line is higher" is one
    r"no\s+(?!(?:it|there|the|this|that|these|those|they|he|she|we|you|because|since|as|a|an|is|are|not?)\b)\w", re.I
)
UNSURE = re.compile(  # words that turn a statement into another: "the second highest", "may be", "lacks"
    r"\b(?:second|third|first|one of|next to|close to|half|below|tied|equal to|after|before|until|sometimes|rarely"
    r"|without|would|if|may|might|doubt|almost|nearly|unclear|except|only|lacks?|fails?|far from|other than|otherwise"
    r"|incorrect|statement)\b|\?", re.I
)
ASKS = re.compile(r"\W*(?:is|are|was|were|do|does|did|can|could|would|will|has|have|should)\b", re.I)
LETTER = r"[(\[{<\"']{0,3}\b[A-Ha-h]\b[)\]}>\"']{0,3}"
SEVERAL = re.compile(
    rf"^\W{{0,6}}(?:both|either|neither|all|none|not)?\W{{0,6}}{LETTER}\W{{0,6}}(?:,|;|\?|/|&|\+|and|or|nor)\W{{0,6}}"
    r"(?:(?:also|maybe|possibly|perhaps|even|else|either)\W+)*(?:option|choice)?\W{0,6}\b[A-H]\b(?!')",
    re.I,
)
NAMED = re.compile(  # "(B)", but not "figure (B)"
    r"(?<!figure )(?<!graph )(?<!panel )(?<!diagram )(?<!picture )(?<!image )(?<!labelled )\(([A-H])\)"
    r"|\b(?:option|choice)\s+\(?([A-H])\b|\bis:?\s+\(?([A-H])\)?\W*$|选(?:项|择)?\s*\(?([A-H])(?![A-Za-z])"
    r"|\b(?:it'?s|must be|therefore|thus|hence|so|select|choose|pick|go with|corresponds to|matches)\W+\(?"
    r"([A-H])\)?\W*$",
    re.I,
)
TITLE = re.compile(
    r"^\W*(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer|result|solution|conclusion|assistant)\b"
    r"(?:\s+is)?\s*:?|(?:most\s+)?(?:probably|likely|definitely|clearly))\s*",
    re.I,
)
