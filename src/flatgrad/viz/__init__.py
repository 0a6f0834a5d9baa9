"""Pictures with matplotlib, as text, or with Graphviz: of a model over the plane of two features, of its training, of
its fit to samples, and of the graph of a Value, which `explore` shows step by step, and of a
network as its layers.

A model here is any callable that takes points and returns scores or labels. A graph is given by `_children`. This
package does not use `flatgrad.nn`. matplotlib and graphviz are the extra `viz`; the functions that need them import
them.
"""
from flatgrad.viz.boundary import decision_boundary_text, plot_decision_boundary
from flatgrad.viz.curves import plot_history, plot_regression
from flatgrad.viz.diagnosis import ActivationStats, UpdateRatios, plot_confusion, plot_histograms
from flatgrad.viz.drawing import Picture, draw_network
from flatgrad.viz.explorer import explore
from flatgrad.viz.film import Film
from flatgrad.viz.graph import draw_dot, draw_svg, value_mimebundle
from flatgrad.viz.surface import LossSurface, loss_surface
from flatgrad.viz.weights import plot_weights

__all__ = ["ActivationStats", "Film", "LossSurface", "Picture", "UpdateRatios", "decision_boundary_text",
           "draw_dot", "draw_network", "draw_svg", "explore", "loss_surface", "plot_confusion",
           "plot_decision_boundary", "plot_histograms", "plot_history", "plot_regression", "plot_weights",
           "value_mimebundle"]
