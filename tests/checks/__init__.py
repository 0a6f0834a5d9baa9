"""Checks that run for as long as one likes, each a module: ``python tests/checks`` lists them."""
