# %% [markdown]
"""
# Clothes, told apart by a fully connected network, and by a convolutional one

How much better does a network know the pictures that it was trained on than new ones, and what
closes the gap? It sorts clothes into ten kinds, first as plainly as can be, then with a cure.

    python train_fashion.py               # a wider network, held back by dropout
    python train_fashion.py --model cnn   # convolutions and augmentation instead
    python train_fashion.py --sample      # 6,000 of the 70,000 pictures; needs no network

Expect XX
"""

# %% [markdown]
# ## Set up
#
# `devices.start` names the device. Both networks of this run are trained in as many epochs, that
# is, passes over the training pictures: the plain one, and the one that `--model` names.

# %%
from common import options

args = options.parse(
    __doc__,
    epochs={"mlp": 25, "cnn": 20},
    batch_size=200,
    learning_rate={"mlp": 2e-3, "cnn": 3e-3},
)

from common import devices

device = devices.start(args, convolutional=args.model == "cnn")

import keras
import numpy as np
from sklearn.model_selection import train_test_split

from common import datasets, evaluation, pipeline, plots, runs

keras.utils.set_random_seed(args.seed)
plots.set_up(args.show)
run = runs.Run("fashion", args.model, args)

# %% [markdown]
# ## Load the data
#
# Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 28x28 grey pictures from a shop's catalog, in
# MNIST's format, but harder. The files hold numbers from 0 to 9; their names are listed here.

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load_fashion_mnist(
    args.data_dir, args.sample
)
plots.set_note(source.note)
class_names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
class_names += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
print(f"Training: x_train {x_train.shape}, y_train {y_train.shape}")
print(f"Test: x_test {x_test.shape}, y_test {y_test.shape}\n")

# %% [markdown]
# ## Explore the data
#
# One picture with the scale of its values, then the first 25 with their names. Look for kinds that
# you would confuse yourself at this size.

# %%
print(f"Values: {x_train.dtype} from {x_train.min()} to {x_train.max()}, mean {x_train.mean():.1f}")
print("Training pictures of each class:", *np.bincount(y_train))
print("Test pictures of each class:", *np.bincount(y_test))
title = f"What the network is given: 784 bytes, here those of the class {class_names[y_train[0]]}"
plots.pixels(run.folder / "pixels.png", x_train[0], title)
captions = [class_names[label] for label in y_train[:25]]
title = "Ten kinds of clothes: the first 25 training pictures"
plots.grid(run.folder / "examples.png", x_train[:25], captions, title, columns=5)

# %% [markdown]
# ## Prepare the input pipeline
#
# A tenth of the training pictures, the same share of each class, is set aside for validation. All
# choices were made on it, and it picks the best epoch: nothing is chosen on the test set.
#
# A garment is the same garment from its other side and a little further left: the convolutional
# network is shown mirrored and shifted pictures, new ones at every epoch. To a fully connected
# network each shift is another picture altogether; it gets the pictures as they are.
#
# The order matters: cache, shuffle, batch, augment, prefetch (the next batch, meanwhile). Augmented
# before the cache, every epoch would repeat the distortions of the first. For arrays the cache
# gains nothing; it saves files from being read and decoded at every epoch.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
training = pipeline.training_batches(x_train, y_train, args.batch_size, seed=args.seed)
undistorted = pipeline.evaluation_batches(x_train, y_train, args.batch_size)
validation = pipeline.evaluation_batches(x_validation, y_validation, args.batch_size)
test = pipeline.evaluation_batches(x_test, y_test, args.batch_size)
print(f"\n{len(x_train):,} pictures to train on, {len(x_validation):,} to validate\n")

augment = None
if args.model == "cnn":
    augment = keras.layers.Pipeline(
        [
            keras.layers.RandomFlip("horizontal", dtype="uint8"),  # bytes stay bytes
            keras.layers.RandomTranslation(0.08, 0.08, fill_mode="constant", dtype="uint8"),
        ]
    )
    examples = x_train[[np.flatnonzero(y_train == i)[0] for i in range(len(class_names))]]
    distorted = [keras.ops.convert_to_numpy(augment(examples, training=True)) for _ in range(4)]
    title = "Mirrored and shifted, each is still of the same kind"
    plots.rows(run.folder / "augmented.png", [examples, *distorted], title)
augmented = pipeline.training_batches(x_train, y_train, args.batch_size, augment, seed=args.seed)

# %% [markdown]
# ## Build the model
#
# First the plainest network. `Flatten` makes one row of 784 numbers of a picture; each of 128 units
# weighs all of them, and ReLU keeps what is positive; each of ten more weighs those 128. The ten
# results are logits: scores of any size, one a class. `scope` shares the work where there are
# several GPUs.

# %%
with device.scope():
    plain = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            keras.layers.Rescaling(1 / 255),  # 0..255 -> 0..1, inside the model: it takes bytes
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(len(class_names), dtype="float32"),
        ]
    )
plain.summary()

# %% [markdown]
# ## Compile the model
#
# The **loss** is the mean of -ln(probability of the true class); a softmax makes probabilities of
# logits, e^logit / (sum of all ten e^logit). It is what training makes smaller. *Sparse* means
# that the labels are class numbers. The **optimizer**, Adam, moves each weight against the slope of
# the loss after each batch, by steps of its own size. The **metric**, accuracy, is what you want to
# know; it has no slope to go down.

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
with device.scope():
    plain.compile(loss=loss, optimizer=keras.optimizers.Adam(1e-3), metrics=["accuracy"])

# %% [markdown]
# ## Train the model
#
# After the last epoch, the run's callbacks put back the weights of the one with the highest
# validation accuracy. Ctrl-C ends a training early, with the best weights so far. Compare the last
# two accuracies: the pictures that it learns from, and those that it does not.

# %%
print("\nThe plain network:")
plain_history = plain.fit(
    training,
    validation_data=validation,
    epochs=args.epochs,
    shuffle=False,  # the pipeline shuffles; Keras's own shuffling is for arrays
    callbacks=run.baseline_callbacks,
    verbose=run.verbose,
)

# %% [markdown]
# ## Train a second model, against overfitting
#
# A network that does better on its training pictures than on new ones overfits: part of what it
# has learned holds for those pictures and not for clothes. Two cures, by `--model`:
#
# - `mlp`: more units, so that more can be learned, and **dropout**, which silences a random share
#   of them at each step of the training, so that none can rely on another to remember a picture.
# - `cnn`: **convolutions** slide small learned filters, here 3x3, over the picture, and so find a
#   collar or a heel wherever it is, with few weights. Pooling keeps the strongest answer of 2x2
#   neighbors. Batch normalization brings each filter's answers to a mean of 0 and a spread of 1
#   over the batch, which lets larger steps be taken.


# %%
def block(filters):
    """Two convolutions with as many filters; pooling halves height and width between them."""
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
    "mlp": [
        keras.layers.Flatten(),
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.3),
    ],
    "cnn": [*block(48), *block(96), *block(192), keras.layers.GlobalMaxPooling2D()],
}
with device.scope():
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            *hidden[args.model],
            keras.layers.Dense(len(class_names), dtype="float32"),  # the loss is safer in 32 bits
        ]
    )
model.summary()

# %% [markdown]
# The steps grow for a fifth of the training and shrink along a cosine to 0: large ones find the
# way, small ones settle. AdamW is Adam with **weight decay**, which pulls each weight a little
# toward 0 at each step, so that none grows large for the sake of a few pictures. Width, dropout,
# weight decay and the number of epochs were chosen on the validation set.

# %%
steps = args.epochs * len(training)
warmup = steps // 5
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, decay_steps=steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
)
weight_decay = {"mlp": 0.02, "cnn": 0.3}[args.model]
optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
with device.scope():
    model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"])
print("\nThe second network:")
history = model.fit(
    augmented,
    validation_data=validation,
    epochs=args.epochs,
    shuffle=False,
    callbacks=run.callbacks,
    verbose=run.verbose,
)

# %% [markdown]
# ## Look at the learning curves
#
# Both networks in one picture, training dashed. Where a solid line leaves its dashed one, the
# network overfits; where the loss of validation rises besides, it grows sure of what is wrong.
# A dashed line below its solid one is no mistake: see the note under the figures below.

# %%
best = plots.best_epoch(history.history)
best_accuracy = history.history["val_accuracy"][best - 1]
print(f"\nBest epoch: {best}, with a validation accuracy of {best_accuracy:.2%}\n")
best_plain = max(plain_history.history["val_accuracy"])
title = f"Validation accuracy: {best_plain:.2%} the plain network, {best_accuracy:.2%} the second"
plots.curves(run.folder / "curves.png", history.history, title, baseline=plain_history.history)

# %% [markdown]
# ## Evaluate on the test set
#
# Both networks are asked for the pictures that they were trained on, undistorted, for those that
# chose the best epoch, and for those that nothing has seen. A softmax behind the trained layers
# makes probabilities of their logits. The gap between training and test accuracy is what they know
# by heart. In the table, precision is the share of the pictures taken for shirts that are shirts,
# recall the share of the shirts that are taken for shirts, F1 their harmonic mean.

# %%
sets = {"train": (undistorted, y_train), "validation": (validation, y_validation)}
sets |= {"test": (test, y_test)}
results, gaps = {"plain": {}, "second": {}}, []
print("         training  validation    test     gap between training and test")
for name, network in {"plain": plain, "second": model}.items():
    with device.scope():
        classifier = keras.Sequential([*network.layers, keras.layers.Softmax(dtype="float32")])
    for part, (batches, labels) in sets.items():
        probabilities = classifier.predict(batches, verbose=0)  # the last: second, test
        results[name][part] = evaluation.evaluate(labels, probabilities, class_names)
    accuracies = [results[name][part]["accuracy"] for part in sets]
    gap = 100 * (accuracies[0] - accuracies[2])
    gaps.append(f"{gap:.1f}")
    print("{:>8} {:8.2%} {:10.2%} {:9.2%}".format(name, *accuracies), f"  {gap:.1f} points")
print(
    "\nDuring fit, validation can exceed training: those training figures are means over an epoch\n"
    "in which the network still improves, with dropout and distortions at work. These are not.\n"
)
title = f"From training to test, the plain network loses {gaps[0]} points, the second {gaps[1]}"
levels = [figures["test"]["accuracy"] for figures in results.values()]
plots.curves(
    run.folder / "curves.png", history.history, title, baseline=plain_history.history, test=levels
)
report = evaluation.report(y_test, probabilities, class_names)
(run.folder / "report.txt").write_text(report, encoding="utf-8")
print(report)

matrix = evaluation.confusion_matrix(y_test, probabilities)
most_often = evaluation.most_confused(matrix, class_names)
plots.confusion_matrix(run.folder / "confusion_matrix.png", matrix, class_names, most_often)

# %% [markdown]
# ## Look at predictions and mistakes
#
# Twelve test pictures, each beside its ten probabilities: the true class in blue, a wrong answer
# in red. Then the mistakes that the network was surest of: would you have known better?

# %%
predicted = (x_test, y_test, probabilities, class_names)
title = "The first twelve test pictures, and what the network makes of them"
plots.probabilities(run.folder / "predictions.png", *predicted, range(len(x_test))[:12], title)
wrong = evaluation.mistakes(y_test, probabilities)
title = f"{len(wrong):,} of {len(x_test):,} are mistaken; these with the greatest confidence"
plots.predictions(run.folder / "mistakes.png", *predicted, wrong[:20], title)

# %% [markdown]
# A network takes pictures by the batch. A single one is a batch of one: the slice `x_test[:1]`
# keeps the first dimension, where `x_test[0]` would lose it.

# %%
picture = x_test[:1]
row = classifier.predict(picture, verbose=0)
print(f"One picture, of shape {picture.shape}, gives probabilities of shape {row.shape}:")
print(f"{class_names[row[0].argmax()]} ({row[0].max():.1%}); it is: {class_names[y_test[0]]}")

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
print()
for name, figures in results.items():
    known, unseen = figures["train"]["accuracy"], figures["test"]["accuracy"]
    print(f"The {name} network knows {known:.2%} of its training pictures, {unseen:.2%} of new.")
print(f"Of {len(x_test):,} new pictures, {len(wrong):,} are still mistaken. {most_often}.\n")
baseline = (plain.count_params(), plain_history, results["plain"])
run.finish(device, source, model.count_params(), history, results["second"], baseline=baseline)
