"""What a newcomer has: the sequence of the tutorial before anything of ours, asked for several processes.

`tests/wheel.py` runs this file, fixes it, and runs it again.
"""

import math
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


class Digits(keras.utils.PyDataset):
    def __init__(self, files, labels, **kwargs):
        super().__init__(**kwargs)
        self.files = files
        self.labels = labels

    def __len__(self):
        return math.ceil(len(self.files) / 32)

    def __getitem__(self, index):
        part = slice(32 * index, 32 * (index + 1))
        # As large as pretrained models want them.
        images = [np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in self.files[part]]
        x = np.stack(images).astype(np.float32) / 255
        x += np.random.normal(0, 0.1, x.shape)
        return x, self.labels[part]


if __name__ == "__main__":
    digits = load_digits()
    folder = Path("digits")
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number:04}.png" for number in range(320)]
    for file, image in zip(files, digits.images, strict=False):
        Image.fromarray((image * 15).astype(np.uint8)).save(file)
    layers = [keras.Input((224, 224, 3)), keras.layers.AveragePooling2D(32), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    training = Digits(files, digits.target[:320], workers=2, use_multiprocessing=True)
    began = time.perf_counter()
    history = model.fit(training, epochs=4, verbose=0)
    print(len(history.history["loss"]), time.perf_counter() - began)
