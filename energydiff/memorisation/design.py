"""What a study trains: sizes, seeds and halves."""

from dataclasses import dataclass

from energydiff.errors import UserError


@dataclass(frozen=True)
class Run:
    """One training: the first ``images`` after ``skip`` in the order of ``seed``."""

    images: int
    seed: int
    skip: int = 0

    @property
    def name(self) -> str:
        return f"{self.images}_seed{self.seed}" + (f"_skip{self.skip}" if self.skip else "")


@dataclass(frozen=True)
class Design:
    """What a study trains.

    Args:
        sizes: Numbers of training images, K.
        seeds: Of the subsets, the noise and the weights: a training of every size each.
        halves: Sizes at which two models learn disjoint subsets of the first seed's order.
        watch: Images seen at which every training looks at itself; none without.
        watched: Samples of such a look.
    """

    sizes: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    halves: tuple[int, ...] = ()
    watch: tuple[int, ...] = ()
    watched: int = 256

    def __post_init__(self) -> None:
        if not self.sizes or not self.seeds or min(*self.sizes, *self.halves, 10**9) < 1:
            raise UserError("a study needs sizes of at least 1, and a seed.")
        for name in ("sizes", "seeds", "halves"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise UserError(f"{name} {list(given)} names one twice: name each once.")

    def main(self) -> list[Run]:
        """The runs whose shares are counted, the smallest first."""
        return [Run(size, seed) for size in sorted(self.sizes) for seed in self.seeds]

    def pairs(self) -> list[tuple[Run, Run]]:
        """The runs on disjoint halves."""
        seed = self.seeds[0]
        return [(Run(size, seed), Run(size, seed, size)) for size in sorted(self.halves)]

    def runs(self) -> list[Run]:
        """All, each once."""
        return list(dict.fromkeys([*self.main(), *(run for pair in self.pairs() for run in pair)]))

    def require(self, images: int) -> None:
        """``UserError`` where a subset would need more images than there are."""
        for run in self.runs():
            if run.images + run.skip > images:
                what = "two halves of" if run.skip else "a size of"
                raise UserError(
                    f"the study asks for {what} {run.images:,} images, and there are {images:,} to"
                    " train on: leave that size out."
                )
