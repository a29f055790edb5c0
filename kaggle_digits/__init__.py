"""From ``train.csv`` and ``test.csv`` of Kaggle's digit-recognizer competition to a checked ``submission.csv``.

The data goes one way: ``data`` reads the files, a ``recipes.Recipe`` says which network to build and how to train
it, ``strategy`` says where, ``train`` leaves a run folder, ``predict`` turns run folders into digits,
``submission`` writes and checks the file, and ``submit`` composes them.

========================== ============================================ ===========================================
word                       means                                        shape, dtype, range
========================== ============================================ ===========================================
``pixels``                 rows as Kaggle ships them                    (N, 784) uint8, 0–255, ink is bright
``images``                 what models eat                              (N, 28, 28, 1) float32, scaled by the recipe
``digits``                 the class as a number                        (N,) int64, 0–9
``labels``                 one-hot ``digits``                           (N, 10) float32
``logits, probabilities``  model output                                 (N, 10) float32
========================== ============================================ ===========================================

Importing this package imports neither Keras nor TensorFlow.
"""

__version__ = "0.1.0"
