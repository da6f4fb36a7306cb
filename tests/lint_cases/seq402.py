# ruff: noqa
"""SEQ402: generators of the process."""

import random
from random import choice

import albumentations as A
import keras
import torch


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Python(Base):
    def __getitem__(self, index):
        if random.random() > 0.5:  # error: SEQ402
            return self.x[choice([0, 1])]  # error: SEQ402
        return self.x[index]


class Frameworks(Base):
    def __getitem__(self, index):
        return self.x[index] + torch.rand(4)  # error: SEQ402, SEQ304


class Augmented(Base):
    def __init__(self, x):
        super().__init__(x)
        self.augment = A.Compose([A.HorizontalFlip()])

    def __getitem__(self, index):
        return self.augment(image=self.x[index])["image"]  # error: SEQ402


class Keyed(Base):
    def __getitem__(self, index):
        rng = random.Random(f"{self.seed}/{index}")
        return self.x[index][:: 1 - 2 * rng.choice([0, 1])]  # safe


class PutBack(Base):
    def __getitem__(self, index):
        state = random.getstate()
        try:
            random.seed(index)  # safe
            return self.x[random.randrange(8)]  # safe
        finally:
            random.setstate(state)  # safe


class Switched(Base):
    def __init__(self, x):
        super().__init__(x)
        self.strength = 0

    def __getitem__(self, index):
        if self.strength >= 1:
            return self.x[index] * random.random()  # safe
        return self.x[index]


class Handed(Base):
    def __init__(self, x, augment, transforms, prepare):
        super().__init__(x)
        self.augment = augment
        self.transforms = transforms
        self.prepare = prepare
        self.resize = A.Compose([A.Resize(8, 8), A.Normalize()])

    def __getitem__(self, index):
        image = self.prepare(image=self.x[index])["image"]  # safe
        image = self.resize(image=image)["image"]  # safe
        image = self.transforms[0](image=image, mask=image)["image"]  # error: SEQ402
        return self.augment.augment_images(image)  # error: SEQ402
