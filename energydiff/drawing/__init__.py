"""Many samples of a model, on one device or several."""

from energydiff.drawing.draw import Drawing, draw_batches, draw_features, draw_samples

__all__ = ["Drawing", "draw_batches", "draw_features", "draw_samples"]
