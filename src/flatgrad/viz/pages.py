"""Pages of HTML that need nothing else: a template beside this file, a title and data as JSON."""
from __future__ import annotations

import html
import json
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["filled"]


def filled(template: str, title: str, data: dict[str, Any]) -> str:
    """The text of a page: a template of this folder with a title, and with data that no text in them can end."""
    found = {"TITLE": html.escape(title), "DATA": json.dumps(data, allow_nan=False).replace("<", "\\u003c")}
    with open(os.path.join(os.path.dirname(__file__), template), encoding="utf-8") as file:
        return re.sub("@(TITLE|DATA)@", lambda match: found[match[1]], file.read())
