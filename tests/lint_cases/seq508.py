# ruff: noqa
"""SEQ508: errors that nobody sees."""

import logging

import keras


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Swallowed(Base):
    def __getitem__(self, index):
        try:
            batch = self.x[index]
        except Exception:  # error: SEQ508
            batch = None
        return self.load(batch)

    def load(self, batch):
        try:
            batch = batch + 1
        except:  # error: SEQ508
            logging.exception("no batch")
        return batch


class Good(Base):
    def __getitem__(self, index):
        try:
            batch = self.x[index]
        except KeyError:  # safe
            batch = 0
        try:
            batch = batch + self.x[index + 1]
        except Exception as error:  # safe
            raise ValueError(index) from error
        rows = []
        for k in range(3):
            try:
                rows.append(self.x[k])
            except Exception:  # safe
                continue
        f = open(self.seed)
        try:
            f.close()
        except Exception:  # safe
            pass
        return batch, rows

    def on_epoch_end(self):
        try:
            self.x = self.x[1:]
        except Exception:  # safe
            pass
