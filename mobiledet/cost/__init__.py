"""What a network costs, and the paper's cost tables beside our own figures."""

from mobiledet.cost.counting import Cost, LayerCost, classifier_cost, count_layers, detector_cost

__all__ = ["Cost", "LayerCost", "classifier_cost", "count_layers", "detector_cost"]
