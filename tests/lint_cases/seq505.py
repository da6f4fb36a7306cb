# ruff: noqa
"""SEQ505: base classes that are not set up."""

import keras

from keras_mpseq import SafeSequence


class Forgets(keras.utils.PyDataset):
    def __init__(self, x, **kwargs):  # error: SEQ505
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]


class Below(Forgets):
    def __init__(self, x):
        super().__init__(x)

    def __getitem__(self, index):
        return self.x[index]


class Old(keras.utils.PyDataset):
    def __init__(self, x):
        keras.utils.PyDataset.__init__(self)  # safe
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]


class Own(SafeSequence):
    def __init__(self, x):  # safe
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]
