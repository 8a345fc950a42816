"""Many samples of a model, on one device or several."""

from energydiff.drawing.draw import SampleRequest, draw_features, draw_samples, is_first_rank

__all__ = ["SampleRequest", "draw_features", "draw_samples", "is_first_rank"]
