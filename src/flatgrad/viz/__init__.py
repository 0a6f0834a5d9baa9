"""Pictures: of a model over the plane of two features, as text or with matplotlib; of how it was trained
and what it fits; and of the graph behind a Value, with Graphviz.

A model here is anything from points to scores or labels, and a graph is what `_children` says: nothing
knows nn. matplotlib and graphviz are the extra `viz`, imported by the functions that need them.
"""
from flatgrad.viz.boundary import decision_boundary_text, plot_decision_boundary
from flatgrad.viz.curves import plot_history, plot_regression
from flatgrad.viz.graph import draw_dot, value_mimebundle

__all__ = ["decision_boundary_text", "draw_dot", "plot_decision_boundary", "plot_history", "plot_regression",
           "value_mimebundle"]
