"""A short form of tests/nomemory.py: every case of our own code, and some of its allocations."""
import nomemory
import pytest


def test_every_function_and_member_has_a_case():
    assert nomemory.missing() == []


def test_failing_allocations():
    pytest.importorskip("_testcapi")
    points, failed = nomemory.sweep([name for name in nomemory.CASES if name not in nomemory.FOREIGN], 4)
    assert failed == []
    assert points > 1000
