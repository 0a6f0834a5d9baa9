"""The pages that `python3 dev.py docs` has built are whole, and need no network.

    python tests/pages.py [FOLDER]

Every link between pages leads to a page and an anchor that are there, and every picture, style and script to a file. No
page loads anything from elsewhere. The search knows every page. Code has its copy button, and the reference links to
the sources. Links to other sites are not followed: `python3 dev.py docs -b linkcheck` does that.
"""
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

SITE = Path(__file__).resolve().parent.parent / "docs" / "_build" / "html"
ELSEWHERE = re.compile(r"(?:[a-z][a-z0-9+.-]*:|//)")
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
KEPT = {"stylesheet", "icon", "preload", "search"}   # kinds of <link> that a browser loads


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads, self.blocks = set(), set(), set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        self.blocks += tag == "pre"
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        for name, value in given.items():
            if (tag, name) in LOADED or tag == "link" and name == "href" and KEPT & set(given.get("rel", "").split()):
                self.loads.add(value)


def wrong_links(pages, folder):
    for name, page in pages.items():
        for link in sorted(page.links | page.loads):
            path, anchor = urldefrag(link)
            if ELSEWHERE.match(link):
                if link in page.loads and not link.startswith("data:"):
                    yield f"{name}: loads {link}, from elsewhere"
                continue
            target = (folder / name).parent / unquote(path.partition("?")[0]) if path else folder / name
            target = target.resolve()
            found = target.relative_to(folder).as_posix() if target.is_relative_to(folder) else None
            if found is None or not target.is_file():
                yield f"{name}: {link} leads to no file"
            elif anchor and found in pages and unquote(anchor) not in pages[found].anchors | {"", "top"}:
                yield f"{name}: {link} leads to no anchor of {found}"


def wrong_styles(folder):
    for path in sorted(folder.rglob("*.css")):
        for link in re.findall(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text("utf-8")):
            yield f"{path.relative_to(folder).as_posix()}: loads {link}, from elsewhere"


def wrong_search(pages, folder):
    """The index is a script, so that a browser reads it from a disk as well."""
    path = folder / "searchindex.js"
    loaded = {load.partition("?")[0] for page in pages.values() for load in page.loads}
    if not path.is_file() or "searchindex.js" not in loaded:
        yield "searchindex.js: no page loads it"
        return
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\);?\s*", path.read_text("utf-8"), re.DOTALL)[1])
    made = {"genindex", "search", "py-modindex"}
    listed = {name.removesuffix(".html") for name in pages if not name.startswith("_modules/")} - made
    yield from (f"{name}: the search does not know the page" for name in sorted(listed - set(index["docnames"])))
    if "how-it-works" in index["docnames"]:
        found = [index[terms].get("tape", []) for terms in ("terms", "titleterms")]
        found = sum((each if isinstance(each, list) else [each] for each in found), [])   # a number is a list of one
        if index["docnames"].index("how-it-works") not in found:
            yield "the search does not find 'tape' in how-it-works"


def wrong_code(pages, folder):
    for name, page in pages.items():
        if page.blocks and not name.startswith("_modules/") and not any("copybutton.js" in load for load in page.loads):
            yield f"{name}: code without a copy button"
    for name in ("api/flatgrad.optim.html", "api/flatgrad.train.html"):
        if name in pages and not any("_modules/" in link or "/blob/" in link for link in pages[name].links):
            yield f"{name}: no link to the source"


def wrong(folder):
    """What is wrong with a site, a line each; and its number of pages and links."""
    folder = folder.resolve()
    pages = {path.relative_to(folder).as_posix(): Page(path.read_text("utf-8"))
             for path in sorted(folder.rglob("*.html"))}
    found = [*wrong_links(pages, folder), *wrong_styles(folder), *wrong_search(pages, folder),
             *wrong_code(pages, folder)]
    return found, len(pages), sum(len(page.links | page.loads) for page in pages.values())


if __name__ == "__main__":
    problems, pages, links = wrong(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE)
    print(*problems, f"{pages} pages, {links:,} links: {len(problems) or 'nothing'} wrong", sep="\n")
    sys.exit(bool(problems) or not pages)
