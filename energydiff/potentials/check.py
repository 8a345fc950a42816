"""Whether a network can be made into an energy, found out before hours of training.

Sampling follows ∇φ and training differentiates it: φ must be one function of its sample alone, with
a continuous gradient and a second derivative. What commonly breaks that fails in silence: dropout
at sampling, BatchNorm in training, a detach, ReLU. (Leaving training noisy is no fault: dropout in
training mode passes.)
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from energydiff.derivatives import differentiable
from energydiff.errors import UserError
from energydiff.potentials.backbone import Backbone, Network, ScalarNetwork
from energydiff.potentials.wrapped import Wrapped

# Relative errors. Differences of h = 1e-4 in float64 are good to 1e-8; a gradient that is another
# one is off by much more.
STEP, TOLERANCE = 1e-4, 1e-2
# A jump of ∇φ stays when the interval it lies in shrinks to 8⁻¹² of its length.
ZOOMS, PARTS, JUMP = 12, 8, 1e-6
KINKED = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Threshold, nn.SELU, nn.Hardtanh),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
KINKED_NODES = (
    *("Relu", "LeakyRelu", "PreluKernel", "Threshold", "Hardtanh", "Hardswish", "Hardsigmoid"),
    *("Abs", "Norm", "Max", "Min", "Maximum", "Minimum", "Amax", "Amin", "Clamp", "MaxPool"),
    *("Where", "Softshrink", "Hardshrink", "Sort", "Topk", "Elu", "Round", "Floor", "Ceil", "Sign"),
)


def require_smooth(network: Network) -> None:
    """``UserError`` for a network whose φ, ½⟨u, F(u)⟩ of a backbone, is none to train.

    Looks at a copy on the CPU, in float64 and with weights moved a little, since layers that start
    at zero hide what lies behind them; the network and the random state are left alone. It takes
    some two hundred gradients of a few samples. A kink that no sample is near goes unseen.
    """
    if not isinstance(network, Backbone | ScalarNetwork):
        return
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]), differentiable(cpu, autocast=False), InDouble():
        _Check(network).run()


def move_weights(network: nn.Module) -> None:
    """Moves every weight a little, by PyTorch's random state: layers that start at zero hide what
    lies behind them."""
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.add_(0.3 * fan_in**-0.5 * torch.randn_like(parameter))


class InDouble(TorchFunctionMode):
    """Casts to float32 and tensors made in it are in float64: embeddings of time often are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args = [torch.float64 if a is torch.float32 else a for a in args]
        named = {k: torch.float64 if a is torch.float32 else a for k, a in (kwargs or {}).items()}
        return func(*args, **named)


class _Check:
    """The properties in turn, each relying on those before it."""

    def __init__(self, network: Network) -> None:
        _seed()
        named = network.network if isinstance(network, Wrapped) else network
        self.name = type(named).__name__
        self.is_field = isinstance(network, Backbone)
        self.network = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)
        move_weights(self.network)
        self.u, self.v = torch.randn(2, 3, *network.shape, dtype=torch.float64)
        self.c = torch.linspace(-0.8, 0.6, 3, dtype=torch.float64)
        classes = network.num_classes
        self.label = torch.arange(3) % classes if classes else None

    def run(self) -> None:
        self.sampling_is_deterministic()
        self.samples_are_independent()
        self.gradient_is_the_potentials()
        product = self.second_derivative()
        self.no_kink()
        self.second_derivative_is_the_gradients(product)

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.name} makes no energy: {reason}.")

    def phi(self, u: Tensor) -> Tensor:
        """φ, (B,), of 3 samples, or of any number of the first at the first noise level."""
        answer: Tensor = self.network(u, *self.conditions(len(u)))
        return 0.5 * (u * answer).flatten(1).sum(1) if self.is_field else answer

    def conditions(self, count: int) -> tuple[Tensor, Tensor | None]:
        """c and label, each (count,)."""
        index = torch.arange(3) if count == 3 else torch.zeros(count, dtype=torch.long)
        return self.c[index], None if self.label is None else self.label[index]

    def gradient(self, u: Tensor, create_graph: bool = False) -> Tensor:
        """∇φ like u."""
        u = u if create_graph else u.detach().requires_grad_()
        try:
            if self.is_field:
                return torch.autograd.grad(self.phi(u).sum(), u, create_graph=create_graph)[0]
            assert isinstance(self.network, ScalarNetwork)
            return self.network.value_and_grad(u, *self.conditions(len(u)))[1]
        except RuntimeError as error:
            self.refuse(f"it has no gradient ({_first_line(error)})")

    def sampling_is_deterministic(self) -> None:
        """In eval mode, two calls agree."""
        if not torch.equal(self.phi(self.u), self.phi(self.u)):
            active = self.named(lambda m: isinstance(m, _DropoutNd) and m.training)
            self.refuse(
                f"in eval mode two calls differ, so it is random while sampling ({active}); let"
                " dropout end with eval()"
            )

    def samples_are_independent(self) -> None:
        """In training mode, a sample's answer does not depend on the others in the batch."""
        answers = []
        self.network.train()
        state = copy.deepcopy(self.network.state_dict())
        for others in (self.u[1:], self.v[1:]):
            _seed()  # the same dropout in both, and the same running averages
            self.network.load_state_dict(state)
            answers.append(self.phi(torch.cat([self.u[:1], others]))[0])
        self.network.eval()
        if _differ(*answers) > 1e-6:
            norms = self.named(lambda m: isinstance(m, _BatchNorm))
            self.refuse(
                f"in training a sample's answer depends on the rest of its batch ({norms}); use"
                " GroupNorm or LayerNorm"
            )

    def gradient_is_the_potentials(self) -> None:
        """⟨∇φ, v⟩ is the difference quotient of φ."""
        ends = self.phi(self.u + STEP * self.v), self.phi(self.u - STEP * self.v)
        slope = (ends[0] - ends[1]) / (2 * STEP)
        mine = (self.gradient(self.u) * self.v).flatten(1).sum(1)
        if isinstance(self.network, ScalarNetwork):
            alone = self.network.grad(self.u, *self.conditions(3))
            if _differ(alone, self.gradient(self.u)) > TOLERANCE:
                self.refuse("its grad is not the gradient of its value_and_grad")
        if _differ(mine, slope) > TOLERANCE:
            self.refuse(
                "its gradient is not that of its value: something on the way from u is cut off"
                " (detach, no_grad, .data) or is written out wrongly"
                if self.is_field
                else "its value_and_grad is not the gradient of its forward"
            )

    def second_derivative(self) -> Tensor:
        """∇²φ v, like u."""
        u = self.u.clone().requires_grad_()
        try:
            return torch.autograd.grad(self.gradient(u, create_graph=True), u, self.v)[0]
        except RuntimeError as error:
            self.refuse(
                f"it has no second derivative ({_first_line(error)}); for attention use"
                " energydiff.potentials.closed_form.attend, or call it under"
                " torch.nn.attention.sdpa_kernel(SDPBackend.MATH), as Wrapped does"
            )

    def no_kink(self) -> None:
        """Along a line, ∇φ changes by as much less as the interval looked at is shorter."""
        start, line = self.u[:1] - 2 * self.v[:1], 4 * self.v[:1]
        low, length = 0.0, 1.0
        for _ in range(ZOOMS):
            t = low + length * torch.linspace(0, 1, PARTS + 1, dtype=torch.float64)
            points = start + t.view(-1, *[1] * (start.ndim - 1)) * line
            gradients = self.gradient(points).flatten(1).detach()
            changes = gradients.diff(dim=0).norm(dim=1)
            low, length = float(t[changes.argmax()]), length / PARTS
        if float(changes.max()) > JUMP * float(gradients.norm(dim=1).max()):
            self.refuse(
                "its gradient jumps, so no step of descent is safe and its second derivative"
                f" misses the jumps ({self.kinks()}); use smooth functions: SiLU, GELU, softplus,"
                " relu squared, average pooling"
            )

    def second_derivative_is_the_gradients(self, product: Tensor) -> None:
        """∇²φ v is the difference quotient of ∇φ."""
        ends = self.gradient(self.u + STEP * self.v), self.gradient(self.u - STEP * self.v)
        if _differ(product, (ends[0] - ends[1]) / (2 * STEP)) > TOLERANCE:
            self.refuse(
                "its second derivative is not that of its gradient: a backward written by hand must"
                " be differentiable itself (no once_differentiable, no detach in it)"
            )

    def kinks(self) -> str:
        found = self.named(lambda m: isinstance(m, KINKED))
        if found != NOTHING:
            return found
        nodes = {type(node).__name__ for node in _graph(self.phi(self.u.requires_grad_()))}
        kinked = sorted(n for n in nodes if n.rstrip("0123456789").startswith(KINKED_NODES))
        return ", ".join(kinked) or NOTHING

    def named(self, belongs: Callable[[nn.Module], bool]) -> str:
        """Modules by name and type, at most three."""
        found = [
            f"{name} is {type(m).__name__}"
            for name, m in self.network.named_modules()
            if belongs(m)
        ]
        return ", ".join(found[:3]) + (", …" if len(found) > 3 else "") if found else NOTHING


NOTHING = "in no module that is known for it"


def _seed() -> None:
    """On the CPU alone: ``torch.manual_seed`` would move the accelerators' states too."""
    torch.default_generator.manual_seed(0)


def _graph(answer: Tensor) -> Iterator[object]:
    """All nodes of a tensor's autograd graph."""
    pending, seen = [answer.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            pending += [following for following, _ in node.next_functions]


def _differ(mine: Tensor, expected: Tensor) -> float:
    """‖mine − expected‖ relative to the larger of the two."""
    mine, expected = mine.detach(), expected.detach()
    size = torch.maximum(mine.norm(), expected.norm()).clamp_min(1e-12)
    return float((mine - expected).norm() / size)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
