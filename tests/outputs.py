"""Whether a program prints what it printed before: numbers up to rounding, times not at all, the rest as it is."""
import re

SOME = re.compile(r"(?<!\S)\.\.\.(?!\S)")                  # ... between blanks
PICTURE = re.compile(r"\s*\|.*\|")                         # a row of a decision boundary
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
TIME = re.compile(r"(\d+(?:\.\d+)?)(?= (?:s|ms|us)\b)")    # never the same twice


def same_number(expected, got, percent):
    """A whole number exactly, or up to 1 if it is a percentage; others up to 1 %, or 2 in the last digit shown."""
    if ("." in expected) != ("." in got):
        return False
    if "." not in expected:
        return abs(int(expected) - int(got)) <= percent
    digits = len(expected.partition(".")[2])
    return abs(float(expected) - float(got)) <= max(2.001 * 10.0**-digits, 0.01 * abs(float(expected)))


def same_line(expected, got):
    if SOME.search(expected):
        pattern = r"\s*".join(".*" if SOME.fullmatch(word) else re.escape(word) for word in expected.split())
        return re.fullmatch(pattern, got) is not None
    if PICTURE.fullmatch(expected):
        return len(expected) == len(got) and sum(a != b for a, b in zip(expected, got)) <= 2
    expected, got = TIME.sub("time", expected), TIME.sub("time", got)
    if NUMBER.sub("#", expected).split() != NUMBER.sub("#", got).split():
        return False
    return all(same_number(a.group(), b.group(), percent=expected[a.end():a.end() + 1] == "%")
               for a, b in zip(NUMBER.finditer(expected), NUMBER.finditer(got)))


def same_output(expected, got):
    """Whether the lines are those of the README, where a line ... stands for any number of lines."""
    if not expected:
        return not got
    if expected[0] == "...":
        return any(same_output(expected[1:], got[k:]) for k in range(len(got) + 1))
    return bool(got) and same_line(expected[0], got[0]) and same_output(expected[1:], got[1:])
