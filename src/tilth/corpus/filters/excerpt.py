"""A short piece of a document that stands for it."""

PLACES = 3


def excerpt(text: str, size: int) -> str:
    """About `size` characters from three places spread over the text, cut at blanks, or the whole of a shorter one."""
    if len(text) <= size:
        return text
    part = size // PLACES
    pieces = []
    for place in range(PLACES):
        middle = len(text) * (2 * place + 1) // (2 * PLACES)
        start = max(0, middle - part // 2)
        piece = text[start : start + part]
        head, blank, rest = piece.partition(" ")
        pieces.append(rest if blank and start and len(head) < part // 4 else piece)
    return " ".join(pieces)
