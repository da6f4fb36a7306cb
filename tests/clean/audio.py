"""Sound files: a random part of each as a spectrogram."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence

FRAME = 32
HOP = 16


def spectrogram(samples: np.ndarray) -> np.ndarray:
    count = 1 + (len(samples) - FRAME) // HOP
    frames = np.stack([samples[HOP * k : HOP * k + FRAME] for k in range(count)])
    return np.log1p(np.abs(np.fft.rfft(frames * np.hanning(FRAME), axis=1))).astype(np.float32)


class AudioClips(SafeSequence):
    """Spectrograms of clips of one length."""

    window = 128

    def __init__(self, files: list[str], batch_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.files = list(files)
        self.batch_size = batch_size
        self.lengths: dict[str, int] = {}
        for name in self.files:
            with wave.open(name, "rb") as file:
                self.lengths[name] = file.getnframes()

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __getitem__(self, index: int) -> np.ndarray:
        """Build a batch."""
        rng = self.rng(index)
        chosen = self.files[index * self.batch_size : (index + 1) * self.batch_size]
        clips = []
        for name in chosen:
            start = int(rng.integers(0, self.lengths[name] - self.window + 1))
            clips.append(spectrogram(self.read(name, start)))
        return np.stack(clips)

    def read(self, name: str, start: int) -> np.ndarray:
        with wave.open(name, "rb") as file:
            file.setpos(start)
            data = file.readframes(self.window)
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def make(folder: Path) -> AudioClips:
    rng = np.random.default_rng(3)
    files = []
    for number in range(9):
        files.append(str(folder / f"{number}.wav"))
        with wave.open(files[-1], "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(rng.integers(-9999, 9999, 200 + number).astype("<i2").tobytes())
    return AudioClips(files, 2)
