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
# Here are forty digits that people wrote by hand. You can read them. How does a computer learn to?

# %%
# %matplotlib inline
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

# scikit-learn brings them along. It is not imported yet: on Macs, TensorFlow has to come first.
file = (
    Path(find_spec("sklearn").origin).with_name("datasets") / "data" / "digits.csv.gz"
)
strip = (
    np.loadtxt(file, delimiter=",", max_rows=40)[:, :64]
    .reshape(4, 10, 8, 8)
    .swapaxes(1, 2)
    .reshape(32, 80)
)
plt.figure(figsize=(10, 4))
plt.imshow(strip, cmap="gray_r")
plt.axis("off")
plt.show()

# %% [markdown]
# In this notebook you train five networks. The first is that of a published tutorial. Each of the others takes one step
# further, and a table shows what it gains. At the end you hand in your own `submission.csv` to the competition
# [digit-recognizer](https://www.kaggle.com/competitions/digit-recognizer): 42,000 images with labels to learn from, and
# 28,000 without, to be read.
#
# With the competition's data this takes about six minutes on two CPU cores. Without it, everything runs on a built-in
# sample of 1,797 digits, in less than two minutes. They were scanned at 8 × 8 pixels, and are enlarged
# here. The sample's figures differ, but the order of the networks is the same.
#
# Cells that begin with `# Now you` are yours. Change them, run them, and see whether you guessed right.

# %%
from dataclasses import replace
from tempfile import TemporaryDirectory

# %% [markdown]
# Which machine to use: `"auto"` takes a TPU if there is one, else GPUs, else the CPU. If you name one (`"tpu"`,
# `"gpu"`, `"cpu"`) and it is not there, the notebook stops, instead of silently training somewhere else.

# %% tags=["parameters"]
DEVICE = "auto"
BUILD = None  # a mark in the submission's record, set by `kaggle-digits kernel push`

# %% [markdown] tags=["package"]
# ## The code behind it
#
# The work is done by a small package, `kaggle_digits`. Its core is ten files, one for each step. The Kaggle version of
# this notebook carries them in the cells below, in the order of the job. Open one to see how a step works.

# %% [markdown]
# ## Where it runs, and why there
#
# On a laptop you can skip this part: the answer is "cpu".
#
# A *strategy* decides which processors share the work. Ask for it before anything else, because it also chooses what
# computes under Keras: TensorFlow, or JAX on Kaggle's TPUs, which the TensorFlow there cannot use. That choice cannot
# change once Keras is imported.

# %%
from kaggle_digits.strategy import resolve_device

device = resolve_device(DEVICE)
print(device)

import pandas as pd  # after TensorFlow: the other way round, training can hang on Macs

# %% [markdown]
# Each *replica* is a copy of the network. It reads its share of every batch of digits; then all replicas agree on one
# correction of their weights, so that these stay equal. The result is that of one device, only sooner.
#
# | machine | strategy | replicas | rows of a batch of 256 on each |
# |---|---|---|---|
# | a CPU, or one GPU | none needed | 1 | 256 |
# | Kaggle's two T4 GPUs | TensorFlow's `MirroredStrategy` | 2 | 128 |
# | Kaggle's TPU v5e-8 | JAX: Keras' `DataParallel` | 8 | 32 |
#
# Nothing else changes below: the same cells run on all of them.

# %%
print(
    f"{device.replicas} here: each takes {256 // device.replicas} rows of a batch of 256"
)

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
# Four of each. Some are hard for people too.

# %%
try:
    import seaborn  # noqa: F401
    from kaggle_digits.analysis import plots
except ModuleNotFoundError as error:  # Kaggle's TPU image may lack seaborn
    print(f"No plots: {error}")
    plots = None

some = np.concatenate([np.flatnonzero(rows.digits == digit)[:4] for digit in range(10)])
plots and plots.plot_digits(rows.pixels[some], rows.digits[some], columns=10)

# %% [markdown]
# All ten digits occur about equally often, so plain accuracy, correct / seen, is a fair measure. To see that, compare it
# with somebody who always answers with the commonest digit:

# %%
counts = np.bincount(rows.digits, minlength=10)
print(
    f"between {counts.min():,} and {counts.max():,} of each; always the commonest: {counts.max() / len(rows):.1%} right"
)
plots and plots.plot_label_counts(rows.digits)

# %%
# Now you: look at twenty of one digit. Hint: try 1, 4, 7 and 9.
# You should see that not everybody writes a digit in the same way.
wanted = 4
some = np.flatnonzero(rows.digits == wanted)[:20]
plots and plots.plot_digits(rows.pixels[some], rows.digits[some], columns=10)

# %% [markdown]
# ## One-hot labels
#
# A network has ten outputs, one for each digit. So each label becomes ten numbers: a 1 at the place of the digit,
# 0 everywhere else.

# %%
from kaggle_digits.digits import one_hot

pd.DataFrame(
    one_hot(rows.digits[:5]).astype(int), index=pd.Index(rows.digits[:5], name="digit")
)

# %%
# Now you: move the 1. Hint: argmax gives the place of the largest number, from 0.
# You should see the digit that the ten numbers stand for.
int(np.argmax([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]))

# %% [markdown]
# ## What to measure on
#
# A network can know the rows it was trained on by heart. To measure how good it is, some rows are held out, the same
# share of every digit, and never trained on.

# %%
from kaggle_digits.data import split_rows

training, held_out = split_rows(
    rows, fraction=0.2 if source.is_sample else 0.05, seed=0
)
print(f"{len(training):,} rows to train on, {len(held_out):,} held out")

# %% [markdown]
# All networks below are measured on these held-out rows. This function trains one and adds a line to the table. A
# finished training is not repeated if you run its cell again. If you change a recipe, give it a new name.

# %%
from kaggle_digits.learners import Context
from kaggle_digits.train import train_run

steps = {}


def context_of(recipe):
    """Return where a recipe is trained: a device that may compute in bfloat16."""
    device = resolve_device(DEVICE, precision=recipe.precision)
    return Context(device=device, source=source.name)


def train(what, recipe):
    """Train a recipe on all training rows. Return the table of all steps so far."""
    folder = Path("runs") / f"{recipe.name}-{len(training)}-rows"
    context = context_of(recipe)
    steps[what] = train_run(
        recipe, training, folder, held_out=held_out, context=context, resume=True
    )
    accuracy = pd.Series({name: run.accuracy for name, run in steps.items()})
    gain = (100 * accuracy.diff()).map("{:+.2f}".format).replace("+nan", "")
    table = {
        "held-out accuracy": accuracy.map("{:.2%}".format),
        "gain in points": gain,
        "misread": ((1 - accuracy) * len(held_out)).round().astype(int),
        "seconds": [round(run.seconds) for run in steps.values()],
    }
    return pd.DataFrame(table).rename_axis("step")


# %% [markdown]
# And this one is for your own tries. It trains on fewer rows and adds nothing to the table.


# %%
def try_out(recipe):
    """Train a recipe of yours on at most 2,000 rows, for a quick answer."""
    few = training.take(np.arange(min(2_000, len(training))))
    with TemporaryDirectory() as folder:
        run = train_run(
            recipe,
            few,
            Path(folder) / "run",
            held_out=held_out,
            context=context_of(recipe),
        )
    weights = run.predictor.parameters
    print(f"{run.accuracy:.2%} in {run.seconds:.0f} s, with {weights:,} weights")


# %% [markdown]
# ## Six words
#
# | word | meaning |
# |---|---|
# | weight | a number that the network learns |
# | loss | how wrong the outputs are; training makes it smaller |
# | gradient | for each weight: how the loss changes if the weight grows a little |
# | learning rate | how far a weight is moved against its gradient in one step |
# | batch | the rows that are looked at for one step |
# | epoch | all training rows once |
#
# ## Step 1: the tutorial's perceptron, as it was published
#
# Three dense layers. Each unit multiplies all its inputs, for the first layer the 28 × 28 = 784 pixels, by weights of its
# own and adds up the results. The two hidden layers squeeze their sums into 0 to 1 with a *sigmoid*. The ten outputs should
# come close to the one-hot label. The loss is the squared error: the mean of the squared differences.

# %%
from kaggle_digits.models import build_model
from kaggle_digits.recipes import find_recipe

published = find_recipe("mlp-784-300")


def layers_of(recipe):
    """Return a table of a network's layers: what they give out, and their weights."""
    layers = build_model(recipe).layers
    table = {
        "layer": [type(layer).__name__ for layer in layers],
        "gives": [" × ".join(map(str, layer.output.shape[1:])) for layer in layers],
        "weights": [f"{layer.count_params():,}" for layer in layers],
    }
    return pd.DataFrame(table)


layers_of(published)

# %%
train("1  as published", published)

# %% [markdown]
# Nine of ten are right, which is not bad, but look at what happens inside. The pixels go up to 255, so the sums of the
# first layer are large. There a sigmoid is flat: it gives almost 0 or almost 1, and a small change of a weight changes
# almost nothing. Before any training, this is the share of such units, on 200 rows:


# %%
def share_of_flat_units(pixels):
    """Return how many outputs of the untrained first layer are below 0.01 or above 0.99."""
    flatten, first, *_ = build_model(published).layers
    outputs = np.asarray(
        first(flatten(pixels.reshape(-1, 28, 28, 1).astype("float32")))
    )
    return np.mean((outputs < 0.01) | (outputs > 0.99))


print(
    f"pixels up to 255: {share_of_flat_units(training.pixels[:200]):.0%} of the units are flat"
)
print(f"pixels up to 1: {share_of_flat_units(training.pixels[:200] / 255):.0%}")

# %%
# Now you: how large may pixels be, if fewer than 5% of the units are to be flat?
# Hint: try 3, 10 and 30. You should find a number below 30.
largest = 30
print(
    f"pixels up to {largest}: {share_of_flat_units(training.pixels[:200] / 255 * largest):.0%} of the units are flat"
)

# %% [markdown]
# ## Step 2: scaled pixels
#
# So we divide the pixels by 255, and change nothing else.

# %%
scaled = replace(published, name="step-2", pixel_scale=255.0)
train("2  + pixels from 0 to 1", scaled)

# %% [markdown]
# It has become worse! No unit is flat at first, but the gradient of a weight is proportional to its input. With inputs
# that are 255 times smaller, the first layer moves in much smaller steps, and in ten epochs the network does not get far. The
# loss of each epoch shows it:

# %%
first_two = ["1  as published", "2  + pixels from 0 to 1"]
losses = {what: [epoch["loss"] for epoch in steps[what].epochs] for what in first_two}
numbers = pd.RangeIndex(1, published.epochs + 1, name="epoch")
pd.DataFrame(losses, index=numbers).T.round(4)

# %%
# Now you: does it need longer steps and more time? Hint: compare a learning rate of 0.01
# and 10 epochs with 0.1 and 20. You should see that it learns much more.
for learning_rate, epochs in ((0.01, 10), (0.1, 20)):
    try_out(replace(scaled, learning_rate=learning_rate, epochs=epochs))

# %% [markdown]
# ## Step 3: ReLU and cross-entropy
#
# Two changes that belong together. A *ReLU* lets positive sums through as they are, so it is never flat above 0. And
# *cross-entropy* is a loss for choices: the outputs are turned into ten probabilities, and the loss is smaller, the more
# probable the right digit is. The squared error wants the output of the right digit to be exactly 1, and punishes 5 as
# much as −3. If the other nine outputs are 0, the two losses are:

# %%
output = np.array([-3, 0, 1, 2, 5])
two_losses = {
    "squared error": (output - 1) ** 2 / 10,
    "cross-entropy": np.log(1 + 9 * np.exp(-output)),
}
names = pd.Index(output, name="output of the right digit")
pd.DataFrame(two_losses, index=names).round(3)

# %%
relu_layers = (
    ("Flatten", {}),
    ("Dense", {"units": 784, "activation": "relu"}),
    ("Dense", {"units": 300, "activation": "relu"}),
    ("Dense", {"units": 10}),
)
rectified = replace(scaled, name="step-3", layers=relu_layers, loss="crossentropy")
train("3  + ReLU and cross-entropy", rectified)

# %%
# Now you: does it need 784 and 300 units? Hint: 200 and 100 have a fifth of the weights.
# You should see that the smaller network is only a little worse.
units = 200, 100
hidden = [("Dense", {"units": count, "activation": "relu"}) for count in units]
small = replace(
    rectified, name="small", layers=(("Flatten", {}), *hidden, ("Dense", {"units": 10}))
)
for recipe in (rectified, small):
    try_out(recipe)

# %% [markdown]
# ## Step 4: convolutions
#
# The perceptron does not know which pixels are neighbours. A *convolution* looks at a few neighbouring pixels at a time,
# and it has the same weights everywhere, so a stroke should be a stroke wherever it is. Between the convolutions, *pooling*
# keeps the largest of 2 × 2 numbers, and *batch normalisation* keeps the numbers in range. Loss and optimizer are those of
# step 3, but two epochs are enough.

# %%
best = find_recipe("fast")
convolutional = replace(rectified, name="step-4", layers=best.layers, epochs=2)
layers_of(convolutional)

# %%
train("4  + convolutions", convolutional)

# %% [markdown]
# Is a stroke really a stroke wherever it is? Shift all held-out digits to the right. Neither network was trained on
# shifted digits.


# %%
def accuracy_when_shifted(run, shift):
    """Return the share of held-out digits that are read right after a shift in pixels."""
    images = np.roll(held_out.pixels.reshape(-1, 28, 28), shift, axis=2)
    read = run.predict(images.reshape(-1, 784)).argmax(axis=1)
    return np.mean(read == held_out.digits)


shifts = [0, 1, 2, 3, 4]
two = ["3  + ReLU and cross-entropy", "4  + convolutions"]
shifted = {
    what: [f"{accuracy_when_shifted(steps[what], shift):.1%}" for shift in shifts]
    for what in two
}
pd.DataFrame(shifted, index=pd.Index(shifts, name="shift in pixels")).T

# %% [markdown]
# Not quite: both read shifted digits worse. But the convolutional network loses much less, with a fifth of the weights. In
# its last two layers, position still matters.

# %%
# Now you: leave a convolution out. Hint: a convolution and the layers after it form a
# group; this leaves out the third (7 to 10). You should see that the shorter network has
# more weights, because more numbers reach the dense layer, and reads hardly any better.
kinds = [
    layer if isinstance(layer, str) else layer[0] for layer in convolutional.layers
]
print(dict(enumerate(kinds)))
shorter = convolutional.layers[:7] + convolutional.layers[11:]
for layers in (convolutional.layers, shorter):
    try_out(replace(convolutional, layers=layers))

# %% [markdown]
# ## Step 5: the same network, trained better
#
# The layers stay as they are. What changes is the training, in several ways at once:
#
# - Each digit is turned, stretched and shifted a little each time it is shown, so that the network never sees the same
#   image twice.
# - The optimizer is Muon, which keeps a few directions from dominating each step.
# - The learning rate rises and falls once (one-cycle).
# - When it reads, an image of which the network is unsure is read five times: as it is, and shifted by one pixel in each
#   direction. The probabilities are averaged.
#
# `best.settings()` lists them all. This is one digit, as the network might see it in ten epochs:

# %%
from kaggle_digits.learners.images import augment_pixels

ten_times = np.repeat(training.pixels[:1], 10, axis=0)
seen = augment_pixels(ten_times, best.augmentation, np.random.default_rng(0))
plots and plots.plot_digits(seen, [""] * 10, columns=10)

# %%
train("5  + better training", best)

# %%
# Now you: how far does it get with at most 2,000 rows? Hint: guess first.
# You should see that it beats step 1, which had all rows, by far.
try_out(best)

# %% [markdown]
# ## How they learned
#
# Left: the loss while training. It says little here, because the first two steps have another kind of loss than the others.
# Right: the share of digits read right, on held-out rows (solid) and while training (dashed).

# %%
plots and plots.plot_curves({what: run.epochs for what, run in steps.items()})

# %% [markdown]
# A network that reads its own rows much better than new ones has begun to learn them by heart. The share while training
# is counted as training goes on, so it lags behind a little. Both, in the last epoch:

# %%
last = pd.DataFrame({what: run.epochs[-1] for what, run in steps.items()}).T
columns = {"accuracy": "while training", "validation_accuracy": "held out"}
last[list(columns)].rename(columns=columns).map("{:.2%}".format)

# %% [markdown]
# ## What the best one gets wrong
#
# This is a *confusion matrix*: each row is a true digit, each column what the network reads.

# %%
cnn_run = steps["5  + better training"]
probabilities = cnn_run.predict(held_out.pixels)
plots and plots.plot_confusion(probabilities, held_out.digits)

# %% [markdown]
# Its worst mistakes, those it was surest of: what the digit is, what was read, and how sure the network was. (On the sample
# there may be only one.) Would you have read them?

# %%
plots and plots.plot_worst(held_out.pixels, probabilities, held_out.digits)

# %%
# Now you: what does another step get wrong? Hint: the names of the steps are in `list(steps)`.
# You should see more mistakes, and digits that you can read.
other = steps["3  + ReLU and cross-entropy"].predict(held_out.pixels)
plots and plots.plot_worst(held_out.pixels, other, held_out.digits)

# %% [markdown]
# ## Does it know when it is wrong?
#
# Of the digits that a network is 90% sure of, 90% should be right. But a network is often too sure, or not sure enough. One
# number, the temperature, corrects that. It is found on the held-out rows, so on these rows it looks a little better than it
# is. Above: how many are right, against how sure the network is; on the dashed line it is exactly as sure as it should be.
# Below: how many digits there are. A point that stands for a few digits means little.

# %%
from kaggle_digits.digits import calibrate

plots and plots.plot_reliability(
    calibrate(probabilities, cnn_run.temperature), held_out.digits
)

# %%
# Now you: choose how sure the network has to be. Hint: each digit that is left to a
# person costs a second. Try 0.5, 0.9 and 0.99. You should see fewer mistakes and more
# digits to look at, the higher the limit is.
limit = 0.9
calibrated = calibrate(probabilities, cnn_run.temperature)
is_sure = calibrated.max(axis=1) >= limit
is_wrong = calibrated.argmax(axis=1) != held_out.digits
print(f"{(~is_sure).sum()} to look at; {(is_sure & is_wrong).sum()} mistakes remain")

# %% [markdown]
# ## Your submission
#
# The file has the likeliest digit for every row of `test.csv`, below the header `ImageId,Label`. It is checked before
# anyone uploads it, and a record of how it was made is kept beside it. Without the competition's data, the file is made
# from the built-in sample, and its name says so.

# %%
from kaggle_digits.kaggle.records import write_checked

# Now you: hand in a network of your own. Hint: this makes one that trains longer:
# train("6  mine", replace(best, name="mine", epochs=8)). You should see its accuracy below.
mine = steps["5  + better training"]
submission = Path("sample-submission.csv" if source.is_sample else "submission.csv")
counts = write_checked(
    submission, [mine.predict(test_pixels)], [mine], overwrite=True, build=BUILD
)
pd.Series(counts, name="predicted").rename_axis("digit").to_frame().T

# %%
print(
    f"{submission}: {len(test_pixels):,} rows, checked; held-out accuracy {mine.accuracy:.2%} of {len(held_out):,}"
)
warning

# %% [markdown]
# On Kaggle, save a version of this notebook and choose *Submit to competition*. On your own computer, run
# `kaggle-digits upload submission.csv -m "my first"`. Expect about a tenth of a point less than on
# the held-out rows.
#
# What next? Write the recipe of a network of your own, and compare it with these. Or draw digits yourself, with
# `kaggle-digits pad`, and see which of them the network gets wrong.
