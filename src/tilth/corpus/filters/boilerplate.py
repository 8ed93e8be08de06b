"""Lines of a web page that do not belong to its text: banners, menus, buttons, rights (English)."""

import re

LONGEST = 250
"""Characters of a line past which it is text."""

_WHOLE = re.compile(
    r"""(?:
      (?:share|tweet|pin|like|follow)
      (?:\ (?:this|it|us|me|article|post|story|page|now|via|on|in|by|with|facebook|twitter|x|e-?mail|whatsapp|linkedin
         |pinterest|reddit|instagram|youtube|telegram|google|friends|and|your|the|a|to|or)){0,8}
    | (?:sign|log)\ ?(?:in|up|out)
      (?:\ (?:now|here|or|and|to|for|our|register|sign|log|in|up|with|facebook|google|your|account|newsletter)){0,8}
    | subscribe(?:\ (?:now|here|today|to|our|the|free|newsletter|via|e-?mail|rss|by|for|updates|and|channel)){0,8}
    | (?:read|show|load|view|see|learn)\ (?:more|less|all)
      (?:\ (?:comments|posts|articles|stories|here|about|this|news)){0,3}
    | (?:leave|post|add|write|view|cancel|hide|show)\ (?:a\ |your\ |all\ |the\ )?(?:comments?|reply|replies)
    | (?:\d{1,6}\ )?(?:comments?|replies|likes|shares|views|retweets)(?:\ \d{1,6})?
    | (?:skip|jump|back|go)\ to\ (?:main\ |the\ )?
      (?:content|navigation|top|search|menu|home|homepage|footer)(?:\ of\ page)?
    | (?:previous|next|older|newer)\ (?:post|article|page|story|entry|entries|posts)
    | (?:main\ |toggle\ |open\ |close\ |site\ )?(?:menu|navigation|search|sidebar)
    | (?:print|e-?mail|save|bookmark|report|copy)\ (?:this\ )?(?:page|article|link|post|story|ad|comment)
    | advertise(?:ment|ments|\ with\ us) | related\ (?:posts|articles|stories|links) | you\ (?:may|might)\ also\ like
    | all\ rights\ reserved | (?:privacy|cookie)\ (?:policy|settings|notice)
    | terms\ (?:of\ (?:use|service)|and\ conditions)
    | accept\ (?:all\ )?(?:cookies)? | manage\ (?:cookies|preferences|consent) | powered\ by\ \w{1,30}
    | loading | permalink | trackback | tags? | filed\ under
    )""",
    re.VERBOSE,
)
"""Lines that are boilerplate when they are nothing else; in lower case, punctuation as single blanks."""

_FIRST = """
accept add advertise advertisement advertisements all back bookmark cancel close comment comments cookie copy e email
filed follow go hide jump learn leave like likes load loading log login logout main manage menu navigation newer next
older open permalink pin post powered previous print privacy read related replies reply report retweets save search
see share shares show sidebar sign signin signout signup site skip subscribe tag tags terms toggle trackback tweet
view views write you
"""
_FIRST_WORDS = frozenset(_FIRST.split())
"""A line that starts with none of them, or a number, is spared the long expression."""

_PART = re.compile(
    r"""
      \b(?:uses?|using|accept|enable|of)\ (?:\w{1,20}\ ){0,2}cookies\b | \bcookies\ (?:to|on|are|help|and|that)\b
    | \bcookie\ (?:policy|settings|preferences|notice|consent)\b
    | \b(?:enable|enabled|requires?|turn\ on|disabled|without|activate|activated)\ java\ ?script\b
    | \bjava\ ?script\ (?:must|is|has|needs|should|seems|to\ be|enabled|disabled|in\ your)\b
    | \ball\ rights\ reserved\b | ^\ ?copyright\ (?:19|20)\d\d\b
    | (?:^|\s)(?:copyright\ )?(?:©|\(c\))\ ?(?:copyright\ )?(?:19|20)\d\d\b
    | \bdisable\ (?:\w{1,20}\ ){0,2}ad\ ?block
    """,
    re.VERBOSE,
)
"""What makes a line below `LONGEST` boilerplate wherever it is; looked for where a hint is."""

_SENTENCE_ENDS = (".", "!", "?", '"', "'", "”", "’")
_FIRST_WORD = re.compile(r"[\W_]{0,10}([^\W_]+)")
_SIGNS = re.compile(r"[\W_]+")


def may_hold_notices(text: str) -> bool:
    """Whether any line of a text may be a notice: a banner, a line of rights. Most texts of prose hold none."""
    lowered = text.lower()
    return (  # written out: `any` over a tuple takes four times as long for a line
        "cookie" in lowered
        or "copyright" in lowered
        or "rights reserved" in lowered
        or "java" in lowered
        or "©" in lowered
        or "(c)" in lowered
        or "ad block" in lowered
        or "adblock" in lowered
    )


def is_boilerplate(line: str, notices: bool = True) -> bool:
    """Whether a line, stripped and not empty or long, belongs to a page and not to its text.

    notices: whether it may be a notice; see `may_hold_notices`.
    """
    first = _FIRST_WORD.match(line)
    if first and len(line) <= 80 and (first[1].lower() in _FIRST_WORDS or first[1].isdecimal()):
        said = line.endswith(_SENTENCE_ENDS) and not line.endswith("...")  # "Follow me." is dialogue
        if not said and _WHOLE.fullmatch(_SIGNS.sub(" ", line.lower()).strip()):
            return True
    return notices and may_hold_notices(line) and _PART.search(line.lower()) is not None
