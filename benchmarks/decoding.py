"""What it costs to get a small image out of a large JPEG: in full, in draft mode, and of a shard.

    python -m benchmarks.decoding [--image_size 64] [--repeats 15]

scikit-learn's photographs, as they are and enlarged, saved as JPEG of quality 92. Processor time
of one thread in turn, as the median of ratios to full decoding; and how far draft mode's pixels lie
from those of full decoding, in levels of 0 to 255.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from PIL import Image
from rich.console import Console
from rich.table import Table

from energydiff.data.decode import decode_image

PHOTOGRAPHS = sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))


def encoded(image: Image.Image, kind: str) -> bytes:
    image.save(file := io.BytesIO(), kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file.getvalue()


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    size = options.image_size
    table = Table(title=f"to {size} × {size} pixels")
    for column in ("JPEG", "full ms", "of it draft", "of it shard", "mean error", "largest"):
        table.add_column(column)
    for file in PHOTOGRAPHS:
        for factor in (1, 2, 4):
            with Image.open(file) as photograph:
                large = photograph.resize([factor * side for side in photograph.size])
            jpeg = encoded(large, "JPEG")
            full, draft = (decode_image(io.BytesIO(jpeg), 3, size, draft=d) for d in (False, True))
            png = encoded(Image.fromarray(full.transpose(1, 2, 0)), "PNG")
            works: list[Callable[[], object]] = [
                lambda jpeg=jpeg: decode_image(io.BytesIO(jpeg), 3, size),
                lambda jpeg=jpeg: decode_image(io.BytesIO(jpeg), 3, size, draft=True),
                lambda png=png: decode_image(io.BytesIO(png), None, None),
            ]
            times = np.array([[seconds(work) for work in works] for _ in range(options.repeats)])
            ratios = np.median(times[:, 1:] / times[:, :1], axis=0)
            error = np.abs(full.astype(int) - draft)
            table.add_row(
                f"{file.stem} {large.width} × {large.height}",
                f"{1e3 * np.median(times[:, 0]):.1f}",
                *(f"1 / {1 / ratio:.1f}" for ratio in ratios),
                f"{error.mean():.2f}",
                f"{error.max()}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
