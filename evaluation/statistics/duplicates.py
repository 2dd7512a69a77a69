"""Near-duplicates: texts of a group that say almost the same words in the same order as one before them.

Two texts are compared by their sets of shingles (pieces of :data:`SHINGLE_WORDS` words): by Jaccard similarity
``|A & B| / |A | B|`` (Broder 1997). MinHash signatures in bands (locality-sensitive hashing, Leskovec, Rajaraman and
Ullman, *Mining of Massive Datasets*, section 3.4) find the pairs that are worth comparing, in time that grows with the
number of texts; each of these is then compared exactly, so that no text is dropped by chance.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

# Three words: in a text of 70 words one that is exchanged leaves a similarity of .92, in one of 20 words .71.
SHINGLE_WORDS = 3
THRESHOLD = 0.8  # as Lee et al. 2022 (arXiv 2107.06499) take it for training data
N_PERMUTATIONS, SEED = 256, 1
# A pair whose similarity is the threshold itself is overlooked with at most this probability, a more similar one less.
MAX_MISSED = 0.01
# Texts of a template are all a bit alike, and each would be compared with all: of more candidates than these only those
# whose signatures are most alike are compared exactly.
MOST_COMPARED = 100
# Scripts that put no spaces between words: there each character is a word (Thai to Khmer, kana, Han).
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")


@dataclass(frozen=True)
class NearDuplicates:
    """What of a sequence of texts repeats an earlier one of its group.

    Attributes:
        first: of each text the index of the text that it repeats; its own where it repeats none.
    """

    first: tuple[int, ...]

    @property
    def keep(self) -> tuple[bool, ...]:
        """Of each text whether it stays: it repeats none that stays."""
        return tuple(i == first for i, first in enumerate(self.first))

    @property
    def n_texts(self) -> int:
        """How many were looked at."""
        return len(self.first)

    @property
    def n_repeats(self) -> int:
        """How many repeat another."""
        return self.n_texts - sum(self.keep)

    @property
    def n_repeated(self) -> int:
        """How many are repeated: clusters of two texts or more."""
        return len({first for i, first in enumerate(self.first) if i != first})


def near_duplicates(
    texts: Sequence[str], groups: Sequence[Hashable], *, threshold: float = THRESHOLD
) -> NearDuplicates:
    """Find the texts that are near-duplicates of an earlier one of their group that stays; deterministic.

    No two texts that stay were found to be as similar as the threshold, and each that goes is as similar to the one
    that stays for it: similarity is not passed on along a chain.

    Args:
        texts: upper and lower case, space and punctuation count for nothing. A text of fewer words than a shingle is
            like those of the same words alone; one without any word (punctuation, emoji, nothing) like those of the
            same characters.
        groups: of each text, its persona say; texts of different groups are never compared.
        threshold: Jaccard similarity from which on a text is a near-duplicate, above 0, at most 1.

    Raises:
        ValueError: a threshold out of its range, or not a group for each text.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: {threshold}; give a number above 0, at most 1")
    if len(texts) != len(groups):
        raise ValueError(f"groups: {len(groups)} for {len(texts)} texts; give one for each")
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    first = list(range(len(texts)))
    for indices in members.values():
        for i, found in zip(indices, _first_like([texts[i] for i in indices], threshold), strict=True):
            first[i] = indices[found]
    return NearDuplicates(tuple(first))


def shingles(text: str) -> list[bytes]:
    """The different pieces of :data:`SHINGLE_WORDS` words of a text, in the order in which they first appear."""
    words = _WORD.findall(text.casefold())
    if not words:
        return ["".join(text.split()).encode("utf-8", "backslashreplace")]
    n = max(1, len(words) - SHINGLE_WORDS + 1)
    pieces = (" ".join(words[i : i + SHINGLE_WORDS]).encode("utf-8", "backslashreplace") for i in range(n))
    return list(dict.fromkeys(pieces))


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band) of the signatures: the longest rows with which at most :data:`MAX_MISSED` are missed.

    A pair of similarity ``s`` is compared with probability ``1 - (1 - s^rows)^bands``.
    """
    rows = range(1, N_PERMUTATIONS // 2 + 1)
    sound = [n for n in rows if (1 - threshold**n) ** (N_PERMUTATIONS // n) <= MAX_MISSED]
    return N_PERMUTATIONS // max(sound, default=1), max(sound, default=1)


def _first_like(texts: Sequence[str], threshold: float) -> list[int]:
    """Of each text of one group the index of the first that stays and is as similar; its own where there is none."""
    from datasketch import MinHash, MinHashLSH

    found = list(range(len(texts)))
    if len(texts) < 2:
        return found
    sets = [np.fromiter((_hash(piece) for piece in shingles(text)), dtype=np.uint64) for text in texts]
    index = MinHashLSH(num_perm=N_PERMUTATIONS, params=bands(threshold))
    rows = np.zeros((len(texts), N_PERMUTATIONS), dtype=np.uint32)  # [texts, permutations], of those looked up
    same: dict[bytes, int] = {}  # very many copies of one text are not looked up
    signatures = MinHash.generator(
        ((each & np.uint64(2**32 - 1)).tolist() for each in sets),
        num_perm=N_PERMUTATIONS,
        seed=SEED,
        scheme="affine32",
        hashfunc=int,  # they are hashes already
    )
    for i, signature in enumerate(signatures):
        sets[i] = np.sort(sets[i])
        exact = sets[i].tobytes()
        if exact in same:
            found[i] = same[exact]
            continue
        rows[i] = signature.hashvalues
        candidates = np.sort(np.fromiter(index.query(signature), dtype=np.int64))
        if candidates.size > MOST_COMPARED:
            alike = (rows[candidates] == rows[i]).sum(axis=1)  # [candidates], an estimate of the similarity
            candidates = np.sort(candidates[np.argsort(-alike, kind="stable")[:MOST_COMPARED]])
        found[i] = next((int(k) for k in candidates if _jaccard(sets[i], sets[k]) >= threshold), i)
        same[exact] = found[i]
        if found[i] == i:
            index.insert(i, signature, check_duplication=False)
    return found


def _hash(piece: bytes) -> int:
    """64 bits: two of a million different pieces are taken for one with probability 3e-8."""
    return int.from_bytes(blake2b(piece, digest_size=8).digest(), "little")


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sorted arrays of different numbers: [shingles of a], [shingles of b]."""
    both = np.intersect1d(a, b, assume_unique=True).size
    return both / (a.size + b.size - both)
