"""Runs programs that are not Python: compilers, what they made, emulators."""
import os
import subprocess


def other(*command, **options):
    """The command, ended, with its output; without the sanitizer that watches this process, which watches and talks in
    each process that inherits it."""
    return subprocess.run(list(map(str, command)), capture_output=True, text=True,
                          env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}, **options)


def run(*command, **options):
    """The output of a command that succeeds."""
    made = other(*command, **options)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout
