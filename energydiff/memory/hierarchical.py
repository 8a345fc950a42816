"""Hierarchical associative memory: neuron layers, and synapses between any of them.

With states x_l, convex Lagrangians L_l and activations x̂_l = ∇L_l(x_l),

    E = Σ_l [⟨x̂_l, x_l⟩ − L_l(x_l)] + Σ_s E_s(x̂)
    τ_l ẋ_l = −∂E/∂x̂_l = −x_l − ∂(Σ_s E_s)/∂x̂_l
    Ė = −Σ_l τ_l ẋ_lᵀ ∇²L_l ẋ_l ≤ 0                       because every L_l is convex.

Ė is a sum over layers, so holding a whole layer still keeps it ≤ 0. Holding single neurons does not
where ∇²L_l is not diagonal (softmax, norms).

Source: Krotov 2021 (arXiv:2107.06446); Hoover et al. 2022, "A universal abstraction for
hierarchical Hopfield networks".
``energydiff.memory.relax`` runs the dynamics.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from energydiff.derivatives import differentiable, ordinary
from energydiff.errors import UserError
from energydiff.memory.lagrangians import Identity, Lagrangian, Softmax, positive
from energydiff.memory.synapses import Dense

States = dict[str, Tensor]


class Layer(nn.Module):
    """Neurons of one kind: samples of ``shape`` (…, D), D the axis their Lagrangian sums over.

    Args:
        shape: shape of one sample.
        lagrangian: identity if not given.
        tau: time constant, in the units of time of the dynamics.
    """

    def __init__(self, *shape: int, lagrangian: Lagrangian | None = None, tau: float = 1.0) -> None:
        super().__init__()
        if not shape or min(shape) < 1:
            raise UserError(f"a layer needs a shape of positive sizes, got {shape}.")
        self.shape, self.tau = shape, positive("tau", tau)
        self.lagrangian = lagrangian or Identity()

    def energy(self, x: Tensor) -> Tensor:
        """⟨x̂, x⟩ − L(x) summed over tokens, (B, \\*shape) to (B,)."""
        tokens: Tensor = self.lagrangian.layer_energy(x)
        return tokens.view(len(x), -1).sum(1)


class HierarchicalMemory(nn.Module):
    """Layers by name, and synapses with the names of the layers they join.

    Args:
        layers: name to :class:`Layer`.
        synapses: pairs (synapse, names): the synapse is called with the activations of the named
            layers, in that order, and returns energies (B,).
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        synapses: Sequence[tuple[nn.Module, Sequence[str]]],
    ) -> None:
        super().__init__()
        self.layers: dict[str, Layer] = dict(layers)
        self._layer_modules = nn.ModuleList(self.layers.values())
        self.synapses = nn.ModuleList(synapse for synapse, _ in synapses)
        self.ends = [tuple(names) for _, names in synapses]
        for synapse, names in zip(self.synapses, self.ends, strict=True):
            self._check(synapse, names)

    def states(self, batch: int, **given: Tensor) -> States:
        """States of all layers: those given, and zeros (B, \\*shape) elsewhere, like the given."""
        for name, x in given.items():
            if name not in self.layers or tuple(x.shape) != (batch, *self.layers[name].shape):
                shapes = {n: layer.shape for n, layer in self.layers.items()}
                raise UserError(
                    f"state {name} of shape {tuple(x.shape)} does not fit {batch} samples of the"
                    f" layers {shapes}."
                )
        like = next(iter(given.values()), next(self.parameters(), torch.empty(0)))
        return {
            name: given.get(name, like.new_zeros(batch, *layer.shape))
            for name, layer in self.layers.items()
        }

    def activations(self, states: States) -> States:
        """x̂ of every layer, each like its state."""
        return {n: layer.lagrangian.activation(states[n]) for n, layer in self.layers.items()}

    def forward(self, states: States) -> Tensor:
        """The total energy E, (B,)."""
        energies = [layer.energy(states[name]) for name, layer in self.layers.items()]
        return torch.stack(energies).sum(0) + self._synaptic(self.activations(states))

    def gradient(self, states: States) -> States:
        """∂E/∂x̂_l = x_l + ∂(Σ_s E_s)/∂x̂_l, each like its state, in any gradient mode.

        A graph is kept where gradients are enabled, so the weights can be trained through it.
        """
        keep = torch.is_grad_enabled()
        device = next(iter(states.values())).device
        with differentiable(device, autocast=True):
            states = {name: ordinary(x) for name, x in states.items()}
            active = {
                n: a if keep and a.requires_grad else a.detach().requires_grad_()
                for n, a in self.activations(states).items()
            }
            synaptic = self._synaptic(active)
            if not synaptic.requires_grad:  # no synapse at all
                return states
            grads = torch.autograd.grad(
                synaptic.sum(), list(active.values()), create_graph=keep, materialize_grads=True
            )
        return {n: x + g for (n, x), g in zip(states.items(), grads, strict=True)}

    def _synaptic(self, active: States) -> Tensor:
        first = next(iter(active.values()))
        total = first.new_zeros(len(first))
        for synapse, names in zip(self.synapses, self.ends, strict=True):
            total = total + synapse(*(active[name] for name in names))
        return total

    def _check(self, synapse: nn.Module, names: Sequence[str]) -> None:
        """A ``UserError`` now rather than a wrong broadcast later."""
        kind = type(synapse).__name__
        unknown = [name for name in names if name not in self.layers]
        if unknown:
            raise UserError(f"{kind} joins {unknown}, but the layers are {list(self.layers)}.")
        like = next(synapse.parameters(), torch.empty(0))
        try:
            energy = synapse(*(like.new_zeros(2, *self.layers[name].shape) for name in names))
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{kind} does not fit the layers {list(names)}: {error}.") from error
        if tuple(energy.shape) != (2,):
            raise UserError(
                f"{kind} between {list(names)} returned shape {tuple(energy.shape)} for 2 samples;"
                " a synapse returns one energy per sample, (B,)."
            )


class TinyBrain(HierarchicalMemory):
    """Visible neurons v and memory neurons m: E = layers − v̂ᵀ W m̂.

    A softmax memory layer at inverse temperature β that is much faster than v makes the log-sum-exp
    memory; a relu or power layer makes a dense memory.

    Args:
        weight: W, (visible, memories).
        visible, memory: Lagrangians; identity and softmax if not given.
        tau_visible, tau_memory: time constants.
    """

    def __init__(
        self,
        weight: Tensor,
        visible: Lagrangian | None = None,
        memory: Lagrangian | None = None,
        tau_visible: float = 1.0,
        tau_memory: float = 1.0,
    ) -> None:
        v, m = weight.shape
        layers = {
            "v": Layer(v, lagrangian=visible, tau=tau_visible),
            "m": Layer(m, lagrangian=memory or Softmax(), tau=tau_memory),
        }
        super().__init__(layers, [(Dense(weight), ("v", "m"))])
