"""Text with bucketing: batches of texts of similar length, tokenised by several processes.

By hand:
    A generator tokenises, and tf.data makes the buckets.

        dataset = tf.data.Dataset.from_generator(lambda: map(tokenised, texts), output_signature=...)
        dataset = dataset.shuffle(1000).bucket_by_sequence_length(len, [16, 64, 256], [64, 64, 32, 8])

    Or without buckets: all texts are padded to the longest, or sorted by length once.

How it fails:
    The generator is Python in one thread, which holds the GIL while it tokenises. Limits and batch sizes of buckets are
    guessed, and wrong for the next data. Padded to the longest, most of a batch is padding. Sorted once, every epoch
    has the same batches, from short texts to long ones, and training sees them in that order.

With keras_mpseq:
    `BatchedSequence(bucket_by_length=...)` sorts the texts of a hundred batches at a time, which `shuffle` draws anew
    in each epoch, and deals the batches in random order. `transform` tokenises in the workers; `pad` fills up to the
    longest of a batch.
"""

import collections
import pydoc_data.topics
import time

import numpy as np

from keras_mpseq import BatchedSequence, Loader

# The paragraphs of the help texts that come with Python, but for the longest.
pages = pydoc_data.topics.topics.values()
texts = [text for page in pages for text in page.lower().split("\n\n") if text.strip() and len(text) < 1000]
characters = sorted(set("".join(texts)))
counts = collections.Counter(word[:end] for text in texts for word in text.split() for end in range(2, len(word) + 1))
frequent = [piece for piece, _ in counts.most_common(4000)]
vocabulary = {piece: number for number, piece in enumerate(characters + frequent, start=1)}  # 0 is padding.


def tokenised(text):
    """Return the numbers of the pieces that the words consist of."""
    return np.array([number for word in text.split() for number in fewest(word)], np.int32)


def fewest(word):
    """Return the numbers of the fewest pieces of the vocabulary that make a word."""
    best = [[]]
    for end in range(1, len(word) + 1):
        pieces = [(start, vocabulary[word[start:end]]) for start in range(end) if word[start:end] in vocabulary]
        start, number = min(pieces, key=lambda piece: len(best[piece[0]]))
        best.append([*best[start], number])
    return best[-1]


def build(sample, _rng):
    """Return what belongs into the batch for a text and its number."""
    return {"ids": tokenised(sample["text"]), "number": sample["number"]}


def padding(batches):
    """Return the share of ids that are padding."""
    return sum((batch["ids"] == 0).sum() for batch in batches) / sum(batch["ids"].size for batch in batches)


begin = time.perf_counter()
plain = [tokenised(text) for text in texts]
plain_s = time.perf_counter() - begin

source = {"text": texts, "number": np.arange(len(texts))}
sequence = BatchedSequence(
    source, 32, transform=build, shuffle=True, pad={"ids": 0, "number": False}, bucket_by_length=list(map(len, texts))
)
with Loader(sequence, workers=2) as loader:
    batches = list(loader)
    seen = []
    for batch in batches:
        for ids, number in zip(batch["ids"], batch["number"], strict=True):
            expected = np.zeros_like(ids)
            expected[: len(plain[number])] = plain[number]
            np.testing.assert_array_equal(ids, expected, strict=True)
            seen.append(int(number))
    assert sorted(seen) == list(range(len(texts)))

    begin = time.perf_counter()
    count = sum(len(batch["ids"]) for batch in loader)  # The next epoch, with other batches.
    workers_s = time.perf_counter() - begin

longest = max(map(len, plain))
print(f"{count} texts, the same as in a plain loop; {padding(batches):.0%} of a batch is padding")
print(f"padded to the longest it would be {1 - sum(map(len, plain)) / (len(plain) * longest):.0%}")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")
