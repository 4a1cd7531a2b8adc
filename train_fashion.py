# %% [markdown]
"""
# Recognize clothes, and keep a network from overfitting

When does a network overfit, and what helps?

    python train_fashion.py            # Fashion-MNIST; downloads it (31 MB) if it is not there
    python train_fashion.py --sample   # 6,000 of its 70,000 images; needs no network

With its results: docs/lessons/2-clothes.md

Expect a test accuracy of 88.59% for a plain network (88.51 to 88.67; seeds 0, 1, 2), and of 90.85%
for the larger one at the end (90.74 to 91.01), after five minutes on two CPU cores (AMD EPYC).
"""

# %% [markdown]
# *You know:* [lesson 1](docs/lessons/1-digits.md): layers, loss and optimizer; training, validation
# and test images. The [glossary](docs/glossary.md) has a sentence for each term.
#
# *New here:* overfitting, measured; four remedies, one at a time; why a model with a smaller gap
# can be worse; how far to trust a probability.
#
# ## Part 1: a network that overfits
#
# We train the plain network of many tutorials, for longer than is good for it.
#
# ### Set up

# %%
from common import options

args = options.parse(__doc__, epochs=40, batch_size=200, learning_rate=1e-3)

from common import devices  # the options are checked by now, before the slow imports

device = devices.start(args, convolutional=False)  # 16 bits would gain dense layers nothing

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split

from common import datasets, plots, runs

run = runs.Run(args, device, model="mlp")

# %% [markdown]
# ### Load the data
#
# Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017) has the format of MNIST: 60,000 training images and
# 10,000 test images, 28 pixels high and 28 wide. They show clothes from the catalog of a shop. A
# label is a number from 0 to 9; the names of the classes are not in the files.

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load(
    "fashion-mnist", args.data_dir, args.sample
)
class_names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
class_names += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
datasets.check(x_train, y_train, x_test, y_test, class_names, source)  # says what does not fit
plots.set_up(args.show, source.note)
print(f"x_train {x_train.shape}, y_train {y_train.shape}; x_test {x_test.shape}")
print("Training images of each class:", np.bincount(y_train))

# %% [markdown]
# ### Look at the data
#
# Which classes look alike? Which two would you confuse most often? Keep your guess: at the end, you
# can compare it with the errors of the network.

# %%
examples = [x_train[y_train == label][:10] for label in range(len(class_names))]
title = "Some classes look alike: ten training images of each"
plots.rows(run.folder / "examples.png", examples, title, class_names)

# %% [markdown]
# ### Prepare the input pipeline
#
# As in lesson 1, a tenth of the training images become the validation set. We will train seven
# models, and each gets a pipeline of its own. With the same seed, all see the same images in the
# same order, so that only the remedy differs. The labels are one-hot rows, because one of the
# losses will need them so.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
no_autotuning = tf.data.Options()
no_autotuning.autotune.enabled = False  # tuning the pipeline would cost a fifth of the time


def one_hot(labels):
    return keras.utils.to_categorical(labels, len(class_names))


def pipeline():
    return (
        tf.data.Dataset.from_tensor_slices((x_train, one_hot(y_train)))
        .cache()
        .shuffle(len(x_train), seed=args.seed)
        .batch(args.batch_size)
        .with_options(no_autotuning)
    )


validation_data = tf.data.Dataset.from_tensor_slices((x_validation, one_hot(y_validation)))
validation_data = validation_data.batch(500)

# %% [markdown]
# ### Build the model
#
# `Flatten` turns each image into a row of 784 pixels. A dense layer of 128 units follows, then one
# with the ten logits. We will build this network several times, so a function does it. The seed
# gives it the same random weights each time. (The dropout layer waits for Part 2. With it, the
# random weights of the last layer differ.)


# %%
def build(dropout=0.0):
    keras.utils.set_random_seed(args.seed)
    return keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(dropout),  # 0 for now: it drops nothing
            keras.layers.Dense(len(class_names), dtype="float32"),  # logits in full precision
        ]
    )


plain = build()
plain.summary()

# %% [markdown]
# ### Compile and train the model
#
# This is a function, too. `CategoricalCrossentropy` is the loss of lesson 1, for one-hot labels. 40
# epochs are more than this network needs: we want to see it overfit.


# %%
def train(name, model, data, optimizer, loss=None, callbacks=(), verbose=0):
    model.compile(
        loss=loss or keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=optimizer,
        metrics=["accuracy"],
        steps_per_execution=20,  # batches for each return to Python: a GPU need not wait for it
    )
    print(f"Training: {name}", flush=True)
    model.fit(
        data.prefetch(4),
        validation_data=validation_data,
        epochs=args.epochs,
        callbacks=[*callbacks, *run.callbacks(name)],
        shuffle=False,  # the pipeline shuffles
        verbose=verbose,
    )


adam = keras.optimizers.Adam(args.learning_rate)
train("plain", plain, pipeline(), adam, verbose=run.verbose)

# %% [markdown]
# ### Look at the learning curves
#
# Dashed is training, solid is validation. Which epoch would you stop at? What do the four curves do
# after it?

# %%
history = run.history("plain")
best_epoch = np.nanargmin(history["val_loss"]) + 1
epochs = range(1, len(history["loss"]) + 1)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for axis, name in zip(axes, ["loss", "accuracy"], strict=True):
    axis.plot(epochs, history[name], "--o", color="tab:blue", markerfacecolor="white")
    axis.plot(epochs, history[f"val_{name}"], "-o", color="tab:blue")
    axis.set(xlabel="Epoch", ylabel=name.capitalize())
axes[0].legend(["training", "validation"])
rise = history["val_loss"][-1] / history["val_loss"][best_epoch - 1] - 1
title = f"The validation loss is lowest in epoch {best_epoch}; in the last, it is {rise:.0%} higher"
figure.suptitle(title)
plots.save(figure, run.folder / "curves.png")

# %% [markdown]
# *Answer:* At the epoch with the lowest validation loss, which the title names. After it, the
# training loss goes on falling. The validation loss rises slowly, up and down. The network
# overfits: it learns details of its training images that do not hold for other images. The
# validation accuracy, though, hardly changes. How can the loss rise if just as many predictions are
# correct? Part 4 has the answer.
#
# ### Measure it
#
# The **gap** is the accuracy on the training images minus that on new images, here the validation
# images. It is our measure of overfitting. We predict the training images again for it, because
# `fit` prints a mean over the epoch, in which the model still changes.

# %%
models, results = {}, {}


def compare(name, model):
    """Keep a model; print its accuracies and its gap, and those of the plain one."""
    models[name] = model
    accuracies = []
    for x, y in [(x_train, y_train), (x_validation, y_validation)]:
        predicted = model.predict(x, batch_size=500, verbose=0).argmax(axis=1)
        accuracies.append(100 * accuracy_score(y, predicted))
    results[name] = accuracies
    print("                training  validation    gap")
    for shown in dict.fromkeys(["plain", name]):
        on_training, on_validation = results[shown]
        gap = on_training - on_validation
        print(f"{shown:14}{on_training:9.1f}%{on_validation:11.1f}%{gap:7.1f}")


compare("plain", plain)

# %% [markdown]
# ## Part 2: one remedy at a time
#
# What makes it harder for a network to memorize is called **regularization**. We try each remedy
# alone, on the same network, and print its figures below those of the plain one. Guess before you
# look: what will happen to the two accuracies, and to the gap? (Up to 0.8 points can be chance.
# Part 3 compares three runs.) We always measure on the original images, with dropout off.
#
# ### Stop in time: early stopping
#
# After the best epoch, the validation loss of the plain network rose. **Early stopping** (Prechelt,
# 1998) ends the training when the validation loss has not improved for five epochs. We keep the
# model of the best epoch, which `run.callbacks` saved. It is the plain network as it was some
# epochs earlier. (`restore_best_weights=True` keeps it without a file.)

# %%
stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=5)
adam = keras.optimizers.Adam(args.learning_rate)
train("early-stopping", build(), pipeline(), adam, callbacks=[stop])
early_stopped = keras.saving.load_model(run.path("early-stopping", "best.keras"))
print(f"Stopped after epoch {len(run.history('early-stopping')['loss'])} of {args.epochs}")
compare("early-stopping", early_stopped)

# %% [markdown]
# ### Hide a part: dropout
#
# In the plain network, a unit may respond to a detail of a few images, and others cancel its effect
# on the rest. [Dropout](docs/lessons/1-digits.md#less-memorizing-dropout) zeroes a random 30% of
# the 128 outputs, anew for each image at each training step, so that no unit can rely on another.

# %%
model = build(dropout=0.3)
train("dropout", model, pipeline(), keras.optimizers.Adam(args.learning_rate))
compare("dropout", model)

# %% [markdown]
# ### Keep the weights small: weight decay
#
# To bend its predictions for a few images, a network needs large weights: a small difference
# between two images then makes a large one between their logits. Did the weights of the plain
# network grow after its best epoch?
#
# **Weight decay** pulls each weight a little toward zero at each step, so that it stays large only
# if many images need it. AdamW (Loshchilov and Hutter, 2019) is Adam with weight decay. At each
# step, it shrinks each weight by `learning_rate * weight_decay`: a ten-thousandth of its size.

# %%
model = build()
adamw = keras.optimizers.AdamW(args.learning_rate, weight_decay=0.1)
train("weight-decay", model, pipeline(), adamw)
compare("weight-decay", model)

print("Mean size of the weights of the 128 units:")
named = {"plain, best epoch": early_stopped, "plain, last epoch": plain, "weight decay": model}
for name, network in named.items():
    weights = network.layers[2].get_weights()[0]  # shape (784, 128)
    print(f"{name:18}{np.abs(weights).mean():.3f}")

# %% [markdown]
# ### Show more: augmentation
#
# After its best epoch, the weights of the plain network did grow, by half. With weight decay, they
# stayed small to the end. A last idea: a network that sees the same image in each epoch can
# memorize it. [Augmentation](docs/lessons/1-digits.md#more-images-augmentation) shows another
# version each time. Ours are flipped at random, and shifted by up to 8% (2 pixels): a flipped shoe
# is a shoe.

# %%
augment = keras.layers.Pipeline(  # layers that follow each other
    [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(0.08, 0.08, fill_mode="nearest", interpolation="nearest"),
    ]
)


def augment_batch(images, labels):
    return augment(images, training=True), labels


originals = np.stack([images[0] for images in examples])
augmented = [keras.ops.convert_to_numpy(augment(originals, training=True)) for _ in range(4)]
title = "Flipped and shifted, each image still shows its class"
plots.rows(run.folder / "augmented.png", [originals, *augmented], title)

model = build()
augmented_data = pipeline().map(augment_batch, num_parallel_calls=device.cores)
train("augmentation", model, augmented_data, keras.optimizers.Adam(args.learning_rate))
compare("augmentation", model)

# %% [markdown]
# The gap is nearly closed. But look at the two accuracies: on the validation images, this network
# is worse than the plain one, and it is worse even on its training images. This is
# **underfitting**: in 40 epochs, 128 units do not learn so many versions of each image. The gap
# shrank because the training accuracy fell. So *a model with a smaller gap can be worse*. Look at
# the gap together with the accuracy on new images.
#
# ### Does the validation loss still rise?
#
# The plot has the validation loss of the plain network, and of the remedies that were trained to
# the end. (With early stopping, it is the curve of the plain network, cut off.) Which curve rises
# most after its lowest point?

# %%
figure, axis = plt.subplots(figsize=(8, 4))
styles = {"plain": "-o", "dropout": "-D", "weight-decay": "-^", "augmentation": "-v"}
rises = []
for name, style in styles.items():
    losses = run.history(name)["val_loss"]
    axis.plot(range(1, len(losses) + 1), losses, style, markersize=4, label=name)
    rises.append(f"{name} {losses[-1] / np.nanmin(losses) - 1:.0%}")
lowest = np.nanmin(history["val_loss"])  # of the plain network
axis.set(xlabel="Epoch", ylabel="Validation loss", ylim=(0.9 * lowest, 1.5 * lowest))
axis.legend()
figure.suptitle(f"Rise after the lowest: {', '.join(rises)}")
plots.save(figure, run.folder / "validation_loss.png")

# %% [markdown]
# The plain network's rises most. With dropout or weight decay, the loss stays lower to the end.
# With augmentation, it is higher, and still falls: in more epochs, this network would learn more.
#
# ### Together
#
# Now early stopping, dropout and weight decay together. We leave augmentation out, since this
# network underfits with it. Are the three together better than each alone? The gap shrinks further;
# for the accuracy, one run cannot tell.

# %%
adamw = keras.optimizers.AdamW(args.learning_rate, weight_decay=0.1)
train("together", build(dropout=0.3), pipeline(), adamw, callbacks=[stop])
compare("together", keras.saving.load_model(run.path("together", "best.keras")))

# %% [markdown]
# ### More units, and more regularization
#
# The remedies shrink the gap, but the accuracy on new images hardly moves. Perhaps 128 units cannot
# do better. The **capacity** of a network is how much it can represent. With more units, it can
# learn more, and also memorize more. So we take two layers, of 768 and 512 units, *and* regularize
# them. Several things change at once here: dropout, weight decay, a learning-rate schedule, and two
# new ideas. A table then tells what these two are worth.
#
# - **Batch normalization** (Ioffe and Szegedy, 2015) brings the outputs of each unit to zero mean
#   and unit variance over the batch. Then it multiplies them by a learned number, and adds another.
#   So nearly every unit is active for some images, and the next layer gets inputs of a steady size.
#   (Outside of training, it uses a moving average of mean and variance.)
# - **Label smoothing** (Szegedy and others, 2016) spreads a tenth of each label over all classes:
#   the 1 becomes 0.91, and each 0 becomes 0.01. Without it, more confidence always lowers the loss
#   of an image that is predicted correctly. With it, the loss is lowest at a probability of 91%. So
#   there is less to gain from memorizing. Even at its lowest, this loss is 0.50: do not compare the
#   printed losses with those of the other models.
#
# The learning rate follows [the schedule of lesson
# 1](docs/lessons/1-digits.md#a-steadier-end-a-learning-rate-schedule), up to the rate of the other
# models. Early stopping would cut this schedule short. So we train to the end, and then take the
# model of the best epoch.

# %%
devices.distribute(args)  # several GPUs, where you ask for them (docs/scaling.md)
keras.utils.set_random_seed(args.seed)
model = keras.Sequential(
    [
        keras.Input(shape=(28, 28, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(768),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(512),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(len(class_names), dtype="float32"),
    ]
)
training_data = pipeline()
steps = args.epochs * len(training_data)  # its length is the number of batches
warmup = steps // 5
learning_rate = keras.optimizers.schedules.CosineDecay(
    0.0, warmup_target=args.learning_rate, warmup_steps=warmup, decay_steps=steps - warmup
)
adamw = keras.optimizers.AdamW(learning_rate, weight_decay=0.1)
smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
train("larger", model, training_data, adamw, smoothed, verbose=run.verbose)
keras.distribution.set_distribution(None)  # what follows runs on one device
print(f"{model.count_params():,} parameters; trained for {run.seconds['larger']:.0f} s")
compare("larger", keras.saving.load_model(run.path("larger", "best.keras")))

# %% [markdown]
# What are the two new ideas worth, and what the units alone? We train the larger network again,
# without one of the ideas, or with its units alone (`python benchmarks/ideas.py fashion`). The
# figures are means of three seeds, on the validation images; the loss is measured after the
# temperature scaling of Part 4. The change compares runs of the same seed.
#
# | | validation accuracy | change in points | loss |
# |---|---|---|---|
# | the larger network | 91.31% |  | 0.275 |
# | without batch normalization | 91.05% | -0.26 (-0.33 to -0.20) | 0.271 |
# | without label smoothing | 90.49% | -0.82 (-1.75 to -0.23) | 0.267 |
# | its units alone, trained as the plain network | 89.58% | -1.73 (-2.00 to -1.33) | 0.282 |
#
# Its units alone do little. They reach 89.6%, and the small network, stopped early, 89.2% (the mean
# of the same seeds). More units also memorize sooner: the validation loss is lowest in epoch 5, 11
# or 15. With the rest of the recipe, these units do help. Batch normalization and label smoothing
# each raise the accuracy with all three seeds. But neither lowers the loss: it is 0.275 with both,
# and 0.271 or 0.267 without one of them. Part of what label smoothing gains comes from a later
# epoch: without it, the validation loss is lowest in epoch 20 to 31.
#
# ## Part 3: the answer
#
# ### Evaluate on the test set
#
# Of our seven models, the larger network has the highest validation accuracy: we choose it. Now all
# seven meet the test set; nothing is chosen by it. From here on, the gap is that between training
# and test images. We keep the logits, since Part 4 needs them.

# %%
images = {"train": x_train, "validation": x_validation, "test": x_test}
labels = {"train": y_train, "validation": y_validation, "test": y_test}


def cross_entropy(part, logits):
    return log_loss(labels[part], softmax(logits, axis=1), labels=range(len(class_names)))


logits, scores = {}, {}
print("accuracy (%)    training  validation    test   gap")
for name, model in models.items():
    exact = devices.to_float32(model)  # 32 bits, also after --precision mixed
    logits[name], scores[name] = {}, {}
    for part, x in images.items():
        logits[name][part] = exact.predict(x, batch_size=500, verbose=0)  # a row per image
        accuracy = accuracy_score(labels[part], logits[name][part].argmax(axis=1))
        loss = cross_entropy(part, logits[name][part])
        scores[name][part] = {"accuracy": accuracy, "loss": loss}
    training, validation, test = (100 * scores[name][part]["accuracy"] for part in images)
    print(f"{name:14}{training:10.2f}{validation:12.2f}{test:8.2f}{training - test:6.1f}")

# %% [markdown]
# ### When does a network overfit, and what helps?
#
# One run cannot rank the remedies. A seed chooses the split, the first weights and the order of the
# images. Between three seeds, the test accuracy with the same remedy differs by up to 0.8 points.
# So the plot has a dot of each model for this run, and three for stored runs with the seeds 0, 1
# and 2. (With the sample, there are no stored ones. Where you see only two of them, the dot of this
# run covers the one with the same seed.) Look from left to right: which model has the smallest gap?
# And from bottom to top: which one is best on new images?


# %%
def gaps_and_accuracies(models_scores):
    points = []
    for own in models_scores.values():
        training, test = 100 * own["train"]["accuracy"], 100 * own["test"]["accuracy"]
        points.append([training - test, test])
    return points


stored = run.stored(models, source, class_names, len(y_test))  # a list of dicts like `scores`
points = np.array([gaps_and_accuracies(own) for own in [scores, *stored]])  # (runs, models, 2)
names, (gaps, accuracies) = list(models), points.mean(axis=0).T  # means over the runs
title = f"Smallest gap: {names[gaps.argmin()]}; highest test accuracy: {names[accuracies.argmax()]}"
plots.gaps(run.folder / "remedies.png", points, names, title)

# %% [markdown]
# These are the means of the three stored runs, and their ranges (two cores of an AMD EPYC).
#
# | | training accuracy | test accuracy | gap in points | test loss |
# |---|---|---|---|---|
# | plain | 95.1% | 88.6% (88.5 to 88.7) | 6.5 (6.3 to 6.6) | 0.363 (0.355 to 0.376) |
# | early-stopping | 92.3% | 88.5% (88.3 to 88.9) | 3.8 (3.6 to 3.8) | 0.328 (0.327 to 0.329) |
# | dropout | 93.5% | 88.9% (88.6 to 89.3) | 4.7 (4.4 to 5.0) | 0.327 (0.323 to 0.333) |
# | weight-decay | 93.7% | 88.6% (88.3 to 89.1) | 5.1 (4.9 to 5.2) | 0.323 (0.315 to 0.327) |
# | augmentation | 88.2% | 86.8% (86.7 to 86.9) | 1.4 (1.3 to 1.5) | 0.366 (0.362 to 0.368) |
# | together | 91.9% | 88.6% (88.3 to 88.8) | 3.3 (3.2 to 3.4) | 0.322 (0.319 to 0.324) |
# | larger | 98.8% | 90.9% (90.7 to 91.0) | 8.0 (7.8 to 8.2) | see Part 4 |
#
# *When?* When it has enough weights to memorize its training images, and its training goes on after
# the best epoch. The gap of the plain network opens early. After epoch 16 or 19, the validation
# loss rises, too: from there on, its probabilities get worse.
#
# *What helps?* In all three runs, every remedy shrinks the gap. Early stopping, dropout, weight
# decay, and the three together also lower the test loss in all three, by a tenth. But compared with
# the plain network of the same seed, none of them raises the test accuracy in all three.
# Augmentation has the smallest gap and the lowest test accuracy: the small network underfits. The
# larger network has the highest test accuracy in all three runs, 1.6 to 2.0 points above the next
# best, and also the largest gap. It memorizes more than the plain network, and it learns more that
# holds for new images. So the gap tells how much a network memorizes. How good it is, only new
# images tell.
#
# ### Which classes look alike?
#
# For the larger network, we print [the report of lesson
# 1](docs/lessons/1-digits.md#evaluate-on-the-test-set), and draw the confusion matrix. Was your
# guess correct?

# %%
predicted = logits["larger"]["test"].argmax(axis=1)
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
# ## Part 4: how far to trust a probability
#
# ### How can the loss rise if just as many predictions are correct?
#
# This was the question in Part 1. We compare the plain network with the same network, stopped
# early. On the validation images, their accuracies are about the same, and their losses are not.
# The loss is the mean of -ln(probability of the true class) over the images. So we split it: how
# large is the mean over the correct predictions, and how large over the errors?

# %%
print("                accuracy  mean confidence    mean loss  of correct  of errors")
for name in ("early-stopping", "plain"):
    probabilities = softmax(logits[name]["validation"], axis=1)
    losses = -np.log(probabilities[np.arange(len(y_validation)), y_validation])
    correct = probabilities.argmax(axis=1) == y_validation
    confidence = probabilities.max(axis=1).mean()
    print(
        f"{name:14}{correct.mean():10.1%}{confidence:17.1%}{losses.mean():13.2f}"
        f"{losses[correct].mean():12.2f}{losses[~correct].mean():11.2f}"
    )

# %% [markdown]
# With more epochs, the network becomes more confident, where it is correct and where it errs. A
# correct prediction gains little: from a probability of 90% to one of 99%, its loss falls by 0.1.
# An error costs much: if the true class gets 1% instead of 10%, the loss rises by 2.3. So the mean
# loss rises, though about as many predictions are correct. At its end, the plain network has a mean
# confidence far above its accuracy: it is **overconfident**.
#
# ### The reliability diagram
#
# Can we trust a confidence of 90%? A model is **calibrated** if its confidence matches its
# accuracy: of all predictions with a confidence of about 90%, about 90% are correct. So we put the
# predictions for the test images into ten bins by their confidence: 0 to 10%, 10 to 20%, and so on.
# The **reliability diagram** has a point for each bin: its mean confidence, and its accuracy. On
# the diagonal line, the two are equal. Below it, the model is overconfident; above it,
# **underconfident**.
#
# The **expected calibration error** (Naeini and others, 2015) is the mean distance of the two over
# the bins, weighted by their numbers of images. 0.03 is a distance of 3 points.
# (`plots.calibration` sorts the predictions into the bins.)


# %%
def calibrate(logits):
    """Of the test images: the points of the diagram, and the expected calibration error."""
    confidences, accuracies, counts = plots.calibration(y_test, softmax(logits, axis=1))
    error = np.average(np.abs(accuracies - confidences), weights=counts)
    return (confidences, accuracies, counts), error


curves, calibration_errors = {}, {}
for name in ("plain", "early-stopping", "larger"):
    curves[name], calibration_errors[name] = calibrate(logits[name]["test"])
    scores[name]["test"]["calibration_error"] = calibration_errors[name]
listed = ", ".join(f"{name} {error:.3f}" for name, error in calibration_errors.items())
plots.reliability(run.folder / "reliability.png", curves, f"Calibration error: {listed}")

# %% [markdown]
# Above a confidence of 50%, where most predictions are, the plain network lies below the line: of
# its predictions with 80 to 90%, fewer are correct. Stopped early, it is nearly on the line. The
# larger network is above it, and so underconfident. A likely reason is label smoothing, which
# trains it toward 91%, also where it is nearly always correct.
#
# ### The cure: temperature scaling
#
# **Temperature scaling** (Guo and others, 2017) divides all logits by one number, the temperature,
# before the softmax. A temperature above 1 brings the probabilities closer together: the model
# becomes less confident. One below 1 makes it more confident. All logits of an image are divided by
# the same number, so the highest stays the highest: no prediction changes, and no accuracy.
#
# Which temperature? The one with the lowest loss on the validation images. SciPy's
# `minimize_scalar` searches on a logarithmic scale, so that halving and doubling are equally large
# steps.


# %%
def loss_at(log_temperature, logits):
    return cross_entropy("validation", logits / np.exp(log_temperature))


temperatures, scaled_curves, scaled_errors = {}, {}, {}
print("                             calibration error      test loss")
print("                temperature   before    after    before    after")
for name in curves:
    found = minimize_scalar(
        loss_at, bounds=(-3, 3), args=(logits[name]["validation"],), method="bounded"
    )
    temperatures[name] = float(np.exp(found.x))
    scaled = logits[name]["test"] / temperatures[name]
    scaled_curves[name], scaled_errors[name] = calibrate(scaled)
    before, after = calibration_errors[name], scaled_errors[name]
    loss, scaled_loss = scores[name]["test"]["loss"], cross_entropy("test", scaled)
    print(
        f"{name:14}{temperatures[name]:13.2f}{before:9.3f}{after:9.3f}{loss:10.3f}{scaled_loss:9.3f}"
    )
listed = ", ".join(f"{name} {error:.3f}" for name, error in scaled_errors.items())
plots.reliability(run.folder / "scaled.png", scaled_curves, f"After temperature scaling: {listed}")

# %% [markdown]
# Temperature scaling brings the calibration error of the plain network near 0. Its test loss is
# then about that of the early-stopped one. So most of what overfitting cost was calibration, not
# accuracy. The larger network has the lowest test loss now. Its calibration error is a third of
# what it was, though not as low as that of the others: one number cannot fit every bin. Between 60
# and 90%, the larger network is now overconfident.
#
# ### Save the model, and check a prediction
#
# We append two layers to the larger network: the division by its temperature, and a softmax. Now it
# outputs better calibrated probabilities. One file holds all layers, from rescaling to softmax.
# Does the loaded model compute what we compute by hand? `python predict.py photo.jpg` prepares a
# photographed garment, and asks the model of the newest run.

# %%
temperature = temperatures["larger"]
divided = keras.layers.Rescaling(1 / temperature)(models["larger"].outputs[0])
classifier = keras.Model(models["larger"].inputs[0], keras.layers.Softmax()(divided))
classifier = devices.to_float32(classifier)
classifier.save(run.folder / "model.keras")

loaded = keras.saving.load_model(run.folder / "model.keras")
first = loaded.predict(x_test[:1], verbose=0)[0]  # x_test[:1] has the shape (1, 28, 28, 1)
first_logits = logits["larger"]["test"][0]
by_hand = softmax(first_logits / temperature)
assert np.allclose(first, by_hand, atol=1e-4)
print(f"The first test image, true class {class_names[y_test[0]]}; temperature {temperature:.2f}")
print("class         logit  probability   divided  probability")
for label, name in enumerate(class_names):
    print(
        f"{name:12}{first_logits[label]:7.2f}{softmax(first_logits)[label]:13.1%}"
        f"{first_logits[label] / temperature:10.2f}{by_hand[label]:13.1%}"
    )

# %% [markdown]
# ### Look at predictions and errors
#
# Two groups of test images, with their scaled probabilities: the least confident correct
# predictions, and the most confident errors. Would you have hesitated over the first group? Which
# labels of the second would you doubt? Even a calibrated model errs with confidence: of a hundred
# predictions with a confidence of 95%, about five are errors.

# %%
probabilities = softmax(logits["larger"]["test"] / temperature, axis=1)
confidence = probabilities.max(axis=1)
correct = np.flatnonzero(predicted == y_test)  # the indices of these images
errors = np.flatnonzero(predicted != y_test)
least_confident = correct[np.argsort(confidence[correct])][:20]
most_confident = errors[np.argsort(-confidence[errors])][:20]  # minus: the highest first
test_set = (x_test, y_test, probabilities, class_names)
highest = confidence[least_confident].max(initial=0)
title = f"The least confident correct predictions: a confidence of at most {highest:.0%}"
plots.predictions(run.folder / "predictions.png", *test_set, least_confident, title)
title = f"{len(errors):,} of {len(x_test):,} misclassified; the most confident of these errors"
plots.predictions(run.folder / "mistakes.png", *test_set, most_confident, title)

# %% [markdown]
# `run.finish` writes all numbers to `results.json`, the errors to `mistakes.csv`, and everything
# together to a page, `report.html`. Those of the larger network are measured after temperature
# scaling.

# %%
for part in images:
    scores["larger"][part]["loss"] = cross_entropy(part, logits["larger"][part] / temperature)
scores["larger"]["test"]["calibration_error"] = scaled_errors["larger"]
run.finish(
    source=source,
    class_names=class_names,
    preparation="clothing",  # how predict.py prepares an image: cut out, inverted if need be
    models=models | {"larger": classifier},
    scores=scores,
    labels=labels,
    probabilities=probabilities,
)

# %% [markdown]
# ### What you now know
#
# - A network overfits when it learns details of its training images that do not hold for others.
#   The gap between the accuracies on training images and on new ones measures it.
# - Early stopping, dropout, weight decay and augmentation shrink the gap. Each makes it harder to
#   memorize.
# - A model with a smaller gap can be worse: what counts is the accuracy on new images. More units
#   raised it here, but only together with regularization and a schedule.
# - One run cannot rank remedies. Change one thing at a time, and repeat it with several seeds.
# - Trained for too long, our network became overconfident. One number, the temperature, brings
#   confidence and accuracy together, and changes no prediction.
#
# ### Questions
#
# Answer before you unfold.
#
# 1. What is overfitting, and how do you see it?
#
# *Answer:* The network learns details of its training images that do not hold for others. In the
# curves, the training loss goes on falling while the validation loss rises, and the training
# accuracy moves away from the validation accuracy.
#
# 2. What reduced it here, by how much, and how do we know?
#
# *Answer:* Every remedy shrank the gap of the small network. Between training and test images, it
# was 6.5 points, and then 3.8 (early stopping), 4.7 (dropout), 5.1 (weight decay) and 1.4
# (augmentation). We know because each was the only change, on the same images in the same order,
# and because it held with three seeds.
#
# 3. Why can a model with a smaller gap be worse?
#
# *Answer:* The gap is a difference. It shrinks if the accuracy on new images rises, and also if the
# training accuracy falls. With augmentation, both fell: by 7 points on the training images, and by
# 2 on the test images. The larger network has the largest gap, and is the best on new images.
#
# 4. Why does the validation loss rise while the validation accuracy stands still?
#
# *Answer:* Accuracy counts only whether a prediction is correct. The loss also counts the
# probability of the true class. The overfitted network becomes more confident in its errors, and a
# confident error costs much. About as many predictions are correct.
#
# 5. What does temperature scaling change, and what not?
#
# *Answer:* It changes the probabilities, and so the confidence, the loss and the calibration error.
# It does not change which class has the highest probability. So no prediction changes, and the
# accuracy stays the same.
#
# 6. Why do we choose the temperature on the validation images, and not on the training images?
#
# *Answer:* The network has memorized many of its training images. On these, even a high confidence
# is justified, so the temperature would be too low for new images.
#
# 7. The temperature of the larger network is below 1. What does that tell?
#
# *Answer:* It is underconfident: it is correct more often than its confidence says. With label
# smoothing, its loss was lowest at a probability of 91%.
#
# ### Exercises
#
# Predict the outcome, try it, and compare with [the answers](docs/exercises/fashion.md).
#
# 1. *Five minutes.* Keep 5,400 of the training images, a tenth. Choose `--batch-size 20`, so that
#    an epoch still has 270 steps. What happens to the curves of the plain network?
# 2. *Five minutes.* The small network underfits on augmented images. Train the larger one on them.
#    Does it underfit, too?
# 3. *A project.* Replace the dense layers of the larger network by the convolutions of lesson 1's
#    final model, and train it on augmented images. How good does it become?
