"""How many nodes are alive: what a test has to leave as it was."""
import gc

import flatgrad


def living():
    """Nodes on the tape that somebody needs, or that a cycle among Python's objects keeps."""
    flatgrad.collect()
    return flatgrad.stats()["nodes"]


def nodes():
    """Nodes that somebody needs."""
    gc.collect()
    return living()
