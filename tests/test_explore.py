"""flatgrad.viz.explore: what the page says, against the real micrograd; and the page itself in a browser, if there is
one."""
import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

import flatgrad
from flatgrad import Tensor, Value, viz
from flatgrad.nn import MLP
from flatgrad.viz.layout import Layout, apart

micrograd = pytest.importorskip("micrograd.engine")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def explored(root, tmp_path, **options):
    """What is embedded in the page of a graph."""
    path = viz.explore(root, str(tmp_path / "graph.html"), **options)
    with open(path, encoding="utf-8") as file:
        return json.loads(DATA.search(file.read())[1])


def gradients(data, visits=None):
    """The gradient of each node after some of the visits, as the page computes it."""
    found = [0.0] * len(data["nodes"])
    found[data["root"]] = 1.0
    for _, given in data["visits"][:visits]:
        for operand, gradient, _ in given:
            found[operand] = float(gradient)
    return found


def readme(make):
    """The expression of micrograd's README, and all its named nodes."""
    a, b = make(-4.0), make(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g, dict(a=a, b=b, c=c, d=d, e=e, f=f, g=g)


def labelled():
    root, nodes = readme(Value)
    for name, value in nodes.items():
        value.label = name
    return root


def random_graph(make, rng):
    """Some nodes by random operations; all of them, of which the last is the root."""
    nodes = [make(rng.uniform(-2, 2)) for _ in range(4)]
    for _ in range(rng.randrange(5, 40)):
        x, y = rng.choice(nodes), rng.choice(nodes[-6:])
        nodes.append(rng.choice([lambda: x + y, lambda: x * y, lambda: y.relu(), lambda: x - y, lambda: y * 0.5,
                                 lambda: (x * 0.25)**2, lambda: y + y])())
    return nodes


# ---- what is embedded ----

def test_values_and_gradients_are_micrograds(tmp_path):
    data = explored(labelled(), tmp_path)
    theirs, nodes = readme(micrograd.Value)
    theirs.backward()
    found = {node["name"]: (float(node["data"]), gradient) for node, gradient in zip(data["nodes"], gradients(data))}
    for name, value in nodes.items():   # micrograd adds in another order
        assert found[name] == (value.data, pytest.approx(value.grad, rel=1e-13))
    ours, nodes = readme(Value)
    ours.backward()
    assert {name: found[name] for name in nodes} == {name: (v.data, v.grad) for name, v in nodes.items()}
    assert data["title"] == "g" and data["nodes"][data["root"]]["name"] == "g"


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_micrograds(seed, tmp_path):
    ours, theirs = random_graph(Value, random.Random(seed)), random_graph(micrograd.Value, random.Random(seed))
    for k, value in enumerate(ours):
        value.label = f"n{k}"
    data = explored(ours[-1], tmp_path)
    theirs[-1].backward()
    seen = 0
    for node, gradient in zip(data["nodes"], gradients(data)):
        if node["named"]:
            value = theirs[int(node["name"][1:])]
            assert float(node["data"]) == value.data and math.isclose(gradient, value.grad, rel_tol=1e-13)
            seen += 1
    assert seen > 1


def test_a_wrong_gradient_is_noticed(tmp_path, monkeypatch):
    """The comparison above can fail."""
    from flatgrad.viz import explorer
    visits = flatgrad._core._visits
    monkeypatch.setattr(explorer, "_visits", lambda root: [
        (node, operands, tuple([1.001 * x for x in after])) for node, operands, after in visits(root)])
    with pytest.raises(AssertionError):
        test_values_and_gradients_are_micrograds(tmp_path)


def test_nodes_are_visited_newest_first_and_after_their_users(tmp_path):
    data = explored(labelled(), tmp_path)
    order = [node for node, _ in data["visits"]]
    assert order == sorted(order, reverse=True) and order[0] == data["root"]
    assert set(order) == {k for k, node in enumerate(data["nodes"]) if node["operands"]}
    final, grads = gradients(data), [gradients(data, k) for k in range(len(order))]
    for node, before in zip(order, grads):
        assert before[node] == final[node]   # complete when its turn comes
    for k, node in enumerate(data["nodes"]):
        assert all(operand < k for operand in node["operands"])


def test_each_visit_adds_the_derivative_times_the_gradient(tmp_path):
    data = explored(labelled(), tmp_path)
    for k, (node, given) in enumerate(data["visits"]):
        before = gradients(data, k)
        assert sorted(operand for operand, *_ in given) == sorted(set(data["nodes"][node]["operands"]))
        for operand, after, slope in given:
            assert math.isclose(before[operand] + float(slope) * before[node], float(after), rel_tol=1e-12)


def test_layers_have_the_gradients_of_backward(tmp_path):
    random.seed(1)
    model = MLP(3, [4, 4, 2], activation="tanh")
    with flatgrad.detect_anomaly():
        loss = flatgrad.softmax(model([1.0, -2.0, 0.5]))[0].log()
        data = explored(loss, tmp_path, names=model)
    named = {node["name"]: gradient for node, gradient in zip(data["nodes"], gradients(data))}
    assert all(p.grad == 0.0 for p in model.parameters())
    loss.backward()
    assert all(math.isclose(named[name], p.grad, rel_tol=1e-12) for name, p in model.named_parameters())
    kinds = {node["name"]: node["kind"] for node in data["nodes"]}
    assert kinds["layers.0.weight[1, 2]"] == "weight" and kinds["layers.2.bias[0]"] == "bias"
    assert sorted(set(kinds.values())) == ["between", "bias", "input", "result", "weight"]


def test_rules_of_users(tmp_path):
    x, side = Value(3.0, label="x"), Value(1.0)
    square = Value(9.0, (x,), "square")

    def rule():
        x.grad += 6.0 * square.grad
        side.grad += 1.0
    square._backward = rule
    root = square * x
    x.grad, side.grad = 5.0, 7.0
    data = explored(root, tmp_path)
    assert (x.grad, side.grad, square.grad, root.grad) == (5.0, 7.0, 0.0, 0.0)
    assert gradients(data)[data["nodes"].index(next(n for n in data["nodes"] if n["name"] == "x"))] == 27.0
    assert [given for _, given in data["visits"]][1][0][2] is None   # no derivative is known

    @flatgrad.custom_derivative
    def cube(x):
        return x**3
    cube.defvjp(lambda x: (cube(x), x), lambda x, g: (3.0 * x * x * g,))
    data = explored(cube(x) * 2.0, tmp_path)
    assert 54.0 in gradients(data)


def test_a_rule_that_fails_leaves_gradients_and_file(tmp_path):
    x = Value(3.0)
    y = Value(9.0, (x,), "mine")
    y._backward = lambda: 1 / 0
    x.grad = 2.0
    path = tmp_path / "graph.html"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        viz.explore(y * 2.0, path)
    assert x.grad == 2.0 and path.read_text() == "old"


def test_special_numbers(tmp_path):
    x, y = Value(math.inf, label="x"), Value(0.0, label="y")
    data = explored(x * y, tmp_path)
    assert [node["data"] for node in data["nodes"]] == ["inf", "0.0", "nan"]
    assert [after for _, after, _ in data["visits"][0][1]] == ["0.0", "inf"]


def test_constants_and_what_is_stopped_get_nothing(tmp_path):
    x = Value(2.0, label="x")
    data = explored(flatgrad.stop_gradient(x * 3.0) * x, tmp_path)
    total = dict(zip([node["name"] for node in data["nodes"]], gradients(data)))
    root = flatgrad.stop_gradient(x * 3.0) * x
    root.backward()
    assert total["x"] == x.grad == 6.0


def test_one_leaf_and_deep_graphs(tmp_path):
    data = explored(Value(1.5), tmp_path)
    assert len(data["nodes"]) == 1 and data["visits"] == [] and data["edges"] == []
    a = value = Value(1.0)
    for _ in range(600):
        value = value + a
    data = explored(value, tmp_path)
    assert len(data["visits"]) == 600 and gradients(data)[0] == 601.0


# ---- lines and names ----

def test_lines_of_code(tmp_path):
    a = Value(2.0, label="a")
    before = a * 3.0
    with flatgrad.detect_anomaly():
        inside = before + a   # this line
        data = explored(inside, tmp_path)
    assert [node["where"] and node["where"][3] for node in data["nodes"]][-2:] == [
        None, "inside = before + a   # this line"]
    file, number, function, _ = data["nodes"][-1]["where"]
    assert (file, function) == ("test_explore.py", "test_lines_of_code") and number > 100
    assert all(node["where"] is None for node in explored(inside, tmp_path)["nodes"])   # the block has ended


def test_names_of_tensors_and_labels(tmp_path):
    W, x = Tensor([[1.0, 2.0], [3.0, 4.0]]), Value(2.0, label="mine")
    root = W.sum() * x
    data = explored(root, tmp_path, names={"W": W, "other": x, "total": root})
    names = [node["name"] for node in data["nodes"]]
    assert names[:5] == ["W[0, 0]", "W[0, 1]", "W[1, 0]", "W[1, 1]", "mine"] and names[-1] == "total"
    assert explored(root, tmp_path)["nodes"][0]["name"] == "v1"


# ---- the page ----

HOSTILE = "</script><script>alert(1)</script><!-- & \"'\u2028\udc80\x00"


def test_labels_do_not_leave_their_place(tmp_path):
    a = Value(2.0, label=HOSTILE)
    root = Value(4.0, (a,), HOSTILE)
    root.label = HOSTILE
    data = explored(root, tmp_path)
    shown = HOSTILE[:-3] + r"\u2028\udc80\x00"
    assert [node["name"] for node in data["nodes"]] == [shown] * 2 and data["nodes"][1]["op"] == shown
    page = (tmp_path / "graph.html").read_text("utf-8")
    assert page.count("<script") == page.count("</script>") == 2 and "alert(1)</script>" not in page
    assert "<title>&lt;/script&gt;" in page


def test_the_page_needs_nothing_else(tmp_path):
    explored(labelled(), tmp_path)
    page = (tmp_path / "graph.html").read_text("utf-8")
    addresses = set(re.findall(r"\w+://[^\"'\s)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}   # a name, not an address
    assert not re.search(r"\bsrc=|<link|@import|\burl\(|fetch\(|\bimport\b|XMLHttp", page)
    assert "@DATA@" not in page and "@TITLE@" not in page


@pytest.mark.parametrize("arguments, error, message", [
    (dict(root=1.5), TypeError, "root: expected a Value, got 1.5"),
    (dict(root=[Value(1.0)]), TypeError, "root: expected a Value, got ["),
    (dict(limit=0), ValueError, "limit: expected an int, 1 or more, got 0"),
    (dict(limit=True), TypeError, "limit: expected an int, 1 or more, got True"),
    (dict(limit=4), ValueError, "root: a graph of 33 values is more than limit=4: draw one of the values that it is "
                                "made of, or raise limit"),
    (dict(path=3), TypeError, "path: expected a str or path-like object, got 3"),
    (dict(path=""), ValueError, "path: expected the path of a file, got ''"),
    (dict(names=3), TypeError, "names: expected None, a Module, or a dict of names and Values or Tensors, got 3"),
    (dict(names={"a": 1.0}), TypeError, "names['a']: expected a Value or a Tensor, got 1.0"),
    (dict(names=MLP), TypeError, "names: expected None, a Module, or a dict"),
])
def test_refusals(arguments, error, message, tmp_path):
    path = tmp_path / "graph.html"
    path.write_text("old")
    with pytest.raises(error) as info:
        viz.explore(**{"root": labelled(), "path": path, **arguments})
    assert str(info.value).startswith(message) and path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["graph.html"]


# ---- the layout ----

def test_cards_do_not_overlap_and_edges_go_right(tmp_path):
    for seed in range(10):
        data = explored(random_graph(Value, random.Random(seed))[-1], tmp_path)
        boxes = [(n["x"] - n["width"] / 2, n["y"] - n["height"] / 2, n["x"] + n["width"] / 2, n["y"] + n["height"] / 2)
                 for n in data["nodes"]]
        for k, a in enumerate(boxes):
            assert a[0] > -0.2 and a[1] > -0.2 and a[2] < data["width"] + 0.2 and a[3] < data["height"] + 0.2
            assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:k])
        for edge in data["edges"]:
            numbers = [float(x) for x in re.findall(r"-?\d+\.\d", edge["path"])]
            assert numbers[0::2] == sorted(numbers[0::2])
            assert abs(numbers[0] - boxes[edge["from"]][2]) < 0.2 and abs(numbers[-2] - boxes[edge["to"]][0]) < 0.2


def test_heights_are_the_nearest_that_leave_room():
    assert apart([0.0, 0.0, 10.0], [2.0, 2.0]) == [-1.0, 1.0, 10.0]
    assert apart([5.0], []) == [5.0] and apart([0.0, 9.0], [4.0]) == [0.0, 9.0]
    assert Layout([], []).width == 0.0


def test_a_large_layer_is_not_a_tower(tmp_path):
    data = explored(MLP(16, [16])([float(k) for k in range(16)])[0] * 1.0, tmp_path)
    assert data["height"] < 40 * 60 and data["height"] < 8 * data["width"]


# ---- in a browser ----

class Shapes(HTMLParser):
    """The attributes of the nodes, the body's, and the text of the elements with an id."""

    def __init__(self, page):
        super().__init__()
        self.nodes, self.body, self.texts, self.open = {}, {}, {}, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "data-node" in attributes:
            self.nodes[int(attributes["data-node"])] = attributes
        if tag == "body":
            self.body = attributes
        if attributes.get("id") in ("story", "hits", "about", "count"):
            self.open = attributes["id"]

    def handle_endtag(self, tag):
        if tag in ("section", "span") and self.open:
            self.open = None if tag == "section" or self.open in ("hits", "count") else self.open

    def handle_data(self, text):
        if self.open:
            self.texts[self.open] = self.texts.get(self.open, "") + text + " "


def browsed(path, address, tmp_path, script=""):
    """The page in a browser, after a script of ours has run."""
    if script:
        page = path.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>")
        path = tmp_path / "scripted.html"
        path.write_text(page, "utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
         "--window-size=1200,800", "--virtual-time-budget=1000", "--dump-dom", f"{path.as_uri()}#{address}"],
        capture_output=True, text=True, timeout=300, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-500:]
    return Shapes(done.stdout)


@needs_browser
@pytest.mark.slow
def test_steps_in_a_browser(tmp_path):
    data = explored(labelled(), tmp_path)
    path, made = tmp_path / "graph.html", sum(1 for node in data["nodes"] if node["operands"])
    for step in (0, 1, made, made + 1, made + 2, made + 7, "last"):
        page = browsed(path, f"step={step}", tmp_path)
        at = made + 1 + len(data["visits"]) if step == "last" else step
        assert page.body["data-step"] == str(at) and len(page.nodes) == len(data["nodes"])
        expected = gradients(data, at - made - 1) if at > made else [0.0] * len(data["nodes"])
        assert [float(page.nodes[k]["data-grad"]) for k in range(len(expected))] == expected
        computed = [k for k, node in enumerate(data["nodes"]) if node["operands"]][:at]
        for k, node in enumerate(data["nodes"]):
            known = not node["operands"] or k in computed
            assert page.nodes[k]["data-value"] != "" if known else page.nodes[k]["data-value"] == ""
            assert ("ahead" in page.nodes[k]["class"]) is not known
            if known:
                assert float(page.nodes[k]["data-value"]) == float(node["data"])
        now = [k for k, node in page.nodes.items() if "now" in node["class"].split()]
        order = [data["root"], *[node for node, _ in data["visits"]]]
        assert now == ([] if at == 0 else [computed[-1]] if at <= made else [order[max(0, at - made - 1)]])
        marked = {k for k, node in page.nodes.items() if "marked" in node["class"].split()}
        visited = {node for node, _ in data["visits"][:max(0, at - made - 1)]}
        assert not marked & visited and (at != made + 1 or marked == {data["root"]})
    root, nodes = readme(micrograd.Value)
    root.backward()
    found = {node["name"]: float(page.nodes[k]["data-grad"]) for k, node in enumerate(data["nodes"])}
    assert all(found[name] == pytest.approx(value.grad, rel=1e-13) for name, value in nodes.items())


@needs_browser
@pytest.mark.slow
def test_buttons_search_and_hostile_labels_in_a_browser(tmp_path):
    a, b = Value(2.0, label=HOSTILE), Value(math.inf, label="<b>b</b>")
    with flatgrad.detect_anomaly():
        root = (a * 3.0).tanh() + a
        explored(root, tmp_path, names={"root": root})
    path = tmp_path / "graph.html"
    page = browsed(path, "", tmp_path, "for (const id of ['next', 'next', 'back', 'last', 'back'])"
                                       " document.getElementById(id).click()")
    assert page.body["data-step"] == "6" and "Backward, 2 of 3" in page.texts["story"]   # 3 forward, 1, 3 backward
    assert "root = (a * 3.0).tanh() + a" in browsed(path, "step=3", tmp_path).texts["story"]
    page = browsed(path, "search=tanh", tmp_path)
    assert page.texts["hits"].strip().startswith("1 of") and "tanh" in page.texts["about"]
    assert browsed(path, "search=nowhere", tmp_path).texts["hits"].strip() == "none"
    explored(b * 0.0, tmp_path)
    page = browsed(path, "step=last", tmp_path)
    assert [page.nodes[k]["data-value"] for k in range(3)] == ["inf", "0", "nan"]
    assert "<b>b</b>" in page.texts["story"]


MOVED = """
const at = () => document.getElementById("view").getAttribute("transform"), graph = document.getElementById("graph");
const seen = [at()], note = () => seen.push(at());
graph.dispatchEvent(new WheelEvent("wheel", {deltaY: -200, clientX: 300, clientY: 300, cancelable: true})); note();
document.getElementById("less").click(); note();
graph.dispatchEvent(new PointerEvent("pointerdown", {pointerId: 1, clientX: 100, clientY: 100, bubbles: true}));
window.dispatchEvent(new PointerEvent("pointermove", {pointerId: 1, clientX: 140, clientY: 110}));
window.dispatchEvent(new PointerEvent("pointerup", {pointerId: 1})); note();
document.getElementById("fit").click(); note();
document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
const card = document.querySelector("[data-node='1'] .card");
card.dispatchEvent(new PointerEvent("pointerdown", {pointerId: 2, bubbles: true}));
card.dispatchEvent(new PointerEvent("pointerup", {pointerId: 2, bubbles: true}));
card.dispatchEvent(new MouseEvent("click", {bubbles: true}));
document.getElementById("theme").click();
document.body.dataset.seen = seen.join(";");
document.body.dataset.theme = document.documentElement.dataset.theme;
"""


@needs_browser
@pytest.mark.slow
def test_zoom_drag_keys_and_clicks_in_a_browser(tmp_path):
    explored(labelled(), tmp_path)
    page = browsed(tmp_path / "graph.html", "theme=light", tmp_path, MOVED)
    seen = [[float(x) for x in re.findall(r"-?[\d.]+(?:e-?\d+)?", text)] for text in page.body["data-seen"].split(";")]
    (_, _, first), (_, _, wheel), (x, y, less), (moved_x, moved_y, same), (_, _, fitted) = seen
    assert wheel > first and less < wheel and same == less and fitted < first
    assert (round(moved_x - x), round(moved_y - y)) == (40, 10)
    assert page.body["data-step"] == "1" and page.body["data-theme"] == "dark"
    assert "selected" in page.nodes[1]["class"].split() and "The selected node" in page.texts["about"]
