"""Many samples of a model, on one device or several."""

from energydiff.drawing.draw import Drawing, draw_features, draw_samples, draw_to_first_rank

__all__ = ["Drawing", "draw_features", "draw_samples", "draw_to_first_rank"]
