#!/usr/bin/env bash
# A wheel for Pyodide (Python in the browser). NOT RUN: packaging/README.md says what is open.
# It needs `pip install pyodide-build`, and the Emscripten whose version `pyodide config get emscripten_version` names.
set -euo pipefail
cd "$(dirname "$0")/../.."
FLATGRAD_32BIT=1 pyodide build --outdir wheelhouse
