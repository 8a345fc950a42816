"""What a comparison of two models says: plain records that go to JSON and come back.

Every number stands beside what it depends on. Two results whose :class:`Provenance` differs are
numbers on different scales, and refuse to be set against each other.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from energydiff.errors import UserError
from energydiff.sampling import Certificate

Verdict = Literal["better", "worse", "not separable"]
INCEPTION = "inception-v3-compat"
NO_RULE = "none, or the earlier rule"
BY_NUMBER, SHUFFLED = "by number", "shuffled by the seed and the names of the images"
PUBLISHED_DIGITS = "6726825d"  # of its weights' SHA-256, in the name of the published file


@dataclass(frozen=True)
class Provenance:
    """What a quality depends on beside the model.

    Attributes:
        data: the data set, as its configuration names it.
        reference: SHA-256 of the reference images, and ``reference_count`` how many they are.
        extractor: its name, ``extractor_hash`` the SHA-256 of its weights.
        resize: how images reach the extractor's size, in words.
        quantisation: how model coordinates became uint8.
        samples: n. ``blocks``: disjoint blocks of seeds they were drawn in.
        seed: samples are numbers 0 to n − 1 of this seed; it also shuffles a folder's images.
        sampler, steps, sigma_min, sigma_max: how they were drawn.
        weights: ``exponential moving average``, or ``images of a folder``.
        versions: of energydiff, torch and torch-fidelity.
        order: of the samples before n are taken and fall into blocks; earlier results took the
            images of a folder by number.
        noise: the rule by which samples' noise was drawn.
    """

    data: str
    reference: str
    reference_count: int
    extractor: str
    extractor_hash: str
    resize: str
    quantisation: str
    samples: int
    blocks: int
    seed: int
    sampler: str
    steps: int
    sigma_min: float
    sigma_max: float
    weights: str
    versions: dict[str, str]
    order: str = BY_NUMBER
    noise: str = NO_RULE

    @property
    def makes_fid(self) -> bool:
        """Whether the Fréchet distance is the published FID."""
        return makes_fid(self.extractor, self.extractor_hash)

    def require_same(self, other: Self) -> None:
        """``UserError`` naming the first thing in which two results differ."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                raise UserError(
                    f"these results cannot be compared: their {field.name} differs"
                    f" ({mine} and {theirs})."
                )


def makes_fid(extractor: str, digest: str) -> bool:
    """Whether features are Inception's on its published weights: no others make a FID."""
    return extractor == INCEPTION and digest.startswith(PUBLISHED_DIGITS)


@dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Of A when this is the interval of A − B of something whose less is better."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "not separable"


@dataclass(frozen=True)
class Quality:
    """Of one set of samples against a reference.

    Attributes:
        frechet: Fréchet distance; the published FID only on ``inception-v3-compat``.
        frechet_infinity: extrapolated to infinitely many samples (Chong & Forsyth 2020).
        kid: unbiased kernel distance.
        inception_score: ``None`` where the extractor has no classes.
        precision, recall: of Kynkäänniemi et al. 2019.
    """

    frechet: float
    frechet_infinity: float
    kid: float
    inception_score: float | None
    precision: float
    recall: float


@dataclass(frozen=True)
class Floor:
    """Real images beside samples, at one number of both: the distance is biased in it.

    The images are of the part that is not the reference.

    Attributes:
        count: of these images, and of samples.
        held_out, samples: their Fréchet distances to the reference.
        part: what these images are: held-out, or training where the held-out ones are the
            reference.
    """

    count: int
    held_out: float
    samples: float
    part: Literal["held-out", "training"] = "held-out"


@dataclass(frozen=True)
class Result:
    """Quality of one model's samples, or of a folder of images.

    Attributes:
        name: the path it was measured at.
        quality: of all n samples; ``block_frechet`` the distance of each block of seeds.
        floor: what real images would get at a number that the held-out part has.
    """

    name: str
    quality: Quality
    block_frechet: list[float]
    floor: Floor
    provenance: Provenance

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``; see :func:`from_plain`."""
        found: Self = from_plain(cls, known)
        return found


@dataclass(frozen=True)
class Cost:
    """Of one sample.

    Attributes:
        nfe: evaluations of the model.
        forward_equivalents: operations in units of one forward pass of B's network; NaN where that
            has none that are counted (a mixture in closed form).
        seconds: on the machine at hand, without recording.
    """

    nfe: int
    forward_equivalents: float
    seconds: float


@dataclass(frozen=True)
class CurvePoint:
    """Quality at one number of steps, on one block of samples."""

    steps: int
    cost: Cost
    frechet: float


@dataclass(frozen=True)
class Nearest:
    """Median distance to the nearest training image, RMS per pixel in model coordinates."""

    samples: float
    held_out: float


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: one model, or several that differ in their training seed.

    Attributes:
        name: for tables. ``runs``: the paths of the models.
        kind: ``energy`` or ``baseline``.
        quality: on all n samples, the mean over runs.
        block_frechet: Fréchet distance of each block of seeds, (runs, blocks).
        cost, curve: of the first run.
        asymmetry: |J − Jᵀ|/|J + Jᵀ| of the denoiser's Jacobian; ``None`` of large images.
        nearest: of samples of the first run.
        certificate: of samples of the first run.
        bits_per_dim: of held-out images by the energy; ``None`` without one.
    """

    name: str
    runs: list[str]
    kind: Literal["energy", "baseline"]
    quality: Quality
    block_frechet: list[list[float]]
    cost: Cost
    curve: list[CurvePoint]
    asymmetry: float | None
    nearest: Nearest
    certificate: Certificate | None
    bits_per_dim: float | None


@dataclass(frozen=True)
class Controls:
    """What tells whether the procedure could have seen a difference at this n.

    Attributes:
        same: A against A with other seeds: must contain 0.
        degraded: A with a known degradation against A: must lie above 0.
        degradation: which one, in words.
        floor: what real images get beside A, at one number.
    """

    same: Interval
    degraded: Interval
    degradation: str
    floor: Floor

    def failures(self) -> list[str]:
        """What they say against the procedure, a sentence each."""
        found = []
        if self.same.verdict != "not separable":
            found.append("A differs from itself under other seeds: the intervals are too narrow.")
        if self.degraded.verdict == "better":
            d = self.degraded
            found.append(
                f"The known degradation ({self.degradation}) lowered the distance"
                f" ({d.mean:.3g} [{d.low:.3g}, {d.high:.3g}]): A's samples are so noisy that"
                " smoothing brings them nearer to the data: too noisy to judge by this distance."
            )
        elif self.degraded.verdict != "worse":
            found.append(
                f"The known degradation ({self.degradation}) was not seen: at this n no smaller"
                " difference can be."
            )
        return found


@dataclass(frozen=True)
class Matched:
    """B's Fréchet distance at A's cost, read off B's curve; ``None`` outside the curve."""

    nfe: float | None
    forward_equivalents: float | None
    seconds: float | None


@dataclass(frozen=True)
class Comparison:
    """A against B.

    Attributes:
        frechet, kid: intervals of A − B; less is better. Over training seeds where there are
            several, else over blocks of seeds.
        over: what the interval of ``frechet`` is taken over.
        matched: B at A's cost; A's own distance on one block is ``matched_frechet``.
    """

    a: Arm
    b: Arm
    frechet: Interval
    kid: Interval
    over: Literal["training seeds", "blocks of seeds"]
    matched: Matched
    matched_frechet: float
    controls: Controls | None
    provenance: Provenance

    @property
    def verdict(self) -> Verdict:
        """Whether A is better than B, by the Fréchet distance."""
        return self.frechet.verdict

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"verdict": self.verdict}

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`; see :func:`from_plain`."""
        parts = {name: value for name, value in known.items() if name != "verdict"}
        found: Self = from_plain(cls, parts)
        return found


def from_plain(kind: Any, value: Any) -> Any:
    """A value of a type, as of a record's field, from what JSON has kept of it.

    JSON has no NaN: null where a number must be is one.

    Raises:
        TypeError, LookupError: a part is missing, unknown or of another kind.
    """
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return None if value is None else from_plain(parts[0], value)
    if get_origin(kind) is list:
        return [from_plain(parts[0], item) for item in value]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    return math.nan if kind is float and value is None else value
