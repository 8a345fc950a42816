"""Sequential Monte Carlo down the noise levels: exact for any composition, at any step size.

A composition is an unnormalised density at every noise level, γ_k(x) = exp(−E(x, σ_k)), but no
noised version of one density, so no ODE or SDE in its score samples it. A population of weighted
particles does (Del Moral et al. 2006): a particle moves by a forward kernel M_k, and its weight is
multiplied by

    w_k = γ_k(x') L_k(x | x') / (γ_{k−1}(x) M_k(x' | x)),

exactly, because E is explicit and both kernels are Gaussian. For every choice of kernels and steps
the weighted population is consistent for exp(−E(x, σ_k)) as it grows, and its mean weight is an
unbiased estimate of ∫γ_k. A constant that E lacks at one level, as a gauge, cancels.

In the limit of short steps log w_k becomes the weight of the Feynman–Kac correctors (Skreta et al.
2025), which are for scores alone: they take the heat equation for granted and leave an error of the
step. An energy needs neither.

Kernels. A composition of n densities (``Energy.densities``) acts, far from them, as one at noise
σ/√n. With Δ = (σ² − σ'²)/n,

    L(x | x') = N(x; x', Δ)                          adding noise
    M(x' | x) = N(x'; x − Δ∇E(x, σ), Δ(1 − Δh))      its reversal to second order

where h is the curvature tr ∇²E/d, in the mean ‖∇E‖²/d of the population: under exp(−E) the two are
equal, by parts. That h is estimated from the particles leaves w_k unbiased, for M cancels from its
expectation whatever of the past it depends on. For a product of isotropic Gaussians M is exact and
all weights are equal. With h = n/σ², as far out, M is the ancestral step, its smallest noise.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from energydiff.energies.base import Denoiser, per_sample
from energydiff.errors import UserError
from energydiff.sampling.grids import given_sigmas
from energydiff.sampling.mala import MALA
from energydiff.sampling.population import (
    PopulationReport,
    Resampled,
    Weights,
    report_populations,
)
from energydiff.sampling.run import Move, Point, Run
from energydiff.sampling.sampler import Sampler
from energydiff.sampling.trace import Trace


class SequentialMonteCarlo(Sampler):
    """Weighted populations that end in exp(−E(x, σ_min)); resampled there to equal weights.

    A sample depends on the seeds of its whole population: ``particles`` consecutive ones, which
    must share a label and, in an inverse problem, the measurement. Samples of one population may
    be copies of one another; ``updates`` move them apart.

    Args:
        sigmas: the noise levels, falling.
        final_denoise: end with x ← x − (σ_min²/n)∇E.
        particles: P, samples in a population; the error of what it estimates falls as 1/√P.
        threshold: a population is resampled where its effective sample size is below this share.
        updates: MALA moves at each level, one more evaluation each.
        step_size: of these, in units of σ; see :class:`~energydiff.sampling.MALA`.
    """

    name = "smc"
    stochastic = True
    needs_energy = True
    repeats = True

    def __init__(
        self,
        sigmas: Sequence[float] | Tensor,
        final_denoise: bool = False,
        *,
        particles: int = 64,
        threshold: float = 0.5,
        updates: int = 0,
        step_size: float = 0.1,
    ) -> None:
        if particles < 1 or updates < 0 or not 0 <= threshold <= 1:
            raise UserError(
                f"particles is {particles}, updates {updates} and threshold {threshold}: there must"
                " be at least one particle, no negative updates and a threshold from 0 to 1."
            )
        levels = given_sigmas(sigmas)
        super().__init__(levels.repeat_interleave(updates + 1), final_denoise)
        self.population, self.threshold = particles, threshold
        self.chain = MALA(levels, step_size=step_size)

    def diagnose(self, trace: Trace) -> PopulationReport:
        return report_populations(trace, self.population)

    def step(self, run: Run, here: Point, sigma: float) -> Move:
        if run.carry is None:
            run.carry = self._started(run, here)
        if sigma == here.sigma:
            return self._unweighted(run, self.chain.step(run, here, sigma))
        share = (here.sigma**2 - sigma**2) / run.model.require_energy().densities
        there, gain = self._moved(run, here, sigma, share)
        weights = run.carry.times(gain)
        if bool((weights.log == -torch.inf).all(1).any()):
            raise UserError(
                f"all {self.population} particles of a population lost their weight at"
                f" σ = {sigma:.4g}, where the energy is not finite: take more levels, or check it."
            )
        low = weights.ess < self.threshold * self.population
        last = sigma == float(self.sigmas[-1])
        uniform = self._by_population(run.uniform(gain))[:, 0]
        parents, run.carry = weights.resampled(uniform, low | last)
        return Move(
            there.x[parents],
            share / here.sigma**2,
            answer=there.answer.of(parents),
            fallbacks=torch.zeros_like(parents),
            resampled=self._told(weights, parents),
        )

    def denoise(self, run: Run, here: Point) -> Move:
        eta = 1 / run.model.require_energy().densities
        refused = torch.zeros(len(here.x), dtype=torch.int64, device=here.x.device)
        return self._unweighted(run, Move(here.x - eta * here.residual, eta, fallbacks=refused))

    def _moved(self, run: Run, here: Point, sigma: float, share: float) -> tuple[Point, Tensor]:
        """The particles after M, with Δ = ``share``, and log w, (G, P)."""
        grad = here.residual / here.sigma**2
        squares = self._by_population(grad.flatten(1).square().mean(1).double())
        curvature = (run.carry.log.softmax(1) * squares).sum(1)
        narrowed = (1 - share * curvature).clamp((sigma / here.sigma) ** 2, 1.0)
        narrowed = narrowed.repeat_interleave(self.population)
        noise = run.normal(here.x)
        kernel = per_sample((share * narrowed).sqrt(), noise)
        there = Point(run, here.x - share * grad + kernel * noise, sigma)
        back = (there.x - here.x).double().flatten(1).square().sum(1) / share
        forth = noise.double().flatten(1).square().sum(1) + here.x[0].numel() * narrowed.log()
        energies = here.energy.double() - there.energy.double()
        return there, self._by_population(energies + 0.5 * (forth - back))

    def _started(self, run: Run, here: Point) -> Weights:
        """Weights of the particles as :meth:`_start` drew them, from N(0, σ_max²/n)."""
        if run.label is not None:
            labels = self._by_population(run.label)
            if bool((labels != labels[:, :1]).any()):
                raise UserError(
                    f"each population of {self.population} needs one label: its particles are"
                    " weighed against each other."
                )
        variance = here.sigma**2 / run.model.require_energy().densities
        x = here.x.double().flatten(1)
        drawn = 0.5 * (x.square().sum(1) / variance + x.shape[1] * math.log(2 * math.pi * variance))
        log = self._by_population(drawn - here.energy.double())
        return Weights(log, torch.zeros_like(log[:, 0]))

    def _unweighted(self, run: Run, move: Move) -> Move:
        """A move that changes no weights."""
        own = torch.arange(len(move.x), device=move.x.device)
        return replace(move, resampled=self._told(run.carry, own))

    def _told(self, weights: Weights, parents: Tensor) -> Resampled:
        ess, log_normalizer = (
            value.repeat_interleave(self.population)
            for value in (weights.ess, weights.log_normalizer)
        )
        return Resampled(parents, ess, log_normalizer, self.population)

    def _by_population(self, values: Tensor) -> Tensor:
        """(B,) as (G, P)."""
        return values.view(-1, self.population)

    def _start(
        self, model: Denoiser, x_init: Tensor | None, seeds: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        densities = model.require_energy().densities
        if not densities > 0:
            raise UserError(
                f"this {type(model).__name__} multiplies {densities:g} densities in all, so at high"
                " noise it is none that particles could start from: give what is not negated more"
                " weight."
            )
        if x_init is not None or seeds is None:
            raise UserError(
                "particles start from noise of known density: give seeds, and no x_init."
            )
        if len(seeds) % self.population:
            raise UserError(
                f"{len(seeds)} samples are no whole number of populations of {self.population}:"
                " choose particles that divide them."
            )
        x, seeds = super()._start(model, None, seeds)
        return x / math.sqrt(densities), seeds
