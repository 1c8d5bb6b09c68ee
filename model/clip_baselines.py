"""What gesture clips tell without time: small float networks that see single frames, frames in no
order, or the clip as it is.

`python -m model.clip_baselines` trains them on :mod:`model.gestures` and prints a table, as in
`docs/video.md`. Beside the accuracy it says how often the right member of a pair gets more than
the other: half of the time, if order was not seen.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import gestures

BATCH = 32
REDUCED = 2  # times smaller each way than the clips are


def reduced_clips(split: str, count: int, difficulty: float) -> tuple[Tensor, Tensor]:
    """Clips uint8 (count, 3, 16, 48, 64), each pixel the mean of 2x2, and classes (count,)."""
    made, labels = [], []
    for index in range(count):
        clip, label = gestures.clip(split, index, difficulty=difficulty)
        made.append(F.avg_pool2d(torch.from_numpy(clip).float(), REDUCED).to(torch.uint8))
        labels.append(label)
    return torch.stack(made).transpose(1, 2).contiguous(), torch.tensor(labels)


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, (kernel, 3, 3), (stride, 2, 2), (kernel // 2, 1, 1),
                      bias=False), nn.BatchNorm3d(outputs), nn.ReLU()]


class ClipNet(nn.Module):
    """Four convolutions, the mean over all positions and frames, a linear layer.

    Takes uint8 (n, 3, frames, height, width). `temporal` kernels reach over three frames; else
    each frame is seen for itself, and their order does not count.
    """

    def __init__(self, classes: int, temporal: bool, channels=(12, 24, 48, 64)):
        super().__init__()
        kernel, late = (3, 2) if temporal else (1, 1)
        self.layers = nn.Sequential(*[
            layer for k, (inputs, outputs) in enumerate(zip((3, *channels), channels, strict=False))
            for layer in _block(inputs, outputs, kernel, 1 if k < 2 else late)])
        self.last = nn.Linear(channels[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        x = (clips.float() - 128) / 64
        return self.last(self.layers(x).mean((2, 3, 4)))


def one_frame(clips: Tensor) -> Tensor:
    """One of the frames of each clip (n, 3, 1, height, width)."""
    pick = torch.randint(clips.shape[2], (len(clips),))
    return clips[torch.arange(len(clips)), :, pick][:, :, None]


def shuffled(clips: Tensor) -> Tensor:
    """The frames of each clip in an order of its own."""
    order = torch.rand(len(clips), clips.shape[2]).argsort(1)
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips))


VIEWS = {"one frame": (False, one_frame), "mean of frames": (False, None),
         "frames shuffled": (True, shuffled), "frames in order": (True, None)}


def train(net: nn.Module, clips: Tensor, labels: Tensor, view, epochs: float):
    """Adam, one cycle of the step size, on random batches."""
    steps = max(round(epochs * len(clips) / BATCH), 1)
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    net.train()
    order = torch.cat([torch.randperm(len(clips)) for _ in range(int(epochs) + 2)])
    for picks in order[:steps * BATCH].split(BATCH):
        batch = clips[picks] if view is None else view(clips[picks])
        loss = F.cross_entropy(net(batch), labels[picks])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def scores(net: nn.Module, clips: Tensor, view) -> Tensor:
    """What the classes get (n, looks, classes): one look at each clip, or at each single frame."""
    net.eval()
    looks = []
    for part in clips.split(BATCH):
        seen = part.split(1, 2) if view is one_frame else [part if view is None else view(part)]
        looks.append(torch.stack([net(each) for each in seen], 1))
    return torch.cat(looks)


def accuracy(looks: Tensor, labels: Tensor) -> float:
    """Share of looks (n, looks, classes) whose class is right."""
    return (looks.argmax(2) == labels[:, None]).float().mean().item()


def told_apart(looks: Tensor, labels: Tensor, pairs=gestures.PAIRS) -> float:
    """Share of looks at clips of pairs in which the right member gets more; equal is half."""
    other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    paired = torch.tensor([int(label) in other for label in labels])
    looks, labels = looks[paired], labels[paired]
    index = torch.arange(len(labels))
    more = looks[index, :, labels] - looks[index, :, [other[int(each)] for each in labels]]
    return (more.sign() / 2 + 0.5).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--train", type=int, default=3900, help="clips to train on")
    parser.add_argument("--test", type=int, default=1300, help="clips to test on")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--difficulty", type=float, default=gestures.DIFFICULTY)
    parser.add_argument("--views", nargs="*", choices=VIEWS, default=list(VIEWS))
    options = parser.parse_args()
    torch.manual_seed(1)
    data = reduced_clips("train", options.train, options.difficulty)
    test, labels = reduced_clips("test", options.test, options.difficulty)
    print(f"difficulty {options.difficulty}, {options.train} clips, {options.epochs:g} epochs\n"
          "| sees | test | pairs told apart | seconds |\n|---|---|---|---|", flush=True)
    for name in options.views:
        temporal, view = VIEWS[name]
        net = ClipNet(len(gestures.CLASSES), temporal)
        start = time.process_time()
        train(net, *data, view, options.epochs)
        looks = scores(net, test, view)
        print(f"| {name} | {100 * accuracy(looks, labels):.1f} % "
              f"| {100 * told_apart(looks, labels):.1f} % | {time.process_time() - start:.0f} |",
              flush=True)


if __name__ == "__main__":
    main()
