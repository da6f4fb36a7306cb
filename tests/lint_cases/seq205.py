# ruff: noqa
"""SEQ205: state of the sequence."""

import keras
import numpy as np

from keras_mpseq import SafeSequence, per_worker


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


def bump(sequence):
    sequence.count += 1  # error: SEQ205


class Counter(Base):
    def __init__(self, x):
        super().__init__(x)
        self.count = 0

    def __getitem__(self, index):
        self.count += 1  # error: SEQ205
        return self.x[index + self.count % 2]


class ByHelper(Base):
    def __init__(self, x):
        super().__init__(x)
        self.count = 0

    def __getitem__(self, index):
        bump(self)
        return self.x[index]


class Size(Base):
    def __init__(self, x):
        super().__init__(x)
        self.size = 8

    def __getitem__(self, index):
        size = self.pick(index)
        return self.x[index][:size]

    def pick(self, index):
        if index % 10 == 0:
            self.size = index + 1  # error: SEQ205
        return self.size


class Inherited(Size):
    def __getitem__(self, index):
        return super().__getitem__(index) + 1


class Containers(Base):
    def __init__(self, x):
        super().__init__(x)
        self.stats = {"sum": 0}
        self.ids = list(range(8))
        self.first = None

    def __getitem__(self, index):
        self.stats["sum"] += 1  # error: SEQ205
        ids = self.ids
        ids.reverse()  # error: SEQ205
        self.x[index] = 0  # error: SEQ205
        del self.first  # error: SEQ205
        return self.x[self.ids[index]], self.stats["sum"]


class Property(Base):
    @property
    def cursor(self):
        return self._cursor

    @cursor.setter
    def cursor(self, value):
        self._cursor = value  # error: SEQ205

    def __init__(self, x):
        super().__init__(x)
        self.cursor = 0

    def __getitem__(self, index):
        row = self.x[self.cursor]
        self.cursor = index
        return row


class Stored(Base):
    def __init__(self, x):
        super().__init__(x)
        self.seen = 0
        self.step = self.advance

    def advance(self):
        self.seen = self.seen + 1  # error: SEQ205
        return self.seen

    def __getitem__(self, index):
        return self.x[self.step() + index]


class PartOfObject(Base):
    def __init__(self, x):
        super().__init__(x)
        self.crop = Crop()

    def __getitem__(self, index):
        return self.crop.apply(self.x[index])


class Crop:
    def __init__(self):
        self.used = 0

    def apply(self, x):
        self.used += 1  # error: SEQ205
        return x[self.used :]


class Recursive(Base):
    def __init__(self, x):
        super().__init__(x)
        self.depth = 0

    def __getitem__(self, index):
        return self.down(index)

    def down(self, index):
        if index > 0:
            return self.up(index - 1)
        return self.x[self.depth]

    def up(self, index):
        self.depth += 1  # error: SEQ205
        return self.down(index)


class Scratch(Base):
    def __getitem__(self, index):
        self.rows = self.x[index : index + 1]  # safe
        self.rows = self.rows * 2  # safe
        return self.rows


class Folded(Base):
    def __init__(self, x):
        super().__init__(x)
        self.debug = False
        self.calls = 0

    def __getitem__(self, index):
        if self.debug:
            self.calls += 1  # safe
        return self.x[index + self.calls]


class Fresh(Base):
    def __getitem__(self, index):
        crop = Crop2()
        crop.offset = index  # safe
        rows = list(self.x)
        rows.append(index)  # safe
        total = self.seed
        total += index  # safe
        batch = self.x[np.array([index])]
        batch *= 2  # safe
        counts = {}
        for k in range(3):
            counts[k] = counts.get(k, 0) + 1  # safe
        return batch + crop.offset + total + len(rows) + len(counts)

    def on_epoch_end(self):
        self.seed += 1  # safe


class Crop2:
    pass


class Own(SafeSequence):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def on_worker_start(self, worker):
        self.scratch = []  # safe

    @per_worker
    def table(self):
        return dict(enumerate(self.x))

    def __getitem__(self, index):
        self.scratch.append(index)  # safe
        out = self.empty((4, 2))
        out[:] = self.rng(index).normal(size=(4, 2))  # safe
        return out + self.table[index] + self.epoch


def blurred(x, sigma):
    sigma *= 2
    return x * sigma


def centred(x, mean):
    x -= mean  # error: SEQ205
    return x


class Blur(Base):
    def __init__(self, x, sigma):
        super().__init__(x)
        self.sigma = sigma / 2
        self.mean = np.zeros(4)

    def __getitem__(self, index):
        return blurred(self.x[index], self.sigma) - centred(self.mean, 1)  # safe


class Multiscale(Base):
    def __init__(self, x):
        super().__init__(x)
        self.interval = -1
        self.step = 0

    def __getitem__(self, index):
        if self.interval > 0:
            self.step = (self.step + 1) % self.interval  # safe
        return self.x[index] * self.step


class Latch(Base):
    def __getitem__(self, index):
        if self.ended:
            raise IndexError(index)
        self.ended = index == 7  # error: SEQ205
        return self.x[index]


class Shuffled(Base):
    def __init__(self, x):
        super().__init__(x)
        self.order = None

    def __getitem__(self, index):
        if self.order is None:
            order = np.arange(9)
            np.random.shuffle(order)  # error: SEQ401
            self.order = order  # error: SEQ205
        return self.x[self.order[index]]


class Emptied(Base):
    def __getitem__(self, index):
        rows = self.x[index]
        if len(rows) == 0:
            del self.x[index]  # error: SEQ205
        return rows
