# ruff: noqa
"""SEQ105: training at the top of a file that workers import."""

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full(4, index)


model = keras.Sequential()
data = Batches(workers=2)  # safe
model.fit(data, epochs=2)  # error: SEQ105
with open("log.txt", "w") as log:
    model.evaluate(Batches())  # error: SEQ105

if __name__ == "__main__":
    model.fit(data, epochs=2)  # safe


def train():
    model.fit(data)  # safe
