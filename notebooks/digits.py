# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Handwritten digits, step by step
#
# The [digit-recognizer](https://www.kaggle.com/competitions/digit-recognizer) competition gives 42,000 labelled
# images of handwritten digits, 28 × 28 pixels each, and asks for the labels of 28,000 more. This notebook goes all the
# way: it looks at the data, turns the labels into one-hot vectors, finds the best machine to train on, trains a simple
# network and a good one, looks at what they get wrong, and writes `submission.csv`.
#
# On two CPU cores this takes about three minutes. The good network reads about 99.6% of digits it has never seen.
# Without the competition's data, everything runs on a built-in sample of 1,797 digits, and the figures are those of the
# sample.

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np
import pandas as pd

# %% [markdown]
# Which machine to use: `"auto"` takes a TPU if there is one, else GPUs, else the CPU. If you name one (`"tpu"`,
# `"gpu"`, `"cpu"`) and it is not there, the notebook stops, instead of silently training somewhere else.

# %% tags=["parameters"]
DEVICE = "auto"
BUILD = None  # a mark in the submission's record, set by `kaggle-digits kernel push`

# %% [markdown] tags=["package"]
# ## The code behind it
#
# The work is done by a small package, `kaggle_digits`. Its core is ten files, one for each step. They come first, in
# the order of the job. Open one to see how a step below works.

# %% [markdown]
# ## Where it runs, and why there
#
# A *strategy* decides which processors share the work. Ask for it before anything else, because it also chooses what
# computes under Keras: TensorFlow, or JAX on Kaggle's TPUs, which the TensorFlow there cannot use. That choice cannot
# change once Keras is imported.

# %%
from kaggle_digits.strategy import resolve_device

device = resolve_device(DEVICE)
print(device)

# %% [markdown]
# Each *replica* is a copy of the network. It computes its share of every batch; then all replicas exchange their
# gradients and take the same step, so their weights stay equal. The result is that of one device, only sooner.

# %% [markdown]
# On other machines, this would differ:
#
# | machine | strategy | replicas | rows of a batch of 256 on each |
# |---|---|---|---|
# | a CPU, or one GPU | none needed | 1 | 256 |
# | Kaggle's two T4 GPUs | TensorFlow's `MirroredStrategy` | 2 | 128 |
# | Kaggle's TPU v5e-8 | JAX: Keras' `DataParallel` | 8 | 32 |
#
# Nothing else changes below: the same cells run on all of them.

# %%
print(f"{device.replicas} here: each takes {256 // device.replicas} rows of a batch of 256")

# %% [markdown]
# ## The data
#
# `train.csv` has a label and 784 pixels in each row, `test.csv` the pixels only. A pixel is a whole number from 0
# (paper) to 255 (ink).

# %%
from kaggle_digits.data import find_source, load_test, load_train

source = find_source()
rows = load_train(source)
test_pixels = load_test(source)
print(f"{source}: {rows.pixels.shape} to learn from, {test_pixels.shape} to predict")

# %%
from IPython.display import HTML

text = (
    "No competition data: this ran on the built-in sample, and its submission cannot be uploaded. On Kaggle: Add "
    "Input, Competitions, Digit Recognizer. Then run all cells again."
)
red_box = f'<div style="background:#b00020;color:#fff;padding:1em;font-size:120%">{text}</div>'
warning = HTML(red_box) if source.is_sample else None
warning

# %% [markdown]
# All ten digits occur about equally often, so plain accuracy, correct / seen, is a fair measure.

# %%
try:
    from kaggle_digits.analysis import plots
except ModuleNotFoundError as error:  # Kaggle's TPU image may lack seaborn
    print(f"No plots: {error}")
    plots = None

plots and plots.plot_label_counts(rows.digits)

# %% [markdown]
# Four of each. Some are hard for people too.

# %%
some = np.concatenate([np.flatnonzero(rows.digits == digit)[:4] for digit in range(10)])
plots and plots.plot_digits(rows.pixels[some], rows.digits[some], columns=10)

# %% [markdown]
# The mean of all digits of a class. Where people write in different ways, it is blurred.

# %%
means = np.stack([rows.pixels[rows.digits == digit].mean(axis=0) for digit in range(10)])
plots and plots.plot_digits(means, [f"mean {digit}" for digit in range(10)], columns=10)

# %% [markdown]
# ## One-hot labels
#
# A network has ten outputs, one for each digit. So each label becomes ten numbers: a 1 at the place of the digit,
# 0 everywhere else.

# %%
from kaggle_digits.digits import one_hot

pd.DataFrame(one_hot(rows.digits[:5]).astype(int), index=pd.Index(rows.digits[:5], name="digit"))

# %% [markdown]
# ## What to measure on
#
# A network knows the rows it was trained on by heart. To measure how good it is, some rows are held out, 5% of
# every digit, and never trained on.

# %%
from kaggle_digits.data import split_rows

training, held_out = split_rows(rows, fraction=0.05, seed=0)
print(f"{len(training):,} rows to train on, {len(held_out):,} held out")

# %% [markdown]
# ## A simple network: the perceptron
#
# Three dense layers. Each unit of the first one sees every pixel, and nothing tells it which pixels are neighbours.

# %%
from kaggle_digits.models import build_model
from kaggle_digits.recipes import find_recipe

mlp = find_recipe("mlp-784-300")
build_model(mlp).summary()

# %%
from kaggle_digits.learners import Context
from kaggle_digits.train import train_run

# It builds and trains the network inside `device.scope()`, where every weight is made on every replica.
context = Context(device=device, source=source.name)
mlp_run = train_run(mlp, training, Path("runs/mlp"), held_out=held_out, context=context, resume=True)
pd.DataFrame(mlp_run.epochs).set_index("epoch")

# %% [markdown]
# ## A good network: convolutions
#
# A convolution looks at a few neighbouring pixels at a time, with the same weights everywhere, so a stroke is a stroke
# wherever it is. Batch normalisation keeps the numbers in range, the learning rate rises and falls once (one-cycle),
# and every digit is turned, stretched and shifted a little each time it is shown. The optimizer, Muon, makes each step
# equally long in all directions. Where the hardware has it, bfloat16 saves a third of the time.

# %%
cnn = find_recipe("fast")
build_model(cnn).summary()

# %%
cnn_device = resolve_device(DEVICE, precision=cnn.precision)
print(cnn_device)
context = Context(device=cnn_device, source=source.name)
cnn_run = train_run(cnn, training, Path("runs/cnn"), held_out=held_out, context=context, resume=True)
pd.DataFrame(cnn_run.epochs).set_index("epoch")

# %% [markdown]
# ## How they learned
#
# Left: the loss while training. Right: the share of digits read right, on held-out rows (solid) and while training
# (dashed). Augmented digits are harder than held-out ones, so the good network reads fewer of them.

# %%
plots and plots.plot_curves({run.recipe.name: run.epochs for run in (mlp_run, cnn_run)})

# %% [markdown]
# ## What the good one gets wrong
#
# Each row is a true digit, each column what the network reads.

# %%
probabilities = cnn_run.predict(held_out.pixels)
plots and plots.plot_confusion(probabilities, held_out.digits)

# %% [markdown]
# Its worst mistakes, those it was surest of: what the digit is, what was read, and how sure the network was. Would you
# have read them?

# %%
plots and plots.plot_worst(held_out.pixels, probabilities, held_out.digits)

# %% [markdown]
# ## Does it know when it is wrong?
#
# Of the digits that a network is 90% sure of, 90% should be right. But a network is too sure, or not sure enough. One
# number, the temperature, corrects that. It is found on the held-out rows, so on these rows it looks a little better
# than it is. Above: how many are right, against how sure the network is; on the dashed line it is honest. Below: how
# many digits there are.

# %%
from kaggle_digits.digits import calibrate

plots and plots.plot_reliability(calibrate(probabilities, cnn_run.temperature), held_out.digits)

# %% [markdown]
# ## The submission
#
# The file has the likeliest digit for every row of `test.csv`, below the header `ImageId,Label`. It is checked before
# anyone uploads it, and a record of how it was made is kept beside it. Without the competition's data, the file is made
# from the built-in sample, and its name says so.

# %%
from kaggle_digits.kaggle.records import write_checked

submission = Path("sample-submission.csv" if source.is_sample else "submission.csv")
counts = write_checked(submission, [cnn_run.predict(test_pixels)], [cnn_run], overwrite=True, build=BUILD)
pd.Series(counts, name="predicted").rename_axis("digit").to_frame().T

# %%
accuracy = cnn_run.accuracy
print(f"{submission}: {len(test_pixels):,} rows, checked; held-out accuracy {accuracy:.2%} of {len(held_out):,}")
warning
