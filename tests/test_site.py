"""tests/pages.py, which `dev.py docs` runs on what it has built, finds what is wrong with a site."""
import pages
import pytest

INDEX = 'Search.setIndex({"docnames": ["index", "how-it-works"], "terms": {"tape": 1}, "titleterms": {}})'
HEAD = '<script src="searchindex.js?v=1"></script><script src="_static/copybutton.js"></script>'
SITE = {
    "index.html": f'{HEAD}<h1 id="top-of-it">t</h1><pre>x</pre><a href="how-it-works.html#tape">a</a>'
                  '<a href="#top-of-it">b</a><a href="https://example.org/">elsewhere</a>'
                  '<img src="data:image/png;base64,AA">',
    "how-it-works.html": f'{HEAD}<section id="tape"><a href="index.html">a</a><img src="_static/a%20b.png"></section>',
    "searchindex.js": INDEX, "_static/copybutton.js": "", "_static/a b.png": "",
    "_static/style.css": "a { color: red }",
}


def wrong(tmp_path, changes):
    for name, text in {**SITE, **changes}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return pages.wrong(tmp_path)


def test_nothing_is_wrong_with_a_whole_site(tmp_path):
    assert wrong(tmp_path, {}) == ([], 2, 10)


def page(body, head=HEAD):
    index = INDEX.replace('"index"', '"other/more", "index"').replace('"tape": 1', '"tape": [2]')
    return {"other/more.html": head.replace('="', '="../') + body, "searchindex.js": index}


@pytest.mark.parametrize("changes, found", [
    (page('<a href="../index.html#top-of-it">a</a>'), None),
    (page('<a href="index.html">a</a>'), "other/more.html: index.html leads to no file"),
    (page('<a href="../index.html#gone">a</a>'),
     "other/more.html: ../index.html#gone leads to no anchor of index.html"),
    (page('<a href="#gone">a</a>'), "other/more.html: #gone leads to no anchor of other/more.html"),
    (page('<img src="gone.png">'), "other/more.html: gone.png leads to no file"),
    (page('<a href="../../secret">a</a>'), "other/more.html: ../../secret leads to no file"),
    (page('<script src="https://example.org/a.js"></script>'),
     "other/more.html: loads https://example.org/a.js, from elsewhere"),
    (page('<link rel="stylesheet" href="//example.org/a.css">'),
     "other/more.html: loads //example.org/a.css, from elsewhere"),
    ({"_static/style.css": "@import 'https://example.org/a.css'"},
     "_static/style.css: loads https://example.org/a.css, from elsewhere"),
    ({"_static/style.css": "a { background: url(https://example.org/a.png) }"},
     "_static/style.css: loads https://example.org/a.png, from elsewhere"),
    ({"more.html": HEAD}, "more: the search does not know the page"),
    ({"searchindex.js": INDEX.replace("tape", "cape")}, "the search does not find 'tape' in how-it-works"),
    (page("<pre>x</pre>", '<link rel="search" href="search.html">'), "other/more.html: code without a copy button"),
    ({**page("x"), "api/flatgrad.optim.html": HEAD.replace('="', '="../')},
     "api/flatgrad.optim.html: no link to the source"),
])
def test_what_is_wrong_is_found(tmp_path, changes, found):
    problems, _, _ = wrong(tmp_path, changes)
    assert found in problems if found else problems == []


def test_without_an_index_nothing_can_be_searched(tmp_path):
    problems, _, _ = wrong(tmp_path, {name: text.replace("searchindex", "another") for name, text in SITE.items()}
                           | {"another.js": ""})
    assert "searchindex.js: no page loads it" in problems
