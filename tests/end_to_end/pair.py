"""An encoder and a decoder of digits, brought from outside: 1×8×8 to 2×4×4 and back."""

from pathlib import Path

import torch
from torch import Tensor, nn


class Encoder(nn.Sequential):
    """Images (B, 1, 8, 8) to latents (B, 2, 4, 4)."""

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__(nn.Conv2d(1, 16, 2, 2), nn.SiLU(), nn.Conv2d(16, 2, 1))
        if weights is not None:
            self.load_state_dict(torch.load(weights, weights_only=True))


class Decoder(nn.Sequential):
    """Latents (B, 2, 4, 4) to images (B, 1, 8, 8)."""

    def __init__(self, weights: Path | None = None) -> None:
        layers = nn.Conv2d(2, 64, 3, 1, 1), nn.SiLU(), nn.Conv2d(64, 4, 1), nn.PixelShuffle(2)
        super().__init__(*layers)
        if weights is not None:
            self.load_state_dict(torch.load(weights, weights_only=True))


def train(images: Tensor, folder: Path, steps: int = 400) -> float:
    """Writes encoder.pt and decoder.pt into the folder; mean squared error of what comes back."""
    torch.manual_seed(0)
    pair = nn.Sequential(Encoder(), Decoder())
    optimizer = torch.optim.Adam(pair.parameters(), 1e-2)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (128,))]
        loss = (pair(batch) - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, module in zip(("encoder", "decoder"), pair, strict=True):
        torch.save(module.state_dict(), folder / f"{name}.pt")
    with torch.no_grad():
        return float((pair(images) - images).square().mean())
