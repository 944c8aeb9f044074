"""Questions about videos: what a fixed network sees in each frame, and what is asked, each through an LSTM, and one of 1000 answers."""

from __future__ import annotations

from typing import Any

import numpy as np

import xlc
from xlc.nn.init import he_normal, uniform

from .network import Network, register
from .recurrent import embedded, lstm
from .supervised import supervised


def eye(nn: Any, frames: Any, widths: tuple[int, ...]) -> Any:
    """Features (frames, widths[-1]) by convolutions that are not trained, and the mean over all places."""
    x = frames
    for k, n in enumerate(widths):
        w = nn.kept(f"eye{k}", "w", (3, 3, x.shape[-1], n), he_normal())
        nn.after[f"eye{k}"] = {"w": w}
        x = nn.relu(nn.functions.conv(x, w, stride=2, padding="SAME"))
    return nn.mean(x, axis=(1, 2))


@register("video-qa")
def video_qa(full: bool) -> Network:
    """16 frames of 150x150 through a fixed network and an LSTM of 256; 100 words, embedded in 256, with padding, through an LSTM of 128."""
    frames, pixels, widths, watch = (16, 150, (32, 64, 128, 256), 256) if full else (3, 17, (4, 6), 8)
    words, vocabulary, width, read, dense, answers, batch = (100, 10_000, 256, 128, 128, 1000, 4) if full else (5, 30, 6, 7, 9, 4, 12)

    def model(nn: Any, video: Any, question: Any) -> Any:
        """video (batch, frames, height, width, 3), question (words, batch), of which 0 is padding."""
        seen = eye(nn, video.reshape(-1, *video.shape[2:]), widths).reshape(len(video), frames, -1)
        (watched, _), _ = lstm(nn, "watch", nn.moveaxis(seen, 0, 1), watch)
        (asked, _), _ = lstm(nn, "read", embedded(nn, question, vocabulary, width), read, present=question != 0)
        x = nn.concatenate([watched, asked], axis=-1)
        return nn.dense(nn.relu(nn.dense(x, dense)), answers, init=uniform(-0.05, 0.05))

    def data(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """The answer is the first word, and shown as brightness."""
        answer = rng.integers(0, answers, batch)
        question = rng.integers(1, vocabulary, (words, batch))
        question[0] = answer + 1
        question[rng.integers(1, words, batch)[None] <= np.arange(words)[:, None]] = 0
        video = rng.normal(size=(batch, frames, pixels, pixels, 3)) + answer[:, None, None, None, None] / answers
        return video.astype("f4"), question, answer

    return supervised("video-qa", model, lambda nn, y, answer: nn.cross_entropy(y, answer).mean(), data, inputs=2,
                      optimizer=xlc.optim.adam(1e-3 if full else 2e-2))
