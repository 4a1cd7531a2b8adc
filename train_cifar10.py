# %% [markdown]
"""
# Recognize objects in photographs, with dense layers or with convolutions

How well does a network of dense layers (MLP) recognize objects in small photographs, and how much
better is a convolutional network (CNN)?

    python train_cifar10.py               # the MLP, on CIFAR-10; downloads it (170 MB)
    python train_cifar10.py --model cnn   # the CNN
    python train_cifar10.py --sample      # on 6,000 generated drawings; works offline

With their results: docs/lessons/3-photographs.md and docs/lessons/3-photographs-cnn.md

The MLP reaches a test accuracy of 70.92% (70.78 to 71.15; seeds 0, 1, 2) after 7 minutes of
training on two CPU cores (Intel Xeon with AMX), the CNN 93.33% (93.21 to 93.44; seeds 0, 1; in
bfloat16) after 23 minutes.
"""

# %% [markdown]
# ## Set up
#
# `options.parse` reads the command line. The numbers are the defaults of this lesson for each of
# its two models: how often the model sees the training images, how many of them at a time, and how
# fast it learns. All of it is explained below, where it is used. `devices.start` starts TensorFlow
# and names the device. Where the hardware is faster with 16-bit numbers, the CNN computes with
# them (**mixed precision**). `runs.Run` makes a folder for the files of this run, and sets the
# random numbers: runs of the same `--seed` start from the same weights.

# %%
from common import options

args = options.parse(
    __doc__, epochs={"mlp": 50, "cnn": 24}, batch_size={"mlp": 250, "cnn": 125}, learning_rate=2e-3
)

from common import devices  # the options are checked by now, before the slow imports

device = devices.start(args, convolutional=args.model == "cnn")
devices.distribute(args)  # several GPUs, where you ask for them (docs/scaling.md)

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from common import datasets, plots, runs

run = runs.Run(args, device, model=args.model)

# %% [markdown]
# ## Load the data
#
# CIFAR-10 (Krizhevsky, 2009) has 60,000 color photographs of ten **classes**, gathered from the
# web and labeled by hand. Each is 32 pixels high and 32 wide, with three numbers per pixel: red,
# green and blue. So the whole training set has the shape (50000, 32, 32, 3). The test set waits
# until the end, and tells how the model does on new images.

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load("cifar10", args.data_dir, args.sample)
class_names = ["airplane", "automobile", "bird", "cat", "deer"]
class_names += ["dog", "frog", "horse", "ship", "truck"]
datasets.check(x_train, y_train, x_test, y_test, class_names, source)  # says what does not fit
plots.set_up(args.show, source.note)
print(f"Training set: x_train {x_train.shape}, y_train {y_train.shape}")
print(f"Test set: x_test {x_test.shape}, y_test {y_test.shape}")

# %% [markdown]
# ## Explore the data
#
# Look at the numbers first, then at the images. The classes are equally frequent, so **accuracy**,
# the share of correct predictions, is a fair measure. Each plot is a file in the run's folder,
# which is named above. Do the labels fit what you see in `examples.png`? What varies within a
# class, and what stays the same?

# %%
print(f"Pixels: {x_train.dtype}, from {x_train.min()} to {x_train.max()}")
print("Training images of each class:", np.bincount(y_train))
print("Test images of each class:", np.bincount(y_test))
examples = [x_train[y_train == label][:10] for label in range(len(class_names))]
title = "Colors and places vary, shapes recur: ten training images of each class"
plots.rows(run.folder / "examples.png", examples, title, class_names)

# %% [markdown]
# ## Prepare the input pipeline
#
# We set a tenth of the training images aside as a **validation set**, with the same share of each
# class (`stratify`). It shows how the model does on images that it is not trained on. We make all
# choices by it, and none by the test set: a model that was chosen on the test set looks better
# there than on new images.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
print(f"{len(x_train):,} images for training, {len(x_validation):,} for validation")

# %% [markdown]
# **Data augmentation** changes each training image a little, and differently each time. Ours are
# flipped horizontally and shifted by up to 10% (3 pixels). So the model sees each image in many
# versions, which makes it hard to memorize them. Choose changes that keep the label true: a
# flipped cat is a cat. Places beyond the border are filled by reflection (`fill_mode`), and each
# pixel comes from the `nearest` one of the original, so that nothing is blurred.
#
# For the CNN, **random erasing** (Zhong and others, 2017) also covers a part of about every second
# image with a gray rectangle, of 2 to 20% of the image's area (`scale`). So the CNN cannot rely on
# a single part, such as a cat's ears. The MLP did not gain from it, so it goes without.
#
# A `tf.data` **pipeline** brings the images to the model. The order of its steps matters:
#
# 1. **cache** keeps the original images in memory. For image files, that saves reading and
#    decoding them again; our arrays are in memory already. After `map`, it would return the same
#    augmented images each time.
# 2. **shuffle** draws the images in a new random order each time.
# 3. **batch** groups them: at each training step, the model learns from one batch.
# 4. **map** augments several batches at once, each on a CPU core of its own.
# 5. **prefetch** prepares the next batches while the model trains on this one.
#
# The validation images are neither shuffled nor augmented. `to_categorical` makes the labels
# **one-hot**: a label becomes a row of ten numbers, 1 for the true class and 0 for the others, so
# that 3 becomes 0 0 0 1 0 0 0 0 0 0. The loss below needs them so. In `augmented.png`, check that
# each image still shows its class.

# %%
changes = [
    keras.layers.RandomFlip("horizontal"),
    keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect", interpolation="nearest"),
]
if args.model == "cnn":
    changes += [keras.layers.RandomErasing((0.5, 0.5), scale=(0.02, 0.2), fill_value=127)]
augment = keras.layers.Pipeline(changes)  # one after the other


def augment_batch(images, labels):
    return augment(images, training=True), labels  # training=False: images unchanged


no_autotuning = tf.data.Options()
no_autotuning.autotune.enabled = False  # for speed: tuning the pipeline delays epochs by up to 2 s
training_data = (
    tf.data.Dataset.from_tensor_slices((x_train, keras.utils.to_categorical(y_train)))
    .cache()
    .shuffle(len(x_train), seed=args.seed)
    .batch(args.batch_size)
    .map(augment_batch, num_parallel_calls=device.cores)
    .prefetch(4)
    .with_options(no_autotuning)
)
validation = (x_validation, keras.utils.to_categorical(y_validation))
validation_data = tf.data.Dataset.from_tensor_slices(validation).batch(500)

originals = np.stack([images[0] for images in examples])
augmented = [keras.ops.convert_to_numpy(augment(originals, training=True)) for _ in range(4)]
title = "Does each still show its class?"
plots.rows(run.folder / "augmented.png", [originals, *augmented], title)

# %% [markdown]
# ## Build the model
#
# A **layer** computes new numbers from those of the layer before. Many do so with learned factors,
# their **weights**, and add one more learned number to each result, the **bias**. This lesson has
# two models. `--model` chooses one. What several of the ideas below gain, each alone, or do not
# gain, is in `benchmarks/README.md`, under "What an idea is worth".
#
# **The MLP** (multi-layer perceptron). **Flatten** lays an image out as one row of 32 x 32 x 3 =
# 3,072 numbers: the model is not told which pixels are neighbors. Each **unit** of a **dense**
# layer adds up all numbers of the layer before, each times a weight of its own. So it has to learn
# a cat anew for every place in the image.
#
# **The CNN** (convolutional neural network). A **convolution** slides small filters over the
# image. Each filter responds to one pattern, wherever it occurs, and its outputs form a **feature
# map**. The learned filters here have 3x3 weights for each feature map of their input; with
# `padding="same"`, height and width stay the same. **Max pooling** keeps the largest of 2x2
# neighbors, so that later filters see larger parts of the image. **Global max pooling** keeps the
# largest value of each feature map.
#
# **Whitening** (LeCun and others, 1998): neighboring pixels are much alike, so the brightness of an
# area drowns out small details. **Principal component analysis** (PCA) finds weighted sums of the
# pixels that do not repeat each other (they are uncorrelated), those that vary most first. We
# divide each by its standard deviation, so that a faint edge counts as much as the brightness.
# (Without it, the validation accuracy is 4.7 points lower for the MLP after ten epochs, and 1.0 for
# the CNN after five.) The first layer of both models computes such sums; their weights come from
# training images, and are not learned (`trainable=False`).
#
# - The MLP gets 256 sums of the whole image, in place of its 3,072 numbers.
# - The CNN gets all twelve sums of each **patch** of 2x2 pixels, which has 2 x 2 x 3 = 12 numbers
#   (Page, 2018; Jordan, 2024). Each filter is there twice, once with the opposite sign, because
#   ReLU drops what is negative. This layer has no padding, so it makes 31x31 of 32x32 pixels.
#
# **Identity filters** (Zagoruyko and Komodakis, 2017; Jordan, 2024): usually, all weights are
# random at first. In the CNN's blocks, we begin with filters that copy: filter i has a 1 at the
# center of its weights for feature map i of its input, and 0 elsewhere. So an untrained block
# passes on what the layers before it found. Where a layer has more filters than inputs, the others
# stay random.
#
# Both models have these:
#
# - **Batch normalization** (Ioffe and Szegedy, 2015; after each learned layer but the last) brings
#   the outputs of each unit or filter to zero mean and unit variance over the batch. Then it
#   multiplies them by one learned number and adds another. Outside of training, it uses moving
#   averages of the training batches' means and variances.
# - **ReLU** sets negative outputs to zero; without such a step between them, several dense layers
#   could do no more than a single one.
# - The last layer has one output per class, its **logit**: a score of any size. The higher it is,
#   the more likely the class.
#
# The MLP also has **dropout** (Srivastava and others, 2014), which zeroes a random 10% of each
# hidden layer's outputs at each training step, so that the model cannot rely on any single one.
# Compare the numbers of **parameters** (weights and biases) in the summaries of both models.


# %%
def dense(units):
    """A dense layer with batch normalization and dropout."""
    return [
        keras.layers.Dense(units, use_bias=False),  # batch normalization adds a bias of its own
        keras.layers.BatchNormalization(momentum=0.9),  # forgets old batches sooner; default: 0.99
        keras.layers.ReLU(),
        keras.layers.Dropout(0.1),
    ]


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


def whitening_weights(samples, count):
    """Weights of `count` sums of the numbers in a row; a column for each sum."""
    pca = PCA(count, random_state=args.seed).fit(samples.astype("float32") / 127.5)
    # 1e-3: a sum that hardly varies is mostly noise, which would be magnified.
    return pca.components_.T / np.sqrt(pca.explained_variance_ + 1e-3)


if args.model == "mlp":
    whitening = keras.layers.Dense(256, use_bias=False, trainable=False)
    whitening.build((None, 3072))  # makes its weights, so that they can be set
    whitening.set_weights([whitening_weights(x_train[:20000].reshape(-1, 3072), 256)])
    hidden = [keras.layers.Flatten(), whitening, *dense(2048), *dense(1024), *dense(512)]
else:
    patches = np.lib.stride_tricks.sliding_window_view(x_train[:1000], (2, 2, 3), axis=(1, 2, 3))
    kernel = whitening_weights(patches.reshape(-1, 12), 12).reshape(2, 2, 3, 12)
    whitening = keras.layers.Conv2D(24, kernel_size=2, use_bias=False, trainable=False)
    whitening.build((None, 32, 32, 3))
    whitening.set_weights([np.concatenate([kernel, -kernel], axis=-1)])
    hidden = [whitening, keras.layers.ReLU(), *block(64), *block(256), *block(256)]
    hidden += [keras.layers.GlobalMaxPooling2D(name="pooling")]
model = keras.Sequential(
    [
        keras.Input(shape=(32, 32, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),  # 0..255 -> -1..1; a part of the model
        *hidden,
        # Logits in full precision; with weights of 0, they are all 0 at first.
        keras.layers.Dense(len(class_names), kernel_initializer="zeros", dtype="float32"),
    ]
)
for layer in model.layers:
    if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3):
        kernel = layer.get_weights()[0]  # shape: height, width, inputs, filters
        for i in range(min(kernel.shape[2:])):
            kernel[:, :, :, i] = 0
            kernel[1, 1, i, i] = 1
        layer.set_weights([kernel])
model.summary()

# %% [markdown]
# ## Compile the model
#
# - The **loss** is what training minimizes. **Softmax** turns the ten logits into probabilities
#   that sum to 1, and **cross-entropy** is the mean of -ln(probability of the true class).
#   `Categorical` means that the labels are one-hot. With `from_logits=True`, the loss includes the
#   softmax, so that no probability is rounded to 0 before its logarithm.
# - **Label smoothing** (Szegedy and others, 2016): a tenth of each label is spread over all
#   classes, so the 1 becomes 0.91, and each of the nine 0 becomes 0.01. The loss is then the sum of
#   these numbers times -ln(probability), over the classes. Without smoothing, the loss rewards ever
#   more confidence, also in predictions that are correct already.
# - The **optimizer** changes the weights to lower the loss. The **gradient** tells how the loss
#   changes with each weight. **Adam** (Kingma and Ba, 2015) follows it downhill after each batch,
#   and the **learning rate** sets how far. The rate warms up from 0 over the first 2% of the steps
#   (Goyal and others, 2017), so the untrained model begins with small steps. Then it decays to 0
#   along a cosine (Loshchilov and Hutter, 2017), so that the weights settle.
# - **Weight decay** (Hanson and Pratt, 1988): at each step, AdamW (Loshchilov and Hutter, 2019)
#   also makes each weight smaller by a fraction: the learning rate times `weight_decay`. Before a
#   batch normalization, larger weights alone change nothing: doubling all weights of the layer
#   leaves its normalized outputs the same. But a step then changes the weights by a smaller share,
#   so the layer learns more slowly. Weight decay keeps the weights small, and the training moving
#   (van Laarhoven, 2017).
# - **Averaged weights** (after Polyak and Juditsky, 1992): while the learning rate is high, the
#   weights jump from step to step. So the optimizer keeps their **exponential moving average**
#   (EMA), which covers about the last eighth of an epoch (`ema_momentum`) and is steadier. After
#   each epoch, the average replaces the weights, and training goes on from there. That lifts the
#   validation accuracy of early epochs; at the end of the training, we measured no clear gain.
# - The **metric** is for us: accuracy. It changes in jumps, so it has no useful gradient to
#   follow.
#
# The weights of the last layer begin at 0, so the untrained model prefers no class. Each has a
# probability of 1/10: a loss of -ln(1/10) = 2.303, and an accuracy of 10%. An untrained loss far
# from that is a sign of a mistake in the code.

# %%
steps_per_epoch = len(training_data)  # its length is the number of batches
steps = args.epochs * steps_per_epoch
warmup = steps // 50
learning_rate = keras.optimizers.schedules.CosineDecay(
    0.0, warmup_target=args.learning_rate, warmup_steps=warmup, decay_steps=steps - warmup
)
optimizer = keras.optimizers.AdamW(
    learning_rate,
    weight_decay=0.1 if args.model == "mlp" else 0.5,
    use_ema=True,
    ema_momentum=1 - 1 / (1 + steps_per_epoch // 8),
    ema_overwrite_frequency=steps_per_epoch,
)
model.compile(
    loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    optimizer=optimizer,
    metrics=["accuracy"],
    steps_per_execution=20,  # batches for each return to Python: a GPU need not wait for it
)
untrained_loss, untrained_accuracy = model.evaluate(validation_data, verbose=0)
print(f"Untrained: loss {untrained_loss:.3f}, accuracy {untrained_accuracy:.1%}")

# %% [markdown]
# ## Train the model
#
# An **epoch** is one pass over the training images. During training, Keras calls **callbacks**. The
# list that `run.callbacks` returns has what every training here gets. `ModelCheckpoint` saves the
# model as `best.keras` whenever its validation loss is the lowest so far. (Accuracy jumps more from
# epoch to epoch, so its best value depends more on chance.) `CSVLogger` writes loss and accuracy of
# each epoch to `history.csv`. Others end the training at Ctrl-C, or where the loss is not a number
# any more, and back it up: if the program is killed, the same command with `--resume` and the run's
# folder continues with the epoch in which it was cut off. The files are in the run's folder, in one
# named after the model.
#
# `EarlyStopping` is not among them: it would end the training before the learning rate has decayed
# to 0. The lesson on Fashion-MNIST tries it out.

# %%
model.fit(
    training_data,
    validation_data=validation_data,
    epochs=args.epochs,
    callbacks=run.callbacks(args.model),
    shuffle=False,  # the pipeline shuffles
    verbose=run.verbose,
)
history = run.history(args.model)  # of all epochs, those before a --resume included
best_epoch = np.nanargmin(history["val_loss"]) + 1  # "nan": passes over epochs without a figure
print(f"Trained for {run.seconds[args.model]:.0f} s; best epoch: {best_epoch}")

# %% [markdown]
# ## Look at the learning curves
#
# `fit` measures the training accuracy during an epoch, on augmented images (the MLP with dropout,
# too). Validation has neither, and is measured at the end of the epoch, with the averaged weights.
# So validation looks better at first.
#
# Watch for **overfitting**: the model memorizes its training images. It shows as a growing gap
# between training and validation. Where it is strong, the validation loss rises while the training
# loss falls. Here, the validation loss falls more and more slowly. The gap is larger than it looks,
# because augmentation and dropout lower the training accuracy; the evaluation below measures it
# without them. With smoothed labels, no loss is below 0.50: even the best probabilities, 91% and
# 1%, give that. (The evaluation below computes the loss without smoothing.)

# %%
epochs = np.arange(1, len(history["loss"]) + 1)
figure, (loss_axis, accuracy_axis) = plt.subplots(1, 2, figsize=(8, 3.6))
loss_axis.plot(epochs, history["loss"], "--o", markerfacecolor="white", label="training")
loss_axis.plot(epochs, history["val_loss"], "-o", color="C0", label="validation")  # C0: blue
loss_axis.set(xlabel="Epoch", ylabel="Loss (cross-entropy)")
loss_axis.legend()
accuracy_axis.plot(epochs, history["accuracy"], "--o", markerfacecolor="white")
accuracy_axis.plot(epochs, history["val_accuracy"], "-o", color="C0")
accuracy_axis.set(xlabel="Epoch", ylabel="Accuracy")
best_accuracy = history["val_accuracy"][best_epoch - 1]
figure.suptitle(f"Best epoch: {best_epoch}, with a validation accuracy of {best_accuracy:.2%}")
plots.save(figure, run.folder / "curves.png")

# %% [markdown]
# ## Look for near-duplicates
#
# Does the training set hold images of the test set? Then a model can get them correct from memory.
# That is **data leakage**. First we count exact duplicates, within the two sets and
# between them: images whose bytes are all the same. **Near-duplicates** are the same photograph in
# another size, crop, brightness or color. Barz and Denzler (2020) found them for 3.3% of CIFAR-10's
# test images.
#
# To find them, we describe each image by its edges: the differences between neighboring pixels of a
# gray thumbnail of 16x16 pixels. (Compared by their pixels, two blue skies would be alike.)
# `normalize` gives each row of differences the length 1, so that contrast does not matter. Then
# `NearestNeighbors` finds the most similar training image of each test image. A distance of at most
# 0.55 counts as a near-duplicate; that is a **cosine similarity** of 1 - 0.55² / 2 = 0.85 or more.
# We chose this limit by eye: all of the 40 pairs just inside it were near-duplicates, and so were
# about nine of ten just outside it. We prefer to miss some: what it finds is reliable, and is about
# half of those 3.3%.
#
# We keep the published sets, so that the result can be compared with others. But we also evaluate
# without the test images that have a near-duplicate. In `near_duplicates.png`, look at the least
# similar pairs: are they the same photograph?


# %%
def edges(images):
    """Differences between neighboring pixels, down and across: float32, shape (count, 480)."""
    # The mean of each 2x2 pixels and their three colors.
    thumbnails = images.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4, 5), dtype=np.float32)
    down, across = np.diff(thumbnails, axis=1), np.diff(thumbnails, axis=2)
    return np.concatenate([down.reshape(-1, 240), across.reshape(-1, 240)], axis=1)  # 15 x 16 each


published_train = np.concatenate([x_train, x_validation])
contents = [image.tobytes() for image in [*published_train, *x_test]]
print("Exact duplicates:", len(contents) - len(set(contents)))  # a set holds each value once
neighbors = NearestNeighbors(n_neighbors=1).fit(normalize(edges(published_train)))
distances, nearest = neighbors.kneighbors(normalize(edges(x_test)))
distances, nearest = distances[:, 0], nearest[:, 0]  # the first and only neighbor of each
leaked = np.flatnonzero(distances <= 0.55)  # indices of test images
print(f"Test images with a near-duplicate in the training set: {len(leaked):,} of {len(x_test):,}")
if len(leaked):
    least_similar = leaked[np.argsort(-distances[leaked])][:10]  # minus: the highest first
    pairs = [x_test[least_similar], published_train[nearest[least_similar]]]
    title = f"{len(leaked):,} test images have a near-duplicate; the ten least similar pairs"
    plots.rows(run.folder / "near_duplicates.png", pairs, title, ["test", "training"])

# %% [markdown]
# ## Evaluate on the test set
#
# We load the model of the best epoch and append a softmax, so that it outputs probabilities. Only
# now does the model see the test set; nothing is chosen by what it shows. The training images are
# evaluated without augmentation this time, and without the MLP's dropout. The CNN may train with
# 16-bit numbers, but it is evaluated with 32 bits, so an accuracy can differ a little from that of
# `fit`. The line `test without near-duplicates` leaves out what was found above. Two measures per
# class say more than accuracy:
#
# - **Precision**: of the images predicted to be a cat, the share that is a cat.
# - **Recall**: of the images of a cat, the share that is predicted to be a cat.
#
# **F1** combines the two (their harmonic mean), and **support** is the number of images. The macro
# average is the mean over the classes. The **confusion matrix** counts each pair of true and
# predicted class: the diagonal holds the correct predictions.

# %%
keras.distribution.set_distribution(None)  # several GPUs (docs/scaling.md) are for `fit` alone
model = keras.saving.load_model(run.path(args.model, "best.keras"))
classifier = keras.Model(model.inputs[0], keras.layers.Softmax()(model.outputs[0]))
classifier = devices.to_float32(classifier)  # other machines may be slow with 16-bit numbers
kept = np.delete(np.arange(len(x_test)), leaked)  # indices of the other test images
images = {"train": x_train, "validation": x_validation, "test": x_test}
labels = {"train": y_train, "validation": y_validation, "test": y_test}
if len(kept):
    images["test without near-duplicates"] = x_test[kept]
    labels["test without near-duplicates"] = y_test[kept]
scores, probabilities = {}, {}
for part, x in images.items():
    probabilities[part] = classifier.predict(x, batch_size=500, verbose=0)  # a row per image
    accuracy = accuracy_score(labels[part], probabilities[part].argmax(axis=1))
    loss = log_loss(labels[part], probabilities[part], labels=range(len(class_names)))
    scores[part] = {"accuracy": accuracy, "loss": loss}
    print(f"{part}: accuracy {accuracy:.2%}, loss {loss:.4f}")
predicted = probabilities["test"].argmax(axis=1)

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
print(plots.most_common_confusions(matrix, class_names, count=5))

# %% [markdown]
# ## Look at predictions and mistakes
#
# The highest of the ten probabilities is the model's **confidence** in its prediction. We print and
# draw the first ten images of the validation set, and then draw the most confident errors on the
# test set. Would you have misclassified them, too? Is each label correct?

# %%
ten = (x_validation[:10], y_validation[:10], probabilities["validation"][:10], class_names)
for label, row in zip(y_validation[:10], probabilities["validation"][:10], strict=True):
    prediction = f"{class_names[row.argmax()]} ({plots.percent(row.max())})"
    print(f"  true {class_names[label]}, predicted {prediction}")
hits = (probabilities["validation"][:10].argmax(axis=1) == y_validation[:10]).sum()
title = f"Of the first ten validation images, {hits} are classified correctly"
plots.predictions(run.folder / "predictions.png", *ten, range(10), title)

confidence = probabilities["test"].max(axis=1)
errors = np.flatnonzero(predicted != y_test)
most_confident = errors[np.argsort(-confidence[errors])][:20]
test_set = (x_test, y_test, probabilities["test"], class_names)
title = f"{len(errors):,} of {len(x_test):,} misclassified; the most confident first"
plots.predictions(run.folder / "mistakes.png", *test_set, most_confident, title)

# %% [markdown]
# ## Save the model, and load it again
#
# One file holds the layers and their weights, from rescaling to softmax. Loaded, the model takes
# images with pixels from 0 to 255 and outputs probabilities. It expects a batch; a single image is
# a batch of one. `python predict.py photo.jpg` asks the model of the newest run about a photo. To
# train on images of your own, see the README.

# %%
classifier.save(run.folder / "model.keras")
loaded = keras.saving.load_model(run.folder / "model.keras")
first = loaded.predict(x_test[:1], verbose=0)[0]  # x_test[:1] has the shape (1, 32, 32, 3)
prediction = f"{class_names[first.argmax()]} ({first.max():.1%})"
print(f"The first test image: true {class_names[y_test[0]]}, predicted {prediction}")

# %% [markdown]
# ## The answer to the question
#
# A filter of the CNN looks for its pattern at every place of the image; the MLP has to learn each
# pattern for each place anew. How much is this worth? The two are set beside each other:
# `run.best_of` finds the finished run of the other model on the same data, yours or one in
# `outputs/reference`, that has the best validation accuracy. `run.finish` writes all numbers to
# `results.json`, the errors to `mistakes.csv`, and everything together to a page, `report.html`.

# %%
print(f"\nThe {args.model.upper()}, {model.count_params():,} parameters, {args.epochs} epochs:")
print(f"test accuracy {scores['test']['accuracy']:.2%}. {most_common}.")
other = "cnn" if args.model == "mlp" else "mlp"
found = run.best_of(other, source, class_names, len(x_test))  # its results, or None
if found:
    print(f"The {other.upper()}, {found['parameters']:,} parameters, {found['epochs']} epochs:")
    print(f"test accuracy {found['test']['accuracy']:.2%}.")
    accuracies = {args.model: scores["test"]["accuracy"], other: found["test"]["accuracy"]}
    print(f"CNN minus MLP: {100 * (accuracies['cnn'] - accuracies['mlp']):+.1f} points.\n")
else:
    print(f"To compare it with the {other.upper()}, run it again with --model {other}.\n")
run.finish(
    source=source,
    class_names=class_names,
    preparation="square",  # how predict.py prepares an image: the middle square of a photo
    models={args.model: classifier},
    scores={args.model: scores},
    labels=labels,
    probabilities=probabilities["test"],
)

# %% [markdown]
# ## Where does the CNN look?
#
# This section is for the CNN; the MLP has no feature maps. The CNN ends with global max pooling and
# one dense layer. The largest value of each feature map is multiplied by a weight; the logit of a
# class is the sum of these products, plus a bias. A **class activation map** (Zhou and others,
# 2016; Oquab and others, 2015, for max pooling) adds up the weighted feature maps at each place,
# without the pooling. It shows which places support the class.
#
# Read it with care. The largest values of two feature maps can lie at different places. The logit
# adds them, but no single place of the map does. Also, the last feature maps have only 3x3 cells.
# Each is drawn over 8x8 pixels, but it can depend on 51x51 pixels around them, which is most of the
# image or all of it. (The last 8 rows and columns of pixels have no cell of their own, because max
# pooling drops what does not fill its 2x2. For the plot, we repeat the last cells there.)
#
# In `activation_maps.png`, each image has the map of its predicted class below it: bright places
# support the class, dark ones do not. First come correct predictions, then the most confident
# errors. Each map has its own scale. Is the bright place on the object, or on its background?

# %%
dense_layers = [layer for layer in classifier.layers if isinstance(layer, keras.layers.Dense)]


def activation_maps(images, classes):
    """How much each place of an image supports a class: shape (count, rows, columns)."""
    before_pooling = keras.Model(classifier.inputs, classifier.get_layer("pooling").input)
    weights = dense_layers[-1].get_weights()[0]  # (filters, classes)
    feature_maps = before_pooling.predict(images, verbose=0)  # (count, rows, columns, filters)
    maps = feature_maps @ weights  # a weighted sum at each place: (count, rows, columns, classes)
    return maps[np.arange(len(images)), :, :, classes]  # of each image that of its own class


if len(dense_layers) == 1 and "pooling" in [layer.name for layer in classifier.layers]:
    chosen = np.concatenate([np.flatnonzero(predicted == y_test)[:8], most_confident[:8]])
    maps = activation_maps(x_test[chosen], predicted[chosen])
    maps = np.pad(maps, ((0, 0), (0, 1), (0, 1)), mode="edge")  # repeats the last row and column
    test_images = (x_test[chosen], maps, y_test[chosen], probabilities["test"][chosen], class_names)
    title = "Bright: supports the predicted class (blue: correct; red: misclassified)"
    plots.activation_maps(run.folder / "activation_maps.png", *test_images, title)
else:
    print("No activation maps: the model does not end in a layer called pooling and a dense one.")
run.write_page()  # again, with this plot

# %% [markdown]
# ## Try it yourself
#
# Predict the outcome, make the change, run the script again with `--epochs 5`, and compare with an
# unchanged run of five epochs.
#
# 1. Remove the line that begins with `.map(`, and train both models. Then also give the pixels of
#    all images the same random order, by the lines below, and train both again. Which model does
#    worse than before? Why? The lines go below the one with `datasets.load`:
#
#    ```
#    order = np.random.default_rng(0).permutation(32 * 32)
#    x_train = x_train.reshape(-1, 32 * 32, 3)[:, order].reshape(-1, 32, 32, 3)
#    x_test = x_test.reshape(-1, 32 * 32, 3)[:, order].reshape(-1, 32, 32, 3)
#    ```
#
# 2. Train the CNN without augmentation: remove the line that begins with `.map(`. What happens to
#    the gap between the accuracies of the training set and of the validation set?
# 3. In the line that begins with `hidden = [whitening`, replace `whitening` with
#    `keras.layers.Conv2D(24, kernel_size=2)`, so that the CNN learns its first filters, too. Which
#    of the two is ahead after the first epoch, and which after the last?
