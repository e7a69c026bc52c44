"""What a text reveals of a secret, found in another way than the code does it: by trying every window."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus, unquote

WINDOW = 8


def leaked(secret: str, text: str, beside: str = "") -> list[str]:
    """Return each eight characters in sequence of the secret in the text, raw, URL-encoded or in Base64.

    Args:
        secret: of 24 characters and more.
        text: that must not contain it.
        beside: what stands in the text anyway, and is no leak.
    """
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    forms |= {form.replace(escape, escape.lower()) for form in forms for escape in _escapes(form)}
    texts = {text, unquote(text), unquote(unquote(text))}
    for before in range(3):
        coded = base64.b64encode(bytes(before) + secret.encode("utf-8", "surrogatepass")).decode()
        whole = coded.rstrip("=")[:-1] if coded.endswith("=") else coded
        inner = whole[(8 * before + 5) // 6 :]
        forms |= {inner, inner.translate(str.maketrans("+/", "-_"))}
    windows = {form[at : at + WINDOW] for form in forms for at in range(len(form) - WINDOW + 1)}
    return sorted(each for each in windows if any(each in form for form in texts) and each not in beside)


def _escapes(form: str) -> set[str]:
    return {form[at : at + 3] for at in range(len(form)) if form[at] == "%"}
