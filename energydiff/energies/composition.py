"""Energies made of energies.

    Sum           E = Σ w_k E_k                      product of experts, p ∝ Π p_k^w_k
    Negation      E = −E_1                           as a term of a sum: samples are repelled
    Temperature   E = E_1/T                          p ∝ p_1^(1/T)
    Mixture       E = −log Σ w_k exp(−E_k)           p = Σ w_k p_k
    Guidance      E = (1+w) E(·, label) − w E(·)     p ∝ p(x) p(label | x)^(1+w)

Each acts at one noise level σ. Convolution with noise passes through a mixture, so the mixture of
true densities is one. It does not pass through a product or a power: those are no noised density of
anything, ODE sampling of them is approximate, and what is right is the density at fixed σ, which
``energydiff.sampling.SequentialMonteCarlo`` samples.

Source: Hinton 2002 (products of experts); Ho & Salimans 2022 (arXiv:2207.12598), eq. 6; Du et al.
2023 (arXiv:2302.11552).
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from energydiff.energies.base import Denoiser, Energy, per_sample
from energydiff.energies.noise_range import NoiseRange
from energydiff.errors import UserError

Weights = Sequence[float] | Tensor


class Composition(Energy):
    """E = f(E_1, …, E_K) with ∇E = Σ_k (∂f/∂E_k) ∇E_k. A subclass writes ``combine``.

    A label goes to the members that take labels, which must all have the same classes, unless each
    was given one of its own.

    Args:
        energies: the K members, energies of samples of one shape.
        weights: w_k, (K,).
        labels: class of each member for good, (K,), −1 where it is to be asked without.

    Raises:
        NoEnergyError: a member is an unconstrained denoiser.
    """

    def __init__(
        self,
        energies: Sequence[Denoiser],
        weights: Weights,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        members = [_energy(name, energy) for energy in energies]
        if not members:
            raise UserError(f"{name} needs at least one energy, got none.")
        self.weights = tuple(float(weight) for weight in weights)
        if len(self.weights) != len(members) or not all(map(math.isfinite, self.weights)):
            raise UserError(
                f"weights must be {len(members)} finite numbers, one per energy, got"
                f" {list(self.weights)}."
            )
        shapes = sorted({tuple(member.shape) for member in members})
        if len(shapes) > 1:
            raise UserError(f"{name} needs energies of samples of one shape, got {shapes}.")
        self.labels = None if labels is None else _own_labels(members, labels)
        classes = sorted({member.num_classes for member in members} - {0})
        if labels is not None:
            classes = []  # the caller has none to choose
        if len(classes) > 1:
            raise UserError(f"{name} needs labelled energies of the same classes, got {classes}.")
        self.shape = shapes[0]
        self.num_classes = max(classes, default=0)
        self.members = nn.ModuleList(members)
        self.noise = common_noise(name, members)
        pairs = zip(self.weights, members, strict=True)
        self.densities = sum(weight * member.densities for weight, member in pairs)

    @abstractmethod
    def combine(self, energies: Tensor) -> tuple[Tensor, Tensor]:
        """E (B,) and its slopes ∂E/∂E_k (K, B) from the members' E_k (K, B)."""

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        energies = [member(x, sigma, own) for member, own in self._labelled(x, label)]
        return self.combine(torch.stack(energies))[0]

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """From the members' own, each by its closed form where it has one."""
        parts = [member.value_and_grad(x, sigma, own) for member, own in self._labelled(x, label)]
        energy, slopes = self.combine(torch.stack([value for value, _ in parts]))
        terms = [per_sample(s, g) * g for s, (_, g) in zip(slopes, parts, strict=True)]
        return energy, torch.stack(terms).sum(0)

    def every(self, theorem: str) -> bool:
        """Whether each member has an attribute of :class:`Energy` that a theorem asks for, as each
        that is ``exact`` does."""
        return all(member.exact or getattr(member, theorem) for member in self.members)

    def _labelled(self, x: Tensor, label: Tensor | None) -> Iterator[tuple[Energy, Tensor | None]]:
        """Each member with the label it is to be given."""
        for index, member in enumerate(self.members):
            assert isinstance(member, Energy)
            if self.labels is not None:
                label = torch.full((len(x),), self.labels[index], device=x.device)
            yield member, label if member.num_classes else None

    def extra_repr(self) -> str:
        return f"weights={self.weights}"


class Sum(Composition):
    """E = Σ w_k E_k: the product of experts, p ∝ Π p_k^w_k.

    Its V is Σ w_k V_k, which with weights ≥ 0 rises with σ where every V_k does; where they add to
    1 at most, its denoiser is convex where every D_k is. A negative weight repels; p exists only if
    the positive ones confine it.

    Args:
        energies: the K members.
        weights: any finite numbers, (K,); 1 if not given.
        labels: class of each member for good, (K,), −1 for none: ``Sum([m, m], labels=[3, 8])`` is
            the product of two classes of one model.
    """

    def __init__(
        self,
        energies: Sequence[Denoiser],
        weights: Weights | None = None,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(energies, [1.0] * len(energies) if weights is None else weights, labels)
        # V = Σ w_k V_k and D = (1 − Σw_k) x + Σ w_k D_k.
        none_repels = min(self.weights) >= 0
        self.rising_free_energy = none_repels and self.every("rising_free_energy")
        self.convex_denoiser = (
            none_repels and sum(self.weights) <= 1 and self.every("convex_denoiser")
        )

    def combine(self, energies: Tensor) -> tuple[Tensor, Tensor]:
        weights = energies.new_tensor(self.weights)[:, None].expand_as(energies)
        return (weights * energies).sum(0), weights


class Negation(Sum):
    """E = −E_1. Alone it has no density: it is made to be a term of a :class:`Sum`."""

    def __init__(self, energy: Denoiser) -> None:
        super().__init__([energy], [-1.0])


class Temperature(Sum):
    """E = E_1/T, p ∝ p_1^(1/T): T < 1 sharpens, T > 1 flattens.

    Args:
        energy: the member.
        temperature: T > 0.
    """

    def __init__(self, energy: Denoiser, temperature: float) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise UserError(f"temperature must be a positive number, got {temperature}.")
        super().__init__([energy], [1 / temperature])


class Mixture(Composition):
    """E = −log Σ w_k exp(−E_k), p = Σ w_k p_k; ∇E averages ∇E_k with the posterior of k.

    It is ``exact`` if every member is, and keeps what is proved of all its members. With learned
    members the shares mean something only once their gauges are calibrated: a constant added to one
    E_k changes its share.

    Args:
        energies: the K members.
        weights: w_k > 0, (K,), normalised here; equal if not given.
    """

    def __init__(self, energies: Sequence[Denoiser], weights: Weights | None = None) -> None:
        shares = [1.0] * len(energies) if weights is None else [float(w) for w in weights]
        if not all(0 < share < math.inf for share in shares):
            raise UserError(f"weights of a Mixture must be positive numbers, got {shares}.")
        super().__init__(energies, [share / sum(shares) for share in shares])
        self.exact = all(bool(member.exact) for member in self.members)
        # −T log Σ w exp(−V_k/T) keeps ψ convex; its ∂/∂T is Σ r_k ∂V_k/∂T + KL(r ‖ w).
        one_each = all(member.densities == 1 for member in self.members)
        self.convex_denoiser = one_each and self.every("convex_denoiser")
        self.rising_free_energy = one_each and self.every("rising_free_energy")

    def combine(self, energies: Tensor) -> tuple[Tensor, Tensor]:
        logits = energies.new_tensor(self.weights).log()[:, None] - energies
        return -logits.logsumexp(0), logits.softmax(0)


class Guidance(Energy):
    """Classifier-free guidance, E = (1+w) E(x, σ, label) − w E(x, σ).

    w = 0 is the conditional energy, as in the source; a "guidance scale" s elsewhere is 1 + w. Both
    energies come from one call on a batch of twice the size. Unlabelled samples keep E(x, σ).

    Args:
        energy: an energy with classes that also knows samples without a label.
        weight: w, finite.

    Source: Ho & Salimans 2022 (arXiv:2207.12598), eq. 6.
    """

    def __init__(self, energy: Denoiser, weight: float) -> None:
        super().__init__()
        self.member = _energy("Guidance", energy)
        if self.member.num_classes == 0:
            raise UserError(
                f"guidance needs an energy with classes, and this {type(self.member).__name__} has"
                " none: train one with labels."
            )
        if not math.isfinite(weight):
            raise UserError(f"the weight of guidance must be a finite number, got {weight}.")
        self.weight = weight
        self.shape = self.member.shape
        self.num_classes = self.member.num_classes
        self.densities = self.member.densities
        self.noise = self.member.noise

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None:
            return self.member(x, sigma)
        return self._guided(self.member(*_twice(x, sigma, label)))

    def gradient(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        if label is None:
            return self.member.value_and_grad(x, sigma)
        energy, grad = self.member.value_and_grad(*_twice(x, sigma, label))
        return self._guided(energy), self._guided(grad)

    def _guided(self, both: Tensor) -> Tensor:
        conditional, unlabelled = both.chunk(2)
        return conditional + self.weight * (conditional - unlabelled)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


def _twice(x: Tensor, sigma: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The batch with its labels, then again without."""
    unlabelled = torch.full_like(label, -1)
    return torch.cat([x, x]), sigma.repeat(2), torch.cat([label, unlabelled])


def _own_labels(members: Sequence[Energy], labels: Sequence[int]) -> tuple[int, ...]:
    """``UserError`` unless there is one for each, −1 or a class that it has."""
    counts = [member.num_classes for member in members]
    fit = len(labels) == len(counts)
    if not fit or not all(-1 <= own < n for own, n in zip(labels, counts, strict=True)):
        raise UserError(
            f"labels must be {len(counts)} classes, one per energy or -1 for none, of"
            f" {counts} classes each; got {list(labels)}."
        )
    return tuple(labels)


def common_noise(name: str, members: Sequence[Denoiser]) -> NoiseRange | None:
    """The noise levels that all members are made for."""
    ranges = [member.noise for member in members if member.noise is not None]
    if not ranges:
        return None
    low, high = max(r.sigma_min for r in ranges), min(r.sigma_max for r in ranges)
    if low >= high:
        raise UserError(f"the members of this {name} are made for no common noise: {ranges}.")
    return NoiseRange(low, high)


def _energy(name: str, member: Denoiser) -> Energy:
    """The member's energy; ``UserError`` if it cannot be composed."""
    if not isinstance(member, Denoiser):
        raise UserError(f"{name} is made of energies, got {type(member).__name__}.")
    energy = member.require_energy()
    if not hasattr(energy, "shape"):
        raise UserError(
            f"this {type(energy).__name__} has no sample shape yet: store its patterns before"
            " composing it."
        )
    return energy
