"""Handwritten digits: scikit-learn's 1,797 pictures of 8 by 8 pixels, in mini-batches.

    python examples/digits.py

The network has a hidden layer of 32 neurons and a score for each digit. Training uses cross-entropy and Adam, on
batches of 32. A quarter of the pictures is kept for testing; the Trainer evaluates them after each epoch, without
training on them.

The script prints loss and accuracy of some epochs, the accuracy on the test pictures, which is at least 95 %, and one
of the test pictures with the network's answer. The script needs scikit-learn, which contains the data.
"""
import argparse
import random
import sys

from flatgrad.datasets import train_test_split
from flatgrad.nn import MLP
from flatgrad.optim import Adam
from flatgrad.train import Trainer

EPOCHS = 20


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        sys.exit(f"digits.py needs scikit-learn, for its data: {error}; to install it: pip install scikit-learn")
    X, y = load_digits(return_X_y=True)
    X = X / 16.0                            # brightness from 0 to 1
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    print(f"{len(X_train)} pictures to learn from, {len(X_test)} to test with")

    random.seed(0)
    model = MLP(64, [32, 10], init="he_uniform")
    trainer = Trainer(model, Adam(model.parameters(), lr=0.005), "cross_entropy", metrics=["accuracy"])
    history = trainer.fit(X_train, y_train, EPOCHS, batch_size=32, seed=0,
                          validation=(X_test, y_test), progress=False)
    for epoch in 1, 2, 5, 10, EPOCHS:
        print(f"epoch {epoch:2d}  loss {history.loss[epoch - 1]:.3f}  accuracy {history.accuracy[epoch - 1]:.1%}"
              f"  test accuracy {history.val_accuracy[epoch - 1]:.1%}")

    accuracy = trainer.evaluate(X_test, y_test)["accuracy"]
    print(f"test accuracy {accuracy:.1%}: {'at least' if accuracy >= 0.95 else 'below'} 95 %")
    for row in X_test[0].reshape(8, 8):
        print("".join(" .:-=+*#@"[round(8 * pixel)] * 2 for pixel in row).rstrip())
    print(f"this is a {y_test[0]}, the network says {trainer.predict_single(X_test[0]).argmax()}")


if __name__ == "__main__":
    main()
