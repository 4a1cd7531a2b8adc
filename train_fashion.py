# %% [markdown]
"""
# Clothes, told apart by a fully connected network, and by a convolutional one

How much better does a network do on the pictures that it was trained on than on new ones, and
what makes it better on new ones? It sorts clothes, first in the plainest way, then with care.

    python train_fashion.py               # wider, with dropout; downloads the data (31 MB)
    python train_fashion.py --model cnn   # convolutions and augmentation instead
    python train_fashion.py --sample      # 6,000 of the 70,000 pictures; needs no network

Expect 88.6% of the plain network, 89.9% (89.8 to 90.1; seeds 0, 1, 2) of the wider one after 75 s,
94.25% (seed 0) of the convolutional one after 12 minutes, on two cores of an AMD EPYC (Zen 5).
"""

# %% [markdown]
# ## Set up
#
# `devices.start` names the device; with `--model cnn`, layers compute with numbers of 16 bits where
# that is faster. A run trains two networks, the plain one and the one that `--model` names, for the
# same number of epochs, that is, passes over the training pictures.

# %%
from common import options

args = options.parse(
    __doc__,
    epochs={"mlp": 25, "cnn": 30},
    batch_size=200,
    learning_rate={"mlp": 2e-3, "cnn": 3e-3},
)

from common import devices

device = devices.start(args, convolutional=args.model == "cnn")

import keras
import numpy as np
from sklearn.model_selection import train_test_split

from common import datasets, evaluation, old_runs, pipeline, plots

keras.utils.set_random_seed(args.seed)
plots.set_up(args.show)
run = old_runs.Run("fashion", args.model, args)

# %% [markdown]
# ## Load the data
#
# Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 28x28 grey pictures from a shop's catalog, in
# MNIST's format, but harder; each pixel is a byte, from 0 (background) to 255. The labels in the
# files are numbers from 0 to 9; what they stand for is listed here.

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
# One picture with the scale of its values, then 25 with their names. Which would you confuse?

# %%
print(f"Values: {x_train.dtype} from {x_train.min()} to {x_train.max()}, mean {x_train.mean():.1f}")
print("Training pictures of each class:", *np.bincount(y_train))
print("Test pictures of each class:", *np.bincount(y_test))
title = f"What the network is given: 784 bytes, here of class {class_names[y_train[0]]}"
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
# A garment stays of its kind when it is mirrored or moved a little: the `cnn` is shown such
# pictures, new ones at every epoch. The `mlp` did worse on validation with them and gets none.
#
# The order matters: cache, shuffle, batch, augment, prefetch (the next batches, meanwhile). With
# augmentation before the cache, every epoch would repeat the distortions of the first. For arrays
# the cache gains nothing; it saves files from being read and decoded at every epoch.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
training = pipeline.training_batches(x_train, y_train, args.batch_size, seed=args.seed)
undistorted = pipeline.evaluation_batches(x_train, y_train, args.batch_size)
validation = pipeline.evaluation_batches(x_validation, y_validation, args.batch_size)
test = pipeline.evaluation_batches(x_test, y_test, args.batch_size)
run.check_data(x_train, y_train, x_validation, y_validation)  # for --resume
print(f"\n{len(x_train):,} pictures to train on, {len(x_validation):,} to validate\n")

augment = None
if args.model == "cnn":
    augment = keras.layers.Pipeline(
        [
            keras.layers.RandomFlip("horizontal", dtype="uint8"),  # bytes stay bytes
            # Of 28 pixels: up to about 2, with background beyond the border.
            keras.layers.RandomTranslation(0.08, 0.08, fill_mode="constant", dtype="uint8"),
        ]
    )
    examples = x_train[[np.flatnonzero(y_train == i)[0] for i in range(len(class_names))]]
    distorted = [keras.ops.convert_to_numpy(augment(examples, training=True)) for _ in range(4)]
    title = "Mirrored and shifted, each is still of the same kind"
    plots.rows(run.folder / "augmented.png", [examples, *distorted], title)
second_training = pipeline.training_batches(
    x_train, y_train, args.batch_size, augment, seed=args.seed
)

# %% [markdown]
# ## Build the model
#
# First the plainest network. `Flatten` lays a picture out as one row of 784 numbers. In a `Dense`
# layer, each unit adds up all of them, each times a learned weight (it is fully connected): 128
# units do so, and ReLU keeps what is positive; ten more do it with those 128. The ten results are
# logits: scores of any size, one per class.

# %%
plain = keras.Sequential(
    [
        keras.Input(shape=(28, 28, 1)),
        keras.layers.Rescaling(1 / 255),  # 0..255 -> 0..1, inside the model: it takes bytes
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(len(class_names), dtype="float32"),  # the loss is safer in 32 bits
    ]
)
plain.summary()

# %% [markdown]
# ## Compile the model
#
# The **loss** is what training makes smaller: the mean of -ln(probability of the true class). A
# softmax makes probabilities of logits, e^logit / (sum of all ten e^logit). *Sparse* means that the
# labels are class numbers. The **optimizer**, Adam, moves each weight down the slope of the loss
# after each batch, by steps of its own size. The **metric**, accuracy, the share of right answers,
# is what you want to know; it changes in jumps and so has no slope to go down.

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
plain.compile(loss=loss, optimizer=keras.optimizers.Adam(), metrics=["accuracy"])

# %% [markdown]
# ## Train the model
#
# After the last epoch, the run's callbacks put back the weights of the one with the highest
# validation accuracy. Ctrl-C ends a training early, with the best weights so far. Compare
# `accuracy` and `val_accuracy`: the pictures that it learns from, and those that it does not.

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
# has learned holds for those pictures and not for clothes. Two recipes against it, by `--model`:
#
# - `mlp`: wider and deeper, so that more can be learned; **dropout** silences a random share of the
#   units at each step of the training, so that none can rely on another to remember a picture.
# - `cnn`: **convolutions** slide small learned filters, here 3x3, over the picture, and so find a
#   collar or a heel wherever it is: the same weights serve every place. Pooling keeps the strongest
#   answer of 2x2 neighbors, the last one of the whole picture. Batch normalization brings each
#   filter's answers to a mean of 0 and a spread of 1 over the batch (later, by running means of
#   them), then scales and shifts them as it learns; it lets larger steps be taken.


# %%
def block(filters):
    """Two convolutions of `filters` filters; pooling between them halves height and width."""
    return [
        keras.layers.Conv2D(filters, kernel_size=3, padding="same", use_bias=False),
        keras.layers.MaxPooling2D(),
        keras.layers.BatchNormalization(momentum=0.9),  # of the running means; it shifts: no bias
        keras.layers.ReLU(),
        keras.layers.Conv2D(filters, kernel_size=3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
    ]


hidden = {
    "mlp": [
        keras.layers.Flatten(),
        keras.layers.Dense(1024, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dropout(0.3),
    ],
    "cnn": [*block(48), *block(96), *block(192), keras.layers.GlobalMaxPooling2D()],
}
model = keras.Sequential(
    [
        keras.Input(shape=(28, 28, 1)),
        keras.layers.Rescaling(1 / 255),
        *hidden[args.model],
        keras.layers.Dense(len(class_names), dtype="float32"),
    ]
)
model.summary()

# %% [markdown]
# The steps (the learning rate) grow for a fifth of the training, while the slopes still mislead,
# and shrink along a cosine to 0, to settle. AdamW is Adam with **weight decay**, which pulls each
# weight a little toward 0 at each step, so that none grows large for the sake of a few pictures.

# %%
steps = args.epochs * len(second_training)
warmup = steps // 5
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, decay_steps=steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
)
weight_decay = {"mlp": 0.02, "cnn": 0.3}[args.model]
optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"])
print("\nThe second network:")
history = model.fit(
    second_training,
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
# network overfits; where the loss of validation rises besides, it grows surer of its mistakes.

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
# Both networks are asked about the pictures that they were trained on, undistorted, about those
# that chose the best epoch, and about those that had no part in it. A softmax after the trained
# layers makes probabilities of their logits. The gap between training and test accuracy measures
# what a network knows by heart (`curves.png` now has the test accuracies, too, dotted); a larger
# network may keep the gap and still be better, which new pictures alone can tell. Precision:
# the share of the pictures taken for shirts that are shirts. Recall: the share of the shirts that
# are taken for shirts. F1: their harmonic mean. Support: how many pictures a class has.

# %%
sets = {"train": (undistorted, y_train), "validation": (validation, y_validation)}
sets |= {"test": (test, y_test)}
results, gaps = {"plain": {}, "second": {}}, []
print("{:>8} {:>8} {:>10} {:>9}   {}".format("", "training", "validation", "test", "gap"))
for name, network in {"plain": plain, "second": model}.items():
    classifier = keras.Sequential([*network.layers, keras.layers.Softmax(dtype="float32")])
    for part, (batches, labels) in sets.items():
        probabilities = classifier.predict(batches, verbose=0)  # last: the second's, of the test
        results[name][part] = evaluation.evaluate(labels, probabilities, class_names)
    accuracies = [results[name][part]["accuracy"] for part in sets]
    gaps.append(f"{100 * (accuracies[0] - accuracies[2]):.1f}")
    print("{:>8} {:8.2%} {:10.2%} {:9.2%}".format(name, *accuracies), f"  {gaps[-1]} points")
print(evaluation.ABOUT_FIT)
title = f"Training minus test accuracy: plain network {gaps[0]} points, second {gaps[1]}"
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
title = f"{len(wrong):,} of {len(x_test):,} are wrong; here the most confident of them"
plots.predictions(run.folder / "mistakes.png", *predicted, wrong[:20], title)

# %% [markdown]
# A network takes pictures by the batch. A single one is a batch of one: the slice `x_test[:1]`
# keeps the first dimension, where `x_test[0]` would lose it.

# %%
picture = x_test[:1]
row = keras.ops.convert_to_numpy(classifier(picture))  # `predict` is for many batches
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
for (name, figures), gap in zip(results.items(), gaps, strict=True):
    known, unseen = (f"{figures[part]['accuracy']:.2%}" for part in ("train", "test"))
    print(f"\nThe {name} network gets {known} of training pictures right, {unseen} of new ones:")
    print(f"a gap of {gap} points.")
print(f"\nThe second still gets {len(wrong):,} of {len(x_test):,} wrong. {most_often}.\n")
baseline = (plain.count_params(), plain_history, results["plain"])
run.finish(device, source, model.count_params(), history, results["second"], baseline=baseline)
