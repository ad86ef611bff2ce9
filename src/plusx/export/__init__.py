"""From a model to a file that other programs run, preprocessing included."""

from plusx.export.targets import OPSET, TARGETS, Target, check_target

__all__ = ["OPSET", "TARGETS", "Target", "check_target"]
