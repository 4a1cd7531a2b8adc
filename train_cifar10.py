# %% [markdown]
"""
# Recognize objects in photographs, with dense layers and with convolutions

What is a convolution worth, and what makes a network good?

    python train_cifar10.py                # CIFAR-10; downloads it (170 MB) if it is not there
    python train_cifar10.py --model deep   # trains the deep CNN of Part 2, too
    python train_cifar10.py --model wide   # a wider one instead, for a GPU
    python train_cifar10.py --sample       # on 6,000 generated drawings; needs no network

With its results: docs/lessons/3-photographs.md

Expect a test accuracy of 52.8% for the MLP and 75.5% for the plain CNN (means of the seeds 0, 1 and
2), after 13 to 19 minutes on two CPU cores (Intel Xeon). Half of the time is for the control
experiment. The deep CNN reaches 88.9% (seeds 0 and 1), after 26 to 31 minutes more (two cores of an
AMD EPYC), the wide one 92.1% (seed 0), after about two and a half hours there.
"""

# %% [markdown]
# *You know:* [lesson 1](docs/lessons/1-digits.md) and [lesson 2](docs/lessons/2-clothes.md):
# convolutions and dense layers, overfitting and its remedies. The [glossary](docs/glossary.md) has
# a sentence for each term.
#
# *New here:* a fair comparison of an MLP and a CNN; a control experiment; a ladder from a plain CNN
# to a deep one; near-duplicates and data leakage.
#
# ## Part 1: what is a convolution worth?
#
# Lesson 1's network begins with convolutions: it is a **CNN** (convolutional neural network).
# Lesson 2's has dense layers only: it is an **MLP** (multi-layer perceptron). They learned from
# different images, so we could not compare them. Here, one of each learns from the same
# photographs, with as many parameters. Guess: how many points of accuracy will the CNN be ahead?
#
# ### Set up

# %%
from common import options

args = options.parse(
    __doc__, models=["plain", "deep", "wide"], epochs=20, batch_size=125, learning_rate=1e-3
)

from common import devices  # the options are checked by now, before the slow imports

device = devices.start(args)

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from common import datasets, plots, runs

run = runs.Run(args, device, model=args.model)

# %% [markdown]
# ### Load the data
#
# CIFAR-10 (Krizhevsky, 2009) has 60,000 color photographs of ten classes, gathered from the web and
# labeled by hand. Each is 32 pixels high and 32 wide, and each pixel has three numbers: red, green
# and blue.

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load("cifar10", args.data_dir, args.sample)
class_names = ["airplane", "automobile", "bird", "cat", "deer"]
class_names += ["dog", "frog", "horse", "ship", "truck"]
datasets.check(x_train, y_train, x_test, y_test, class_names, source)  # says what does not fit
plots.set_up(args.show, source.note)
print(f"x_train {x_train.shape}, y_train {y_train.shape}; x_test {x_test.shape}")
print(f"Pixels: {x_train.dtype}, from {x_train.min()} to {x_train.max()}")
print("Training images of each class:", np.bincount(y_train))

# %% [markdown]
# ### Look at the data
#
# What varies within a class, and what stays the same? At this size, how would you tell a cat from a
# dog?

# %%
examples = [x_train[y_train == label][:10] for label in range(len(class_names))]
title = "Color, pose and background vary within a class: ten training images of each"
plots.rows(run.folder / "examples.png", examples, title, class_names)

# %% [markdown]
# *Answer:* Color, pose and background vary. What recurs are parts, such as wheels, wings and ears,
# at different places of the image. Cat and dog share most of their parts, and at 32 pixels little
# is left of the others.
#
# ### Is there anything to clean?
#
# Before we train, we look for what does not belong in the data: labels that name no class
# (`datasets.check` did), images of a single color, and images that occur twice. CIFAR-10 has none
# of these. It is not spotless: in Part 3, we find near-duplicates and a wrong label.

# %%
single = (x_train.min(axis=(1, 2)) == x_train.max(axis=(1, 2))).all(axis=1)  # each of three colors
train_contents = {image.tobytes() for image in x_train}  # a set holds each value once
test_contents = {image.tobytes() for image in x_test}
print(f"Training images of a single color: {single.sum()}")
print(f"Training images that occur twice: {len(x_train) - len(train_contents)}")
print(f"Images in both the training set and the test set: {len(train_contents & test_contents)}")

# %% [markdown]
# ### Prepare the input pipeline
#
# As in lessons 1 and 2, a tenth of the training images become the validation set. Each model gets a
# pipeline of its own, with the same images in the same order.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
labels = {"train": y_train, "validation": y_validation, "test": y_test}
no_autotuning = tf.data.Options()
no_autotuning.autotune.enabled = False  # tuning the pipeline would cost time, and gain none here


def pipeline(x):
    return (
        tf.data.Dataset.from_tensor_slices((x, y_train))
        .cache()
        .shuffle(len(x), seed=args.seed)
        .batch(args.batch_size)
        .with_options(no_autotuning)
    )


# %% [markdown]
# ### Build two networks of the same size
#
# They differ in what their first dense layer gets.
#
# - In the MLP, it gets pixels. `Flatten` turns an image into a row of 32 x 32 x 3 = 3,072 numbers.
#   Each of the 200 units has 3,072 weights. Nothing tells it which pixels are neighbors.
# - In the CNN, it gets feature maps. Three convolutions come first, with pooling after each. With
#   `padding="same"`, a border of zeros keeps a feature map as large as its input. Pooling then
#   halves its sides: from 32 to 16, 8 and 4. Each of the 256 units has 4 x 4 x 128 = 2,048 weights.
#
# We chose 200 and 256 so that both networks have about 620,000 parameters: a lead cannot come from
# their number. (`Rescaling` brings the pixels to -1..1. With 0..1, an MLP much like this one
# reached [40% instead of 53%](benchmarks/README.md#what-was-tried).)


# %%
def build_mlp():
    keras.utils.set_random_seed(args.seed)
    return keras.Sequential(
        [
            keras.Input(shape=(32, 32, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),  # 0..255 becomes -1..1
            keras.layers.Flatten(),
            keras.layers.Dense(200, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(class_names), dtype="float32"),  # logits in full precision
        ]
    )


def build_cnn():
    keras.utils.set_random_seed(args.seed)
    return keras.Sequential(
        [
            keras.Input(shape=(32, 32, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),  # 0..255 becomes -1..1
            keras.layers.Conv2D(32, kernel_size=3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, kernel_size=3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(128, kernel_size=3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(class_names), dtype="float32"),
        ]
    )


build_cnn().summary()
print(f"Parameters: MLP {build_mlp().count_params():,}, CNN {build_cnn().count_params():,}")

# %% [markdown]
# ### Train both under one recipe
#
# A fair comparison changes the network alone. So both train by the same **recipe**: the same images
# in the same order, loss, optimizer, learning rate, batch size, dropout and early stopping. Then
# `keep` loads the model of the best epoch, appends a softmax, and evaluates it.


# %%
def train(name, model, data, x_validation, optimizer, epochs, callbacks=()):
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer,
        metrics=["accuracy"],
        steps_per_execution=20,  # batches for each return to Python: a GPU need not wait for it
    )
    validation_data = tf.data.Dataset.from_tensor_slices((x_validation, y_validation))
    validation_data = validation_data.batch(500).with_options(no_autotuning)
    print(f"Training: {name}", flush=True)
    model.fit(
        data.prefetch(4),
        validation_data=validation_data,
        epochs=epochs,
        callbacks=[*callbacks, *run.callbacks(name)],
        shuffle=False,  # the pipeline shuffles
        verbose=run.verbose,
    )


models, scores = {}, {}


def measure(name, part, probabilities):
    """Keep and print a model's accuracy and loss on a part of the data."""
    accuracy = accuracy_score(labels[part], probabilities.argmax(axis=1))
    loss = log_loss(labels[part], probabilities, labels=range(len(class_names)))
    scores[name][part] = {"accuracy": accuracy, "loss": loss}
    print(f"{name}, {part}: accuracy {accuracy:.2%}, loss {loss:.3f}")


def keep(name, x_train, x_validation):
    """Keep the model of the best epoch, with a softmax, and measure it."""
    best = keras.saving.load_model(run.path(name, "best.keras"))
    classifier = keras.Model(best.inputs[0], keras.layers.Softmax()(best.outputs[0]))
    models[name] = devices.to_float32(classifier)  # other machines may be slow with 16-bit numbers
    scores[name] = {}
    for part, x in [("train", x_train), ("validation", x_validation)]:
        measure(name, part, models[name].predict(x, batch_size=500, verbose=0))


def train_plain(name, model, x_train, x_validation):
    """Train a network by the recipe of Part 1."""
    adam = keras.optimizers.Adam(args.learning_rate)
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=5)
    epochs = 2 * args.epochs  # at most: early stopping ends it
    train(name, model, pipeline(x_train), x_validation, adam, epochs, callbacks=[stop])
    keep(name, x_train, x_validation)


train_plain("mlp", build_mlp(), x_train, x_validation)
train_plain("cnn", build_cnn(), x_train, x_validation)

# %% [markdown]
# ### Look at the learning curves
#
# Dashed is training, solid is validation. After how many epochs does the CNN pass the best
# validation accuracy of the MLP? Does either overfit?

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for name, color, marker in [("mlp", "tab:orange", "s"), ("cnn", "tab:blue", "o")]:
    history = run.history(name)
    epochs = range(1, len(history["loss"]) + 1)
    for axis, metric in zip(axes, ["loss", "accuracy"], strict=True):
        style = {"color": color, "marker": marker, "markersize": 4}
        axis.plot(epochs, history[metric], "--", markerfacecolor="white", **style)
        axis.plot(epochs, history[f"val_{metric}"], "-", label=name.upper(), **style)
        axis.set(xlabel="Epoch", ylabel=metric.capitalize())
axes[0].legend(loc="upper right")
lead = 100 * (scores["cnn"]["validation"]["accuracy"] - scores["mlp"]["validation"]["accuracy"])
figure.suptitle(f"On the validation images, the CNN is {lead:.1f} points ahead")
plots.save(figure, run.folder / "curves.png")

# %% [markdown]
# *Answer:* After one epoch, the CNN is at 59 to 61%. The MLP never gets above 54% (seeds 0, 1 and
# 2). Both overfit. You see it in the lines printed above, where dropout is off: each has [a
# gap](docs/lessons/2-clothes.md#measure-it) of 10 to 15 points. In the plot, dropout lowers the
# dashed curves, and hides a part of the gap. The CNN goes on to memorize: its validation loss rises
# while its training loss falls. The MLP hardly gains any more. Early stopping ends both trainings.
#
# ### Look at ten predictions
#
# Here are the first ten validation images, with the true class and both predictions. Ten images are
# too few to compare two networks, since each counts for ten points. They show what correct
# predictions and errors look like. Part 3 counts all confusions.

# %%
ten = x_validation[:10]
by_mlp = models["mlp"].predict(ten, verbose=0).argmax(axis=1)
by_cnn = models["cnn"].predict(ten, verbose=0).argmax(axis=1)
captions = [
    f"true: {class_names[true]}\nMLP: {class_names[mlp]}\nCNN: {class_names[cnn]}"
    for true, mlp, cnn in zip(y_validation[:10], by_mlp, by_cnn, strict=True)
]
mlp_correct = (by_mlp == y_validation[:10]).sum()
cnn_correct = (by_cnn == y_validation[:10]).sum()
title = f"Of ten validation images, the MLP predicts {mlp_correct} correctly, the CNN {cnn_correct}"
plots.grid(run.folder / "predictions.png", ten, captions, title, columns=5)

# %% [markdown]
# ### Is it the convolution? A control experiment
#
# The CNN also has more layers, and it computes more. Is it ahead for one of these reasons? Our
# guess is another one: convolution and pooling combine neighboring pixels. A **control experiment**
# tests such a guess. It takes away the supposed cause, and leaves all else as it is. So we shuffle
# the pixels, in the same new order for all images. Each image keeps all its numbers, and each pixel
# of the original has a fixed place. But neighbors are separated. If our guess is correct, what will
# happen to the MLP, and what to the CNN?

# %%
order = np.random.default_rng(args.seed).permutation(32 * 32)  # 0 to 1,023, shuffled


def shuffle_pixels(x):
    return x.reshape(-1, 32 * 32, 3)[:, order].reshape(x.shape)


shuffled_train = shuffle_pixels(x_train)
shuffled_validation = shuffle_pixels(x_validation)
originals = np.stack([own[0] for own in examples])
rows = [originals, shuffle_pixels(originals)]
title = "Shuffled: the same pixels, but no shape is left to see"
plots.rows(run.folder / "shuffled.png", rows, title, ["original", "shuffled"])
train_plain("mlp-shuffled", build_mlp(), shuffled_train, shuffled_validation)
train_plain("cnn-shuffled", build_cnn(), shuffled_train, shuffled_validation)

print("validation accuracy  original  shuffled")
for name in ("mlp", "cnn"):
    original = scores[name]["validation"]["accuracy"]
    without_neighbors = scores[f"{name}-shuffled"]["validation"]["accuracy"]
    print(f"{name:19}{original:10.1%}{without_neighbors:10.1%}")

# %% [markdown]
# The MLP is about as good as before: to a dense layer, neighbors are pixels like all others. (In
# our runs, its accuracy changes by about one point or less, up or down, because the random weights
# at the start now meet other pixels.) The CNN loses its whole lead, although its layers and its
# parameters are the same, and it computes as much. So none of these alone explains the lead. The
# lead needs neighbors that belong together: they are what convolution and pooling build on. Without
# them, the CNN is even a little worse than the MLP, probably because pooling discards three of four
# numbers.
#
# ## Part 2: a ladder to a deep CNN
#
# The plain CNN overfits, with a gap of 10 to 14 points. We change it in four steps, the rungs of a
# ladder. Each rung keeps what is below it. Rung 1 changes the network: deeper, and without the
# large dense layer. Rungs 2 and 3 change its training. Rung 4 adds filters. By default, this part
# only builds the network, and shows the augmented images. `--model deep` trains it with the rungs 1
# to 3, `--model wide` with all four.
#
# Which of the first three gains most, do you think? We measured them in runs of their own, of 12
# epochs each, with two seeds. There, the plain CNN has a mean validation accuracy of 75.5%, and a
# gap of 13 points.
#
# ### Rung 1: deeper, with batch normalization
#
# The dense layer has 524,544 of the 620,362 parameters: each of its 256 units weighs 128 patterns
# at 16 places separately. So it can memorize where a pattern is in single images. The deep CNN does
# without this layer, and without the dropout after it. Its layers have the same numbers of filters,
# 32, 64 and 128, but there are two of each, in a `block`. The second combines the patterns that the
# first has found. After the last block, **global max pooling** keeps the largest value of each
# feature map. From there on, it does not matter where a pattern is, only that it is there. This
# leaves fewer than half of the parameters, and nearly all of them are in filters, which all places
# share.
#
# More layers are harder to train: each works on the outputs of the one before, whose range changes
# while its weights learn. [Batch
# normalization](docs/lessons/2-clothes.md#more-units-and-more-regularization) helps. After a
# convolution, it computes one mean and one variance for each filter, over the batch and over all
# places. It adds a bias, so the convolutions need none. With `momentum=0.9`, the moving averages
# for validation reach back about 10 batches instead of 100, because the weights change fast at
# first. (Pooling comes after the first convolution of a block: the second then has a quarter of the
# places to compute.)
#
# Nothing is trained yet. `build_deep` takes the numbers of filters, because rung 4 changes them.


# %%
def block(filters):
    """Two convolutions; the pooling between them halves height and width."""
    return [
        keras.layers.Conv2D(filters, kernel_size=3, padding="same", use_bias=False),
        keras.layers.MaxPooling2D(),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Conv2D(filters, kernel_size=3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
    ]


def build_deep(filters):
    keras.utils.set_random_seed(args.seed)
    return keras.Sequential(
        [
            keras.Input(shape=(32, 32, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),  # 0..255 becomes -1..1
            *block(filters[0]),  # the asterisk puts its layers into this list
            *block(filters[1]),
            *block(filters[2]),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(len(class_names), dtype="float32"),
        ]
    )


build_deep([32, 64, 128]).summary()

# %% [markdown]
# *Result:* Rung 1 raises the validation accuracy from 75.5% to 76.8%. That is little: the deeper
# network memorizes, too. Its gap is 14 points.
#
# ### Rung 2: augmentation
#
# A network can memorize images that it sees again and again. So, as in [lesson
# 2](docs/lessons/2-clothes.md#show-more-augmentation), it sees another version each time: flipped
# at random, and shifted by up to 10% (3 pixels). A shift leaves an empty border. `reflect` fills it
# with a mirror image of the pixels next to it. Does each image below still show its class?

# %%
augment = keras.layers.Pipeline(  # layers that follow each other
    [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect", interpolation="nearest"),
    ]
)


def augment_batch(x, y):
    return augment(x, training=True), y


augmented_data = pipeline(x_train).map(augment_batch, num_parallel_calls=device.cores)
augmented = [keras.ops.convert_to_numpy(augment(originals, training=True)) for _ in range(4)]
title = "Flipped and shifted, each image still shows its class"
plots.rows(run.folder / "augmented.png", [originals, *augmented], title)

# %% [markdown]
# *Result:* Augmentation raises the validation accuracy from 76.8% to 82.9%. The gap shrinks from 14
# points to 5: most of the overfitting is gone.
#
# ### Rung 3: a schedule, with weight decay
#
# Look again at the solid curves of Part 1: they go up and down from epoch to epoch. [The schedule
# of lesson 1](docs/lessons/1-digits.md#a-steadier-end-a-learning-rate-schedule) steadied such a
# curve. Here, the rate warms up to 0.002, twice that of Part 1, and decays to 0.
#
# With it comes [weight decay](docs/lessons/2-clothes.md#keep-the-weights-small-weight-decay). At
# the highest rate, each weight shrinks by `learning_rate * weight_decay`, a thousandth, at each
# step. In the convolutions, it works differently than in lesson 2. Batch normalization divides by
# the standard deviation. So a filter with doubled weights has the same outputs: large weights do no
# harm there. But large weights learn more slowly, because the same step is a smaller share of a
# larger weight. Weight decay keeps them small, so that the filter goes on learning (van Laarhoven,
# 2017).

# %%
steps = args.epochs * len(augmented_data)  # its length is the number of batches
warmup = steps // 5
learning_rate = keras.optimizers.schedules.CosineDecay(
    0.0, warmup_target=2 * args.learning_rate, warmup_steps=warmup, decay_steps=steps - warmup
)
adamw = keras.optimizers.AdamW(learning_rate, weight_decay=0.5)

# %% [markdown]
# *Result:* The schedule with weight decay raises the validation accuracy from 82.9% to 87.0%. The
# gap is 4 points now.
#
# ### Rung 4: more filters
#
# In lesson 2, more units helped once the network was regularized. The same is our hope for filters.
# We take 64, 256 and 256 of them instead of 32, 64 and 128. They need nearly eight times as many
# multiplications. So this rung is an option of its own, for a GPU or a patient CPU: on two cores of
# an AMD EPYC, an epoch took 8 minutes.

# %%
filters = {"deep": [32, 64, 128], "wide": [64, 256, 256]}

# %% [markdown]
# *Result:* After 20 epochs with the seed 0, the validation accuracy is 91.8%, that of the deep CNN
# 88.9%. The gaps are 7.0 and 4.5 points. So the wide CNN memorizes more, and it is better on new
# images, too: as in lesson 2, a larger gap is not a worse model.
#
# ### Train the top of the ladder
#
# The whole schedule has to run, so there is no early stopping now. `keep` still loads the model of
# the best epoch, which is among the last.

# %%
top = f"{args.model}-cnn"  # deep-cnn or wide-cnn; with --model plain, there is none
if args.model in filters:
    devices.distribute(args)  # several GPUs, where you ask for them (docs/scaling.md)
    model = build_deep(filters[args.model])
    train(top, model, augmented_data, x_validation, adamw, args.epochs)
    keras.distribution.set_distribution(None)  # what follows runs on one device
    print(f"Trained for {run.seconds[top]:.0f} s")
    keep(top, x_train, x_validation)
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for name, label, style in [("cnn", "plain CNN", "--s"), (top, f"{args.model} CNN", "-o")]:
        accuracies = 100 * np.array(run.history(name)["val_accuracy"])
        axis.plot(range(1, len(accuracies) + 1), accuracies, style, label=label)
    axis.set(xlabel="Epoch", ylabel="Validation accuracy (%)")
    axis.legend()
    before = scores["cnn"]["validation"]["accuracy"]
    after = scores[top]["validation"]["accuracy"]
    title = f"Validation accuracy: plain CNN {before:.1%}, {args.model} CNN {after:.1%}"
    figure.suptitle(title)
    plots.save(figure, run.folder / "deep.png")
else:
    print("The deep CNN is trained with --model deep, the wide one with --model wide")

# %% [markdown]
# ## Part 3: the answer
#
# ### Evaluate on the test set
#
# So far, we have trained on the training images, and chosen by the validation images. Now, once, we
# evaluate every model on the test images.

# %%
names = ["mlp-shuffled", "cnn-shuffled", "mlp", "cnn", top]
names = [name for name in names if name in models]
final = names[-1]
probabilities = {}
for name in names:
    x = shuffle_pixels(x_test) if "shuffled" in name else x_test
    probabilities[name] = models[name].predict(x, batch_size=500, verbose=0)
    measure(name, "test", probabilities[name])

accuracies = {name: 100 * scores[name]["test"]["accuracy"] for name in names}
lead = accuracies["cnn"] - accuracies["mlp"]
shuffled_lead = accuracies["cnn-shuffled"] - accuracies["mlp-shuffled"]
figure, axis = plt.subplots(figsize=(8, 3))
bars = axis.barh(names, list(accuracies.values()))  # from the bottom to the top
axis.bar_label(bars, fmt="%.1f%%", padding=3)
axis.set(xlabel="Test accuracy (%)", xlim=(0, 110))  # room for the labels
title = f"CNN minus MLP: {lead:+.1f} points; on shuffled pixels, {shuffled_lead:+.1f} points"
figure.suptitle(title)
plots.save(figure, run.folder / "answer.png")

# %% [markdown]
# *What is a convolution worth?* These are the means of three stored runs with the seeds 0, 1 and 2,
# and their ranges (two cores of an Intel Xeon).
#
# | test accuracy | original | shuffled pixels |
# |---|---|---|
# | MLP | 52.8% (52.6 to 52.9) | 52.9% (52.0 to 53.5) |
# | CNN | 75.5% (75.3 to 75.7) | 51.4% (50.8 to 51.7) |
#
# On the original images, the CNN is 22.8 points (22.4 to 22.9) ahead of the MLP, computed before
# rounding. On shuffled pixels, it is 1.5 points (0.5 to 2.7) behind. (Two further runs, with the
# seeds 0 and 1 on two cores of an AMD EPYC, had 21.8 and 22.5 points, and were 0.9 and 3.0 behind.)
#
# This holds for networks of this size, with this recipe, and for convolution and pooling together.
# With recipes of their own, [an older version of this
# lesson](benchmarks/README.md#cifar-10-ideas-of-an-older-lesson) trained an MLP of 4 million
# parameters to 70.9%, and a CNN of 2 million to 93.3%.
#
# *What makes a network good?* These are the rungs after 12 epochs each, with the seeds 0 and 1
# (`python benchmarks/ideas.py cifar10`, on two cores of an AMD EPYC). The schedule of rung 3 is
# compressed to these 12 epochs. The model of the best epoch counts. Brackets hold the two seeds; a
# gain is over the row above, with the same seed.
#
# | | validation accuracy | gain | gap |
# |---|---|---|---|
# | plain CNN | 75.5% (74.4 to 76.5) | | 12.8 |
# | rung 1: + depth, batch normalization | 76.8% (75.8 to 77.7) | +1.3 (+1.2 to +1.4) | 14.3 |
# | rung 2: + augmentation | 82.9% (82.4 to 83.4) | +6.1 (+4.7 to +7.6) | 5.1 |
# | rung 3: + schedule, weight decay | 87.0% (86.5 to 87.4) | +4.1 (+4.0 to +4.1) | 4.1 |
#
# ![The validation accuracy of each rung](outputs/reference/ideas/cifar10.png)
#
# With both seeds, augmentation gains most, and rung 1 least. But rung 1 changes several things at
# once, and it came first, when the network still overfitted. In another order, which we did not
# measure, the gains may differ. In the two stored runs of `--model deep`, with its 20 epochs, the
# rungs 1 to 3 together raise the test accuracy from 75.3% to 88.9%. Rung 4 was trained once, with
# the seed 0: it raises the test accuracy from 89.0% to 92.1%. Label smoothing was measured, and
# left out: after 12 epochs, the validation accuracy with it was 0.07 points higher (-0.16 and
# +0.30, with two seeds).
#
# ### Which classes are hard?
#
# Our final model is the deep or wide CNN; where none was trained, it is the plain one. For it, we
# print [the report of lesson 1](docs/lessons/1-digits.md#evaluate-on-the-test-set), with precision,
# recall and F1 of each class, and draw the confusion matrix. Are animals or vehicles harder? Which
# two classes are confused most often?

# %%
predicted = probabilities[final].argmax(axis=1)
text = classification_report(
    y_test,
    predicted,
    labels=range(len(class_names)),
    target_names=class_names,
    digits=4,
    zero_division=0,
)
print(text)
(run.folder / "report.txt").write_text(text, encoding="utf-8")
matrix = confusion_matrix(y_test, predicted, labels=range(len(class_names)))
most_common = plots.most_common_confusions(matrix, class_names)
plots.confusion_matrix(run.folder / "confusion_matrix.png", matrix, class_names, most_common)

# %% [markdown]
# Now its most confident errors. Which of these would you have misclassified, too? Which label is
# wrong?

# %%
confidence = probabilities[final].max(axis=1)
errors = np.flatnonzero(predicted != y_test)  # the indices of these images
most_confident = errors[np.argsort(-confidence[errors])][:20]  # minus: the highest first
test_set = (x_test, y_test, probabilities[final], class_names)
title = f"{len(errors):,} of {len(y_test):,} misclassified; the most confident of these errors"
plots.predictions(run.folder / "mistakes.png", *test_set, most_confident, title)

# %% [markdown]
# *Answer:* In our stored runs, the mean F1 of the animals is 0.70 with the plain CNN and 0.86 with
# the deep one, that of the vehicles 0.83 and 0.93. So animals are harder, but not each of them: a
# frog is easier than an airplane. Cat and dog are confused most often. A green frog has the label
# cat: the label is wrong, and the prediction is correct. In most others, the model is wrong at a
# confidence of 98% and more.
#
# ### Has the model seen test images before?
#
# If an image is in the training set and in the test set, a model can classify it from memory. Its
# test accuracy then promises too much. This is **data leakage**. In CIFAR-10, there are no exact
# duplicates, but **near-duplicates**, images that show nearly the same: here, one photograph in
# another size, crop, brightness or color. Barz and Denzler (2020) found them for 3.3% of the test
# images.
#
# How do we find them? Two photographs of a blue sky have nearly the same pixels, and are no
# near-duplicates. So we compare edges: the differences between neighboring pixels, in a gray
# thumbnail of 16x16 pixels. Each image becomes a vector of 480 differences. `normalize` divides it
# by its length, so that contrast does not matter. `NearestNeighbors` finds the most similar
# training image of each test image. At a distance of 0, two images have the same edges. Unrelated
# images have vectors at about right angles: their distance is near the square root of 2, about 1.4.
#
# At which distance do we draw the line? We looked at pairs. Just below 0.55, all of 40 were
# near-duplicates. Just above, about nine in ten were. We choose 0.55, to be nearly certain of each
# pair that we count. The price: we find only about half as many as Barz and Denzler. Look at the
# ten pairs nearest to this line: are they the same photograph?


# %%
def edges(x):
    """Differences between neighboring pixels, down and across: float32, shape (count, 480)."""
    # Axes: image, row, row in its pair, column, column in its pair, color.
    thumbnails = x.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4, 5), dtype=np.float32)
    down, across = np.diff(thumbnails, axis=1), np.diff(thumbnails, axis=2)
    return np.concatenate([down.reshape(-1, 240), across.reshape(-1, 240)], axis=1)  # 15 x 16 each


all_training = np.concatenate([x_train, x_validation])
neighbors = NearestNeighbors(n_neighbors=1).fit(normalize(edges(all_training)))
distances, nearest = neighbors.kneighbors(normalize(edges(x_test)))
distances, nearest = distances[:, 0], nearest[:, 0]  # the first and only neighbor of each
leaked = np.flatnonzero(distances <= 0.55)  # indices of test images
kept = np.flatnonzero(distances > 0.55)
print(f"Test images with a near-duplicate in the training set: {len(leaked):,} of {len(x_test):,}")
if 0 < len(leaked) < len(x_test):
    least_similar = leaked[np.argsort(-distances[leaked])][:10]
    pairs = [x_test[least_similar], all_training[nearest[least_similar]]]
    title = f"{len(leaked):,} test images have a near-duplicate; the ten least similar pairs"
    plots.rows(run.folder / "near_duplicates.png", pairs, title, ["test", "training"])
    labels["test without near-duplicates"] = y_test[kept]
    for name in names:
        measure(name, "test without near-duplicates", probabilities[name][kept])

# %% [markdown]
# *Answer:* They are, all ten. In some, the colors were changed: a red car is black, a blue sky is
# violet.
#
# Without these images, the accuracy of the plain CNN is 0.3 points lower, with each of three seeds.
# Not all of this need be memory: the networks that saw shuffled pixels lose 0.2 to 0.3 points, too,
# and the deep CNN 0.15. These images may be easier than others. How bad could it be? At worst, a
# model classifies all 163 from memory, and would misclassify each of them without it. Its test
# accuracy is then 1.6 points too high, or 3.3 points with the 3.3% of Barz and Denzler. Next to a
# lead of 23 points, this is little. Between two models that are half a point apart, it could
# decide.
#
# ### Save the model, and load it again
#
# One file holds the layers and their weights, from rescaling to softmax. `python predict.py
# photo.jpg` asks the model of the newest run about a photo. To train on images of your own, see
# [lesson 4](docs/lessons/4-images-of-your-own.md). `run.finish` writes all numbers to
# `results.json`, the errors to `mistakes.csv`, and everything together to a page, `report.html`.

# %%
models[final].save(run.folder / "model.keras")
loaded = keras.saving.load_model(run.folder / "model.keras")
first = loaded.predict(x_test[:1], verbose=0)[0]  # x_test[:1] has the shape (1, 32, 32, 3)
prediction = f"{class_names[first.argmax()]} ({first.max():.1%})"
print(f"The first test image: true {class_names[y_test[0]]}, predicted {prediction}")
run.finish(
    source=source,
    class_names=class_names,
    preparation="square",  # how predict.py prepares an image: the middle square of a photo
    models={name: models[name] for name in names},
    scores=scores,
    labels=labels,
    probabilities=probabilities[final],
)

# %% [markdown]
# ### What you now know
#
# - A convolution looks for a small pattern at every place. On photographs, with about as many
#   parameters and the same recipe, the CNN was 23 points better than the MLP.
# - A control experiment takes away the supposed cause, and leaves all else as it is. On shuffled
#   pixels, the CNN lost its whole lead.
# - Depth with batch normalization, augmentation, and a schedule with weight decay together raised
#   the CNN's test accuracy by 14 points, with fewer than half of its parameters. In shorter
#   trainings with two seeds, augmentation gained most.
# - A test image with a near-duplicate in the training set is data leakage. Look for such pairs
#   before you trust a test accuracy.
#
# ### Questions
#
# Answer before you unfold.
#
# 1. How much is the convolution worth, and how do we know that it is the convolution?
#
# *Answer:* About 23 points of test accuracy: the CNN minus the MLP. Convolution and pooling gain
# them together. Both have about 620,000 parameters, and the same recipe. On shuffled pixels, the
# MLP stays where it was, and the same CNN falls below it. So the lead comes from neighbors, on
# which convolution and pooling build.
#
# 2. Why does the new order of pixels not matter to the MLP?
#
# *Answer:* Each of its units has a weight for each pixel. Reorder the pixels, and the weights of
# each unit in the same way: all sums stay the same. So for each MLP on original images, there is
# one just as good on shuffled images.
#
# 3. The first convolution has 32 filters of 3x3 weights. How many parameters does it have? How many
#    would a dense layer with as many outputs have?
#
# *Answer:* Each filter has 3 x 3 weights for each of three colors, and a bias: 32 x 28 = 896. The
# output has 32 x 32 x 32 = 32,768 numbers. In a dense layer, each of them would need 3,072 weights
# and a bias: together, more than 100 million.
#
# 4. Which rung gains most, and why?
#
# *Answer:* Augmentation: 6 points after 12 epochs. Without it, both networks overfit, with gaps of
# 13 and 14 points. It takes away most of the gap.
#
# 5. Why does the deep CNN train without early stopping?
#
# *Answer:* Its learning rate decays to 0 over the whole training. Early stopping could end it
# before the last epochs, in which the weights settle.
#
# 6. What is data leakage, and how much of it is in CIFAR-10?
#
# *Answer:* The model has seen test images, or nearly the same ones, in training. So its test
# accuracy is too high an estimate. Barz and Denzler found near-duplicates for 3.3% of the test
# images; our stricter search finds 163 of 10,000. Without these, the accuracy of the plain CNN is
# 0.3 points lower.
#
# ### Exercises
#
# Predict the outcome, then try it. Compare the validation accuracies. Part 1 up to the learning
# curves is enough: then press Ctrl-C twice.
#
# 1. Give the MLP eight times as many units, 1,600. Does it catch up with the CNN?
# 2. Replace three layers of the plain CNN, `Flatten`, the dense layer of 256 units and its dropout,
#    by one `GlobalMaxPooling2D`. How many parameters are left, and how good is it?
