"""Films of a training: what their pictures show, against the model asked point by point; pages and GIFs as readers of
their formats, and a browser if there is one, see them."""
import base64
import io
import json
import math
import random
import re
import shutil
import subprocess

import numpy as np
import pytest

from flatgrad import Value
from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError
from flatgrad.nn import MLP, Dropout, Linear, Sequential
from flatgrad.optim import SGD
from flatgrad.train import Trainer
from flatgrad.viz import Film
from flatgrad.viz.film import palette_of, png, shades_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
X, Y = [[0.0, 0.0], [2.0, 1.0], [2.0, 0.0]], [0, 1, 0]


def right_of(x):
    return lambda points: points[:, 0] - x


def page_of(film, tmp_path):
    with open(film.save(tmp_path / "film.html"), encoding="utf-8") as file:
        text = file.read()
    return text, json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_pictures_are_what_the_model_says():
    film = Film(X, Y, resolution=7)
    for k in range(3):
        film.add(right_of(k / 2), loss=1.0 / (k + 1))
    assert film.steps == [0, 1, 2] and film.losses == [(0, 1.0), (1, 0.5), (2, 1.0 / 3)]
    xs = np.linspace(-0.3, 2.3, 7)
    for k, (codes, share) in enumerate(film._pictures):
        expected = np.tile(xs > k / 2, (7, 1))
        assert (codes // shades_of(2) == expected).all()
        assert share == np.mean([(x > k / 2) == label for (x, _), label in zip(X, Y)])
    assert repr(film) == "<film of 3 pictures>"


def test_rows_go_up_and_shades_grow_with_the_probability():
    film = Film(X, Y, resolution=5, confidence="logits")
    film.add(lambda points: 8.0 * points[:, 1] - 4.0)
    codes = film._pictures[0][0]
    ys = np.linspace(-0.15, 1.15, 5)
    probability = 1.0 / (1.0 + np.exp(4.0 - 8.0 * ys))
    certainty = 2.0 * np.maximum(probability, 1.0 - probability) - 1.0
    expected = (ys > 0.5) * shades_of(2) + np.minimum((certainty * shades_of(2)).astype(int), shades_of(2) - 1)
    assert (codes == expected[:, None]).all()


def test_a_trainer_makes_a_film_and_nothing_else_changes():
    samples, labels = make_moons(40, random_state=1)
    runs = []
    for film in (None, Film(samples, labels, every=4, resolution=10)):
        random.seed(1)
        model = Sequential(Linear(2, 4), Dropout(0.5, rng=0), Linear(4, 1))
        trainer = Trainer(model, SGD(model.parameters(), lr=0.1), "bce_with_logits")
        for epochs in (6, 4):
            trainer.fit(samples, labels, epochs, progress=False, callbacks=[film] if film else [])
        runs.append([trainer.history.loss, [p.data for p in model.parameters()]])
    assert runs[0] == runs[1]
    assert film.steps == [0, 4, 6, 10]   # the last epoch of each fit has a picture
    assert film.losses == list(enumerate(runs[0][0], 1))
    model.eval()
    said = np.array([model(row).data > 0 for row in film._points.tolist()]).reshape(10, 10)
    assert (film._pictures[-1][0] // shades_of(2) == said).all()


def test_a_long_training_keeps_every_second_picture():
    film = Film(X, Y, most=4, resolution=3)
    for k in range(100):
        film.add(right_of(k / 50), Value(k))
    assert film.every == 32 and film.steps == [0, 32, 64, 96] and len(film._pictures) == 4
    assert film.losses == [(k, float(k)) for k in range(100)]


@pytest.mark.parametrize("count", [1, 2, 10, 11, 200, 256])
def test_a_png_is_read_back(count):
    Image = pytest.importorskip("PIL.Image")
    palette = palette_of(count)
    assert len(palette) == count * shades_of(count) <= 256
    assert len({tuple(colour) for colour in palette.round()}) == len(palette) or count > 100
    codes = np.random.default_rng(0).integers(0, len(palette), (5, 9)).astype(np.uint8)
    with Image.open(io.BytesIO(png(codes, palette))) as image:
        image.load()
        assert image.size == (9, 5)
        assert (np.asarray(image.convert("RGB")) == palette.round()[codes]).all()


def test_the_page_has_what_the_film_has(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    film = Film(X, ["</script>", "b", "</script>"], resolution=6, feature_names=["<i>", "up"])
    film.add(right_of(1.0), loss=0.5)
    film.add(lambda points: points[:, 1] - 0.4, loss=math.nan)
    text, data = page_of(film, tmp_path)
    assert text.count("</script>") == 2 and "<i>" not in text and "//" not in text.replace("http://www.w3.org/", "").replace(
        "// ", "")   # nothing is loaded
    assert data["names"] == ["</script>", "b"] and data["axes"] == ["<i>", "up"] and data["unit"] == "step"
    assert data["losses"] == [[0, 0.5], [1, None]] and data["samples"] == [[0, 0, 0], [2, 1, 1], [2, 0, 0]]
    for picture, (codes, share) in zip(data["pictures"], film._pictures):
        assert picture["right"] == share
        with Image.open(io.BytesIO(base64.b64decode(picture["image"]))) as image:
            found = np.asarray(image.convert("RGB"))
        assert (found == palette_of(2).round()[codes[::-1]]).all()   # above is where the second feature is large
    assert film._repr_html_().startswith("<iframe srcdoc=") and Film(X, Y)._repr_html_() is None


def test_a_gif_has_a_frame_for_each_picture(tmp_path):
    pytest.importorskip("matplotlib")
    Image = pytest.importorskip("PIL.Image")
    film = Film(X, Y, resolution=8)
    for k, loss in enumerate([100.0, 1.0, math.inf]):
        film.add(right_of(k), loss)
    with Image.open(film.save(tmp_path / "film.gif", fps=5)) as image:
        assert image.n_frames == 3 and image.info["duration"] == 200 and image.info["loop"] == 0
        frames = []
        for k in range(3):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGB"), float))
    # Between two frames, what was on the right of the old boundary and is on the left of the new one gets redder.
    redder = [(b - a)[:, :, 0].clip(0).sum() > 10 * (a - b)[:, 60:380, 0].clip(0).sum() for a, b in zip(frames, frames[1:])]
    assert redder == [True, True]


@pytest.mark.parametrize("options, message", [
    (dict(every=0), "every: expected an int, 1 or more, got 0"), (dict(most=1), "most: expected an int, 2 or more, got 1"),
    (dict(resolution=1.5), "resolution: expected an int, 2 or more, got 1.5"),
    (dict(confidence="logit"), "confidence: expected one of 'logits', 'probabilities', got 'logit'; did you mean 'logits'?"),
    (dict(features=(0, 2)), "features: expected two different numbers from 0 to 1, got (0, 2)"),
    (dict(X=[[0.0]] * 3), "X: expected 2 features at least, got the shape (3, 1)"),
    (dict(y=[0]), "y: expected the shape (3,), one for each row of X, got (1,)"),
])
def test_a_film_refuses(options, message):
    with pytest.raises((TypeError, ValueError)) as info:
        Film(**{"X": X, "y": Y, **options})
    assert str(info.value) == message


def test_what_is_refused_leaves_the_film_as_it_was(tmp_path):
    film = Film(X, Y, resolution=3)
    path = tmp_path / "film.html"
    with pytest.raises(DataError, match=r"^save\(\): expected one picture at least, got none"):
        film.save(path)
    film.add(right_of(1.0), 1.0, step=5)
    for arguments, error, message in [
            ((right_of(1.0), 1.0, 5), ArgumentError, "step: expected a number above 5, of the last step, got 5"),
            ((right_of(1.0), "1"), ArgumentTypeError, "loss: expected a number, got '1'"),
            ((3, 1.0), ArgumentTypeError, "model: expected a function of points"),
            ((lambda points: points[:, 0] * math.nan, 1.0), DataError, "model: expected finite numbers, got nan"),
            ((lambda points: np.tile([0.0, 1.0, 2.0], (len(points), 1)), 1.0), DataError,
             "model: expected the classes of the first picture, 0, 1, got 0, 1, 2")]:
        with pytest.raises(error, match="^" + re.escape(message)):
            film.add(*arguments)
        assert film.steps == [5] and film.losses == [(5, 1.0)]
    film.add(right_of(1.0))
    assert film.steps == [5, 6]
    for arguments, message in [({"path": tmp_path / "film.mp4"}, "path: expected a file that ends in '.html' or '.gif'"),
                               ({"path": path, "fps": 0}, "fps: expected a number from 0.1 to 100, got 0")]:
        with pytest.raises(ArgumentError, match="^" + re.escape(message)):
            film.save(**arguments)
    assert not path.exists()
    with pytest.raises(ArgumentError, match="^y: expected at most 256 classes in a film, got 257"):
        Film(np.zeros((257, 2)), np.arange(257), resolution=3).add(lambda points: np.eye(257)[np.zeros(len(points), int)])


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.slow
def test_steps_in_a_browser(tmp_path):
    random.seed(1)
    model, film = MLP(2, [3, 1]), Film(X, Y, resolution=4)
    for k in range(4):
        film.add(model, loss=[1.0, math.nan, 0.001, 0.5][k])
        for p in model.parameters():
            p.data += 0.25
    _, data = page_of(film, tmp_path)
    for address, script, step in (("", "", 0), ("step=2", "", 2), ("step=last", "", 3), ("step=99", "", 3),
                                  ("", "document.getElementById('next').click()", 1),
                                  ("step=3", "document.getElementById('back').click()", 2),
                                  ("", "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}))", 3)):
        page = tmp_path / "scripted.html"
        page.write_text((tmp_path / "film.html").read_text("utf-8").replace(
            "</body>", f"<script>{script}</script></body>"), "utf-8")
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
             "--virtual-time-budget=1000", "--dump-dom", f"{page.as_uri()}#{address}"],
            capture_output=True, text=True, timeout=300, encoding="utf-8")
        assert f'data-step="{step}"' in done.stdout
        assert re.search(r'href="data:image/png;base64,([^"]*)"', done.stdout)[1] == data["pictures"][step]["image"]
        told = re.search(r'id="told"[^>]*>([^<]*)<', done.stdout)[1]
        loss = data["losses"][step][1]
        right = f"{100 * data['pictures'][step]['right']:.1f} % right"
        assert told.split("   ") == [f"step {step}", *([] if loss is None else [f"loss {loss:#.4g}"]), right]
