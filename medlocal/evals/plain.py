"""An output without its markup: the plain text that labels and words are looked for in.

It knows the ways in which models dress a text (Markdown, LaTeX, HTML, chat templates, thinking, escaped,
wide and accented letters) and nothing of answers. Places are lost: a plain text has its own.
"""

import re
import unicodedata

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.IGNORECASE | re.DOTALL)
_LATEX_FONT = re.compile(r"\\(?:text|math)?(?:text|bf|rm|it|sf|tt|md|bb)\s*\{([^{}]*)\}")
_MARKUP = re.compile(
    r"</?(?:b|strong|i|em|u|p|br|span|code)\s*/?>|\\[()\[\]]|[*`$¿¡]|(?<!\w)_+|_+(?!\w)",
    re.IGNORECASE,
)
_LINE_MARKUP = re.compile(r"^[ ]*(?:(?:#+|>(?! ?[0-9])|[-•+◦▪])[ ]+)+", re.MULTILINE)
_ESCAPE = re.compile(r"\\u(?!d[89a-f])([0-9a-f]{4})", re.IGNORECASE)
"""A letter as JSON may write it; halves of a pair are left alone."""
_QUOTES = str.maketrans("“”„«»‘’‚′", '"""""' + "''''")


def plain(text: str) -> str:
    """A text without what carries no words: thinking, Markdown, LaTeX fonts, accents, wide forms.

    A thought that was never closed is removed to the end: nothing was said after it.
    """
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), _THINKING.sub("\n", text))
    characters = unicodedata.normalize("NFKD", text.translate(_QUOTES))
    kept = [c for c in characters if unicodedata.category(c) not in {"Mn", "Cf"}]
    text = "".join(" " if c != "\n" and (c.isspace() or c < " ") else c for c in kept)
    text = re.sub(r"<\|[^|>\n]*\|>", "\n", text)
    text = _MARKUP.sub("", _LATEX_FONT.sub(r"\1", text))
    text = _LINE_MARKUP.sub("", text)
    return re.sub(r" {2,}", " ", text).strip()
