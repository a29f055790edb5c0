"""From ``train.csv`` and ``test.csv`` of Kaggle's digit-recognizer competition to a checked ``submission.csv``.

The files become arrays (``data``). A recipe says what to train and how (``recipe``, ``recipes``); a strategy says where
(``strategy``). A learner turns recipe and rows into a trained predictor in a run folder (``learners``, ``train``,
``runs``). The arg-max of every prediction becomes a line of the submission file (``predict``, ``submission``), which is
checked, and uploaded if the user asks for it (``kaggle``). ``pipeline`` is the whole job.

========================== ============================================ ===========================================
word                       means                                        shape, dtype, range
========================== ============================================ ===========================================
``pixels``                 rows as Kaggle ships them                    (N, 784) uint8, 0–255, ink is bright
``images``                 what models eat                              (N, 28, 28, 1) float32, scaled by the recipe
``digits``                 the class as a number                        (N,) int64, 0–9
``labels``                 one-hot ``digits``                           (N, 10) float32
``logits, probabilities``  model output                                 (N, 10) float32
========================== ============================================ ===========================================

Importing this package is quick: the names in ``__all__`` are imported when they are first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

SIDE = 28
"""Pixels along each side of an image."""
PIXELS = SIDE * SIDE
"""Pixels in an image, and columns of ``pixels``."""
CLASSES = 10
"""The ten digits."""
