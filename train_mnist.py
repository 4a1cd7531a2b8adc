# %% [markdown]
"""
# Handwritten digits, read by a small convolutional network

How many handwritten digits does a small convolutional network misread after a few epochs, that is,
passes over the training pictures? Would you have read those?

    python train_mnist.py            # MNIST; downloads it (12 MB) if it is not there
    python train_mnist.py --sample   # 5,000 of its 70,000 pictures; needs no network

Expect 99.54% to be right (99.51 to 99.57; seeds 0, 1, 2) after one minute of training on two cores
of an AMD EPYC (Zen 5), in bfloat16.
"""

# %% [markdown]
# ## Set up
#
# `devices.start` names the device. Where the hardware is fast at numbers of 16 bits, the layers
# compute with those and keep their weights in 32: on the CPU above, 46 s of training, not 73.

# %%
from common import options

args = options.parse(__doc__, epochs=10, batch_size=200, learning_rate=3e-3)

from common import devices

device = devices.start(args, convolutional=True)

import math

import keras
import numpy as np
from sklearn.model_selection import train_test_split

from common import augmentation, datasets, evaluation, pipeline, plots, runs

keras.utils.set_random_seed(args.seed)
plots.set_up(args.show)
run = runs.Run("mnist", "cnn", args)

# %% [markdown]
# ## Load the data
#
# MNIST (LeCun, Cortes, Burges, 1998): 28x28 grey pictures; bytes from 0 (paper) to 255 (ink).

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load_mnist(args.data_dir, args.sample)
plots.set_note(source.note)
class_names = [str(digit) for digit in range(10)]
print(f"Training: x_train {x_train.shape}, y_train {y_train.shape}")
print(f"Test: x_test {x_test.shape}, y_test {y_test.shape}\n")

# %% [markdown]
# ## Explore the data
#
# The range of the values, how many pictures each class has, and whether the labels fit what you
# see. Classes of about equal size make accuracy a fair figure.

# %%
print(f"Values: {x_train.dtype} from {x_train.min()} to {x_train.max()}, mean {x_train.mean():.1f}")
print("Training pictures of each class:", *np.bincount(y_train))
print("Test pictures of each class:", *np.bincount(y_test))
first = np.transpose([np.flatnonzero(y_train == i)[:5] for i in range(len(class_names))]).ravel()
captions = [class_names[label] for label in y_train[first]]
title = "Ten digits, many hands: the first five training pictures of each"
plots.grid(run.folder / "examples.png", x_train[first], captions, title, len(class_names))

# %% [markdown]
# ## Prepare the input pipeline
#
# A tenth of the training pictures, the same share of each class, is set aside for validation. All
# choices were made on it, and it picks the best epoch: nothing is chosen on the test set.
#
# Small shifts, turns and zooms make new pictures of the same digits at every epoch. No flips: a
# mirrored 2 is no digit, and a 6 on its head is a 9. (`RandomAffine` is Keras's RandomRotation,
# RandomTranslation and RandomZoom in one step: each pixel is computed once, not three times.)
#
# The order matters: cache, shuffle, batch, augment, prefetch (the next batches, meanwhile). With
# augmentation before the cache, every epoch would repeat the distortions of the first. For arrays
# the cache gains nothing; it saves files from being read and decoded at every epoch.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
augment = augmentation.RandomAffine(
    rotation=0.03,  # of a full turn: up to 11 degrees
    translation=0.08,  # of 28 pixels: up to about 2
    zoom=(-0.1, 0.1),  # up to 10% less or more is seen
    dtype="uint8",  # bytes stay bytes
)
training = pipeline.training_batches(x_train, y_train, args.batch_size, augment, seed=args.seed)
undistorted = pipeline.evaluation_batches(x_train, y_train, args.batch_size)
validation = pipeline.evaluation_batches(x_validation, y_validation, args.batch_size)
test = pipeline.evaluation_batches(x_test, y_test, args.batch_size)
run.check_data(x_train, y_train, x_validation, y_validation)  # for --resume
print(f"\n{len(x_train):,} pictures to train on, {len(x_validation):,} to validate\n")

examples = x_train[[np.flatnonzero(y_train == i)[0] for i in range(len(class_names))]]
distorted = [keras.ops.convert_to_numpy(augment(examples, training=True)) for _ in range(4)]
title = "Shifted, turned and zoomed, each is still the same digit"
plots.rows(run.folder / "augmented.png", [examples, *distorted], title)

# %% [markdown]
# ## Build the model
#
# A convolution slides small learned filters, here 3x3, over the picture: the first layer's can
# answer to edges, later ones to shapes made of them. Pooling keeps the strongest answer of 2x2
# neighbors, so that a small shift matters less. Dense layers weigh all answers; dropout silences
# a random share of units in training, so that none relies on another. The last layer gives ten
# logits: scores of any size, one per digit. `scope` shares the work where there are several GPUs.

# %%
with device.scope():
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            keras.layers.Rescaling(1 / 255),  # 0..255 -> 0..1, inside the model: it takes bytes
            keras.layers.Conv2D(32, kernel_size=3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, kernel_size=3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(128, kernel_size=3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(class_names), dtype="float32"),  # the loss is safer in 32 bits
        ]
    )
model.summary()

# %% [markdown]
# ## Compile the model
#
# The **loss** is the mean of -ln(probability of the true digit); a softmax makes probabilities of
# logits, e^logit / (sum of all ten e^logit). The **optimizer**, Adam, moves the weights down the
# slope of the loss after each batch, in steps that grow for a fifth of the training and shrink
# along a cosine to 0 (mean of three seeds: 28 of 6,000 validation pictures misread; with a
# learning rate of 0.001 throughout, 35). The **metric**, accuracy, has no slope to go down.
#
# An untrained network spreads its guesses, which costs ln(10) = 2.303 with ten digits: a first
# loss far from it means that something is wired wrong.

# %%
steps = args.epochs * len(training)
warmup = steps // 5
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, decay_steps=steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
)
with device.scope():
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(schedule),
        metrics=["accuracy"],
    )
untrained_loss, _ = model.evaluate(validation, verbose=0)
print(f"\nUntrained loss: {untrained_loss:.3f} (guessing: {math.log(len(class_names)):.3f})\n")

# %% [markdown]
# ## Train the model
#
# After the last epoch, the run's callbacks put back the weights of the one with the highest
# validation accuracy. Ctrl-C ends the training early, with the best weights so far.

# %%
history = model.fit(
    training,
    validation_data=validation,
    epochs=args.epochs,
    shuffle=False,  # the pipeline shuffles; Keras's own shuffling is for arrays
    callbacks=run.callbacks,
    verbose=run.verbose,
)

# %% [markdown]
# ## Look at the learning curves
#
# Validation does better than training here: distortions, dropout and the mean over an epoch in
# which the network improves hold the training figures back. A validation loss that rises while
# the training loss falls is the sign of overfitting.

# %%
best = plots.best_epoch(history.history)
best_accuracy = history.history["val_accuracy"][best - 1]
print(f"\nBest epoch: {best}, with a validation accuracy of {best_accuracy:.2%}\n")
title = f"Validation accuracy is highest in epoch {best}: {best_accuracy:.2%}"
plots.curves(run.folder / "curves.png", history.history, title)

# %% [markdown]
# ## Evaluate on the test set
#
# Precision: the share of pictures read as 7 that are a 7. Recall: the share of 7s read as 7. F1:
# their harmonic mean, near the lower of the two. Training pictures are judged undistorted here.

# %%
with device.scope():
    classifier = keras.Sequential([*model.layers, keras.layers.Softmax(dtype="float32")])
results = {}
sets = {"train": (undistorted, y_train), "validation": (validation, y_validation)}
for part, (batches, labels) in (sets | {"test": (test, y_test)}).items():
    probabilities = classifier.predict(batches, verbose=0)  # the last: those of the test set
    results[part] = evaluation.evaluate(labels, probabilities, class_names)
    print(f"{part:>10}: {results[part]['accuracy']:.2%} right, loss {results[part]['loss']:.4f}")
report = evaluation.report(y_test, probabilities, class_names)
(run.folder / "report.txt").write_text(report, encoding="utf-8")
print(f"\n{report}")

matrix = evaluation.confusion_matrix(y_test, probabilities)
most_often = evaluation.most_confused(matrix, class_names)
plots.confusion_matrix(run.folder / "confusion_matrix.png", matrix, class_names, most_often)

# %% [markdown]
# ## Look at predictions and mistakes
#
# The first twenty test pictures, each with the digit that the network reads and how sure it is:
# right in blue, wrong in red. Then the mistakes that it was surest of: what do you read?

# %%
predicted = (x_test, y_test, probabilities, class_names)
title = "The first twenty test pictures, as the network reads them"
plots.predictions(run.folder / "predictions.png", *predicted, range(len(x_test))[:20], title)
wrong = evaluation.mistakes(y_test, probabilities)
title = f"{len(wrong):,} of {len(x_test):,} are wrong; here the most confident of them"
plots.predictions(run.folder / "mistakes.png", *predicted, wrong[:20], title)

# %% [markdown]
# ## Save the model, and load it again
#
# One file holds the layers and their weights, from the rescaling to the softmax: it takes
# pictures as bytes and gives probabilities.

# %%
classifier.save(run.folder / "model.keras")
loaded = keras.saving.load_model(run.folder / "model.keras")
difference = np.abs(loaded.predict(test, verbose=0) - probabilities).max()
print(f"Loaded from model.keras, its probabilities differ by {difference:.1g} at the most")

# %% [markdown]
# ## The answer to the question

# %%
print(
    f"\nWith the weights of epoch {best} of {len(history.epoch)}, it misreads {len(wrong)} of "
    f"{len(x_test):,} digits: {results['test']['accuracy']:.2%} are right.\n"
    f"{most_often}. Would you have read them? See mistakes.png.\n"
)
run.finish(device, source, model.count_params(), history, results)
