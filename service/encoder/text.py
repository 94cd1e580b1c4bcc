"""Words that travel inside a picture: which are allowed, and their form outside PNG."""

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

XMP_KEYWORD = "XML:com.adobe.xmp"
"""The keyword under which PNG holds an XMP packet (XMP specification part 3, section 1.1.5)."""

# PNG: 1 to 79 printable Latin-1 characters, no leading, trailing or double spaces (W3C PNG 3rd ed., section 11.3.3.1).
_KEYWORD = re.compile(r"(?=.{1,79}\Z)[!-~\u00a1-\u00ff]+(?: [!-~\u00a1-\u00ff]+)*")
# What both an XML 1.0 document and a PNG text chunk may hold: no control characters, surrogates or non-characters.
_VALUE = re.compile(r"[\t\n -~\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")

_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>\n'
    '<?xpacket end="r"?>'
)


def check_text(text: Mapping[str, str]) -> None:
    """Refuse words that some format could not hold.

    Args:
        text: Keyword to value.

    Raises:
        ValueError: If a keyword is not 1 to 79 printable Latin-1 characters with single inner spaces, or a value holds
            a control character other than tab and newline, a surrogate or a non-character.
    """
    for keyword, value in text.items():
        if not _KEYWORD.fullmatch(keyword):
            raise ValueError(f"a keyword must be 1 to 79 printable Latin-1 characters, got {keyword!r}")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {keyword!r} must hold no control characters, got {value!r}")


def lines(text: Mapping[str, str]) -> str:
    """Return one line 'keyword: value' for each entry."""
    return "\n".join(f"{keyword}: {value}" for keyword, value in text.items())


def xmp(text: Mapping[str, str]) -> bytes:
    """Return the XMP packet for formats without named text: JPEG, WebP and AVIF.

    Args:
        text: Keyword to value, checked. A packet of the caller's own under `XMP_KEYWORD` is returned as it is, and
            stands for everything; otherwise the entries become lines of `dc:description`.

    Returns:
        The packet in UTF-8.

    ISO 16684-1:2019 (XMP part 1), section 7.
    """
    return (text.get(XMP_KEYWORD) or _XMP.format(escape(lines(text)))).encode()
