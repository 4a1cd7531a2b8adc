# %% [markdown]
"""
# Ten kinds of photographs, taken as rows of numbers, and as pictures

How far does a network get with photographs when nothing tells it which pixels are neighbors, and
how far when it looks at small patches, wherever they are? The first is a multi-layer perceptron
(MLP), the second a convolutional network (CNN).

    python train_cifar10.py               # the MLP, on CIFAR-10; downloads it (170 MB)
    python train_cifar10.py --model cnn   # the CNN
    python train_cifar10.py --sample      # on 6,000 drawings made here; needs no network

Expect 66.1% of the MLP (65.9 to 66.5; seeds 0, 1, 2) after 8 to 10 minutes of training and 92.1% of
the CNN after 21 (seed 0; in bfloat16), on two cores of an AMD EPYC (Zen 5).
"""

# %% [markdown]
# ## Set up
#
# `devices.start` names the device. Where the hardware is fast at numbers of 16 bits, the layers of
# the CNN compute with those and keep their weights in 32: on the CPU above, 139 ms a step instead
# of 212. No tutorial that we know of does this on a CPU.

# %%
from common import options

args = options.parse(
    __doc__,
    epochs={"mlp": 40, "cnn": 26},
    batch_size={"mlp": 250, "cnn": 125},
    learning_rate=2e-3,
)

from common import devices

device = devices.start(args, convolutional=args.model == "cnn")

import math

import keras
import numpy as np
from sklearn.model_selection import train_test_split

from common import datasets, evaluation, old_runs, pipeline, plots

keras.utils.set_random_seed(args.seed)
plots.set_up(args.show)
run = old_runs.Run("cifar10", args.model, args)

# %% [markdown]
# ## Load the data
#
# CIFAR-10 (Krizhevsky, 2009): 60,000 color photographs, shrunk to 32x32 pixels, gathered from the
# web and sorted by hand. They come in six files of 10,000, five for training, joined here, and one
# for testing; of each class 5,000 and 1,000.

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load_cifar10(args.data_dir, args.sample)
plots.set_note(source.note)
class_names = ["airplane", "automobile", "bird", "cat", "deer"]
class_names += ["dog", "frog", "horse", "ship", "truck"]
print(f"Training: x_train {x_train.shape}, y_train {y_train.shape}")
print(f"Test: x_test {x_test.shape}, y_test {y_test.shape}\n")

# %% [markdown]
# ## Explore and clean the data
#
# The range of the values, how many pictures each class has, and whether the labels fit what you
# see. Classes of equal size make accuracy a fair figure. Of training pictures that are the same
# byte for byte one is kept, and none that the test set has: it would be known by heart.
# Near-duplicates stay (3.3% of the test set have one; Barz and Denzler, 2020).

# %%
print(f"Values: {x_train.dtype} from {x_train.min()} to {x_train.max()}, mean {x_train.mean():.1f}")
print("Training pictures of each class:", *np.bincount(y_train))
print("Test pictures of each class:", *np.bincount(y_test))
hashes = [hash(picture.tobytes()) for picture in x_train]  # 64 bits: no two are alike by chance
seen = {hash(picture.tobytes()) for picture in x_test}
new = []  # indices of the training pictures not seen before
for i, value in enumerate(hashes):
    if value not in seen:
        seen.add(value)
        new.append(i)
print(f"Training pictures that are there again, or in the test set: {len(x_train) - len(new)}")
x_train, y_train = x_train[new], y_train[new]

first = [x_train[np.flatnonzero(y_train == i)[:10]] for i in range(len(class_names))]
title = "Ten training pictures of each class: colors and places vary, shapes recur"
plots.rows(run.folder / "examples.png", first, title, class_names)

# %% [markdown]
# ## Prepare the input pipeline
#
# A tenth of the training pictures, the same share of each class, is set aside for validation. All
# choices were made on it, and it picks the best epoch: nothing is chosen on the test set.
#
# Things keep their names when they are mirrored or moved a little. Mirrored and shifted pictures,
# new ones at every epoch, make it harder for both networks to learn the pictures by heart. To an
# MLP, which knows no neighbors, they also show that a shift means nothing. They are shifted by
# whole pixels: between those, a shift blurs, and the pictures to be judged are not blurred.
#
# The order matters: cache, shuffle, batch, augment, prefetch (the next batches, meanwhile). With
# augmentation before the cache, every epoch would repeat the distortions of the first. For arrays
# the cache gains nothing; it saves files from being read and decoded at every epoch.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
shift = {"fill_mode": "reflect", "interpolation": "nearest"}  # by whole pixels: no blur
augment = keras.layers.Pipeline(
    [
        keras.layers.RandomFlip("horizontal", dtype="uint8"),  # bytes stay bytes
        keras.layers.RandomTranslation(0.1, 0.1, **shift, dtype="uint8"),  # of 32 pixels: up to 3
    ]
)
training = pipeline.training_batches(x_train, y_train, args.batch_size, augment, seed=args.seed)
undistorted = pipeline.evaluation_batches(x_train, y_train, args.batch_size)
validation = pipeline.evaluation_batches(x_validation, y_validation, args.batch_size)
test = pipeline.evaluation_batches(x_test, y_test, args.batch_size)
run.check_data(x_train, y_train, x_validation, y_validation)  # for --resume
print(f"\n{len(x_train):,} pictures to train on, {len(x_validation):,} to validate\n")

examples = x_train[[np.flatnonzero(y_train == i)[0] for i in range(len(class_names))]]
distorted = [keras.ops.convert_to_numpy(augment(examples, training=True)) for _ in range(4)]
title = "Mirrored and shifted, each is still the same thing"
plots.rows(run.folder / "augmented.png", [examples, *distorted], title)

# %% [markdown]
# ## Build the model
#
# **The MLP.** `Flatten` lays a picture out as one row of 3,072 numbers (32 x 32 x 3). Each unit of
# a dense layer adds up all numbers of the layer before, each times a learned weight. **Batch
# normalization** brings each unit's answers to a mean of 0 and a spread of 1 over the batch (later,
# by running means of them), then scales and shifts them as it learns; it lets larger steps be
# taken. ReLU keeps what is positive. **Dropout** silences a random share of the units at each step
# of the training, so that none can rely on another to remember a picture.
#
# **The CNN.** A convolution slides small learned filters, here 3x3, over the picture: what is
# learned of one place holds at every other. Pooling keeps the strongest answer of 2x2 neighbors;
# before the normalization, it leaves a quarter of the numbers to normalize. A first layer looks at
# every pixel, three blocks at ever larger patches; the last pooling keeps each filter's strongest
# answer in the whole picture.
#
# Both end in ten logits: scores of any size, one per class.


# %%
def dense(units):
    """Fully connected units, normalized, with dropout behind them."""
    return [
        keras.layers.Dense(units, use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),  # of the running means; it shifts: no bias
        keras.layers.ReLU(),
        keras.layers.Dropout(0.1),
    ]


def block(filters):
    """Two convolutions of `filters` filters; pooling between them halves height and width."""
    return [
        keras.layers.Conv2D(filters, kernel_size=3, padding="same", use_bias=False),
        keras.layers.MaxPooling2D(),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Conv2D(filters, kernel_size=3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
    ]


hidden = {
    "mlp": [keras.layers.Flatten(), *dense(2048), *dense(1024), *dense(512)],
    "cnn": [
        keras.layers.Conv2D(32, kernel_size=3, padding="same", activation="relu"),
        *block(64),
        *block(128),
        *block(256),
        keras.layers.GlobalMaxPooling2D(),
    ],
}
model = keras.Sequential(
    [
        keras.Input(shape=(32, 32, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),  # 0..255 -> -1..1, about 0; takes bytes
        *hidden[args.model],
        keras.layers.Dense(len(class_names), dtype="float32"),  # the loss is safer in 32 bits
    ]
)
model.summary()

# %% [markdown]
# ## Compile the model
#
# The **loss** is the mean of -ln(probability of the true class); a softmax makes probabilities of
# logits, e^logit / (sum of all ten e^logit). The **optimizer**, AdamW, moves each weight down the
# slope of the loss after each batch, by steps of its own size, which grow for a fiftieth of the
# training and shrink along a cosine to 0; and it pulls each weight a little toward 0 (**weight
# decay**), so that none grows large for the sake of a few pictures. The **metric**, accuracy, the
# share of right answers, changes in jumps and so has no slope to go down.
#
# An untrained network spreads its guesses, which costs ln(10) = 2.303 with ten classes: a first
# loss far from it means that something is wired wrong.

# %%
steps = args.epochs * len(training)
warmup = steps // 50
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, decay_steps=steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
)
weight_decay = {"mlp": 0.1, "cnn": 0.25}[args.model]
model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    optimizer=keras.optimizers.AdamW(schedule, weight_decay=weight_decay),
    metrics=["accuracy"],
)
untrained_loss, _ = model.evaluate(validation, verbose=0)
print(f"\nUntrained loss: {untrained_loss:.3f} (guessing: {math.log(len(class_names)):.3f})\n")

# %% [markdown]
# ## Train the model
#
# **Early stopping** ends the training when the validation loss has not improved for ten epochs:
# more of them are then likely to teach the training pictures alone. (The loss, because it worsens
# before the accuracy does.) After the last epoch, the run's callbacks put back the weights of the
# one with the highest validation accuracy. Ctrl-C ends the training early, with the best so far.

# %%
run.callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=10))
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
# Where training goes on to improve and validation does not, the network learns its training
# pictures by heart: it overfits. While the steps are large, validation jumps up and down; it
# settles as they shrink toward 0.

# %%
best = plots.best_epoch(history.history)
best_accuracy = history.history["val_accuracy"][best - 1]
print(f"\nBest epoch: {best}, with a validation accuracy of {best_accuracy:.2%}\n")
title = f"Validation accuracy is highest in epoch {best}: {best_accuracy:.2%}"
plots.curves(run.folder / "curves.png", history.history, title)

# %% [markdown]
# ## Evaluate on the test set
#
# Precision: the share of the pictures taken for cats that are cats. Recall: the share of the cats
# that are taken for cats. F1: their harmonic mean, near the lower of the two. Macro: the mean over
# the classes, each counting the same. Support: how many pictures a class has. Training pictures are
# judged undistorted here.

# %%
classifier = keras.Sequential([*model.layers, keras.layers.Softmax(dtype="float32")])
results = {}
sets = {"train": (undistorted, y_train), "validation": (validation, y_validation)}
for part, (batches, labels) in (sets | {"test": (test, y_test)}).items():
    probabilities = classifier.predict(batches, verbose=0)  # the last: those of the test set
    results[part] = evaluation.evaluate(labels, probabilities, class_names)
    print(f"{part:>10}: {results[part]['accuracy']:.2%} right, loss {results[part]['loss']:.4f}")
print(evaluation.ABOUT_FIT)
report = evaluation.report(y_test, probabilities, class_names)
(run.folder / "report.txt").write_text(report, encoding="utf-8")
print(report)

matrix = evaluation.confusion_matrix(y_test, probabilities)
most_often = evaluation.most_confused(matrix, class_names)
plots.confusion_matrix(run.folder / "confusion_matrix.png", matrix, class_names, most_often)
print(evaluation.most_confused(matrix, class_names, count=5).replace("; ", ";\n  "))

# %% [markdown]
# ## Look at predictions and mistakes
#
# The first ten validation pictures, printed and drawn: what each is, and what it is taken for,
# right in blue, wrong in red. Then the mistakes on test pictures that the network was surest of.

# %%
ten = x_validation[:10], y_validation[:10], classifier.predict(x_validation[:10], verbose=0)
print("\nThe first ten pictures of the validation set:")
for _, label, row in zip(*ten, strict=True):
    guess = class_names[row.argmax()]
    print(f"  {class_names[label]:>10}, predicted {guess:>10} ({row.max():.0%})")
title = "The first ten pictures of the validation set, and what they are taken for"
plots.predictions(run.folder / "predictions.png", *ten, class_names, range(len(ten[0])), title)
predicted = (x_test, y_test, probabilities, class_names)
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
print(f"\nLoaded from model.keras, its probabilities differ by {difference:.1g} at the most")

# %% [markdown]
# ## The answer to the question

# %%
figures = results["test"]
print(
    f"\nThe {args.model.upper()} of {model.count_params():,} parameters gets "
    f"{figures['accuracy']:.2%} of {len(x_test):,} pictures right (macro F1 "
    f"{figures['macro_f1']:.3f}), after {len(history.epoch)} epochs."
)
other = "mlp" if args.model == "cnn" else "cnn"
theirs, place = old_runs.earlier("cifar10", other, args, source, len(x_test))
if theirs:
    figures = theirs["test"]
    print(
        f"The {other.upper()} of {theirs['parameters']:,} gets {figures['accuracy']:.2%} "
        f"(macro F1 {figures['macro_f1']:.3f}), after {theirs['epochs']}: see {place}"
    )
else:
    of_sample = " --sample" if args.sample else ""
    print(f"To set beside it: python train_cifar10.py --model {other}{of_sample}")
print(f"{most_often}.\n")
run.finish(device, source, model.count_params(), history, results)
