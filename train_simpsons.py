# %% [markdown]
"""
# Who is it? Pictures in folders, and the cure for overfitting

How well does a network know cartoon characters in frames that it has not seen, after it has
learned its own by heart, and after it was kept from that?

    python train_simpsons.py                      # Kaggle's Simpsons; downloads them (1.2 GB)
    python train_simpsons.py --sample             # on 600 drawings made here; needs no network
    python train_simpsons.py --pictures photos    # pictures of your own, a folder for each class

Expect a macro F1 of 0.75 (0.74 to 0.78) of the plain network, and of 0.97 (0.97 to 0.98) of the
second one, after six minutes on two cores of an AMD EPYC (Zen 5): five characters, seeds 0, 1, 2.
"""

# %% [markdown]
# ## Set up
#
# `devices.start` names the device. Where the hardware is fast at numbers of 16 bits, the layers
# compute with those and keep their weights in 32.

# %%
from common import options

args = options.parse(__doc__, epochs=40, batch_size=32, learning_rate=2e-3, image_size=128)

from common import devices

device = devices.start(args, convolutional=True)

import keras
import numpy as np

from common import augmentation, evaluation, folders, old_runs, pipeline, plots

keras.utils.set_random_seed(args.seed)
plots.set_up(args.show)
run = old_runs.Run("simpsons", "cnn", args)

# %% [markdown]
# ## Load the data
#
# A folder for each class, named like it: so come the 42 characters of Kaggle's *The Simpsons
# Characters Dataset* (Attia, 2017), and it is the simplest way to keep pictures of your own. Each
# file is first tried with TensorFlow's decoder: one that it cannot read would end the run later,
# without its name being told. Such files are named here, and left as they are.

# %%
pictures, published, source = folders.load(args)
plots.set_note(source.note)
class_names = pictures.class_names

# %% [markdown]
# ## Explore the data
#
# Where one class has far more pictures than another, a network gains by guessing it when in doubt,
# and accuracy rewards that. So this lesson asks first for the macro F1 (below), in which each class
# counts the same.

# %%
counts = np.bincount(pictures.labels)
print(f"\n{len(pictures.paths):,} pictures of {len(class_names)} classes:\n")
for name, count in zip(class_names, counts, strict=True):
    print(f"{count:7,} {name}")
for side, pixels in zip(["Heights", "Widths"], pictures.sizes.T, strict=True):
    print(f"{side} from {pixels.min()} to {pixels.max()} pixels")
title = f"Pictures of each class: from {counts.min():,} to {counts.max():,}"
plots.counts(run.folder / "classes.png", counts, class_names, title)

# %% [markdown]
# ## Split, with near-duplicates on one side
#
# Neighboring frames of a film are almost the same. With one of them to train on and the other to
# test on, the test would reward memory. So pictures whose thumbnails (grey, 16x16) correlate by
# 0.95 or more form a group, and each group goes as a whole into one part: about five sevenths train
# the networks, one seventh, for validation, picks the best epoch, one tests them, once, at the end.

# %%
groups = folders.near_duplicates(pictures)
parts = folders.split(pictures, groups, args.seed)
parts |= folders.with_and_without_twins(published, parts["train"])
for part, own in parts.items():
    print(f"{len(own.paths):7,} {part}")

# %% [markdown]
# ## Prepare the input pipeline
#
# Keras reads each part from its folders, resized with the proportions kept; the rest of the square
# is black. Then **cache**, as bytes, which take a quarter of Keras's floats: without it, each epoch
# would read and decode every file again. Shuffle, batch, **augment** (after the cache, or every
# epoch would repeat the distortions of the first), prefetch (the next batches, meanwhile).
#
# Characters look to the left and to the right, are near or far, and lean: mirrored, turned and
# zoomed pictures, new ones at every epoch, are what other frames would show. (`RandomAffine` is
# Keras's RandomFlip, RandomRotation and RandomZoom in one step, so that each pixel is computed
# once.) For pictures of your own, take out what would make another class of them.

# %%
run.check_data(*(a for own in parts.values() for a in (own.thumbnails, own.labels)))  # --resume
place = folders.link(parts)  # temporary folders of links
cached, labels = {}, {}
for part in parts:
    dataset = keras.utils.image_dataset_from_directory(
        place / part,
        class_names=class_names,
        batch_size=None,
        image_size=(args.image_size, args.image_size),
        pad_to_aspect_ratio=True,
        shuffle=part == "train",  # its files, once, so that classes are mixed
        seed=args.seed,
        verbose=False,
    )
    where = args.cache if part == "train" else "disk"  # the others are read from end to end
    cached[part], labels[part] = pipeline.cached(dataset, where, run.folder)

augment = augmentation.RandomAffine(
    rotation=0.05,  # of a full turn: up to 18 degrees
    zoom=(-0.3, 0.1),  # up to 30% less is seen, or 10% more
    flip=True,
    dtype="uint8",  # bytes stay bytes
)
plain_training = pipeline.training_batches_of(cached["train"], args.batch_size, seed=args.seed)
training = pipeline.training_batches_of(cached["train"], args.batch_size, augment, seed=args.seed)
batches = {part: pipeline.evaluation_batches_of(cached[part], args.batch_size) for part in parts}

few = [np.flatnonzero(labels["train"] == i)[:7] for i in range(len(class_names))]
few = [pipeline.pick(cached["train"], chosen) for chosen in few]
plots.rows(run.folder / "examples.png", few, "Training pictures of each class", class_names)
examples = np.stack([own[0] for own in few[:8]])
distorted = [keras.ops.convert_to_numpy(augment(examples, training=True)) for _ in range(4)]
title = "Mirrored, turned and zoomed, each is still of its class"
plots.rows(run.folder / "augmented.png", [examples, *distorted], title)

# %% [markdown]
# ## Build the model
#
# First a plain network. **Convolutions** slide small learned filters, here 3x3, over the picture;
# pooling keeps the strongest answer of 2x2 neighbors. 128 dense units weigh what remains of each
# place; one more for each class gives its logit, a score of any size.

# %%
plain = keras.Sequential(
    [
        keras.Input(shape=(args.image_size, args.image_size, 3)),
        keras.layers.Rescaling(1 / 255),  # 0..255 -> 0..1, inside the model: it takes bytes
        keras.layers.Conv2D(16, kernel_size=3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(32, kernel_size=3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, kernel_size=3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(len(class_names), dtype="float32"),  # the loss is safer in 32 bits
    ]
)
plain.summary()

# %% [markdown]
# ## Compile the model
#
# The **loss** is the mean of -ln(probability of the true class). The **optimizer**, Adam, moves
# each weight down the slope of the loss after each batch, by steps of its own size. The **metric**,
# accuracy, changes in jumps and so has no slope to go down.
#
# **Class weights**: in training, a mistake costs the more, the fewer pictures its class has, so
# that each class weighs the same. (The loss of the validation has none: compare accuracies.)

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
plain.compile(loss=loss, optimizer=keras.optimizers.Adam(), metrics=["accuracy"])
in_training = np.bincount(labels["train"])
weights = in_training.sum() / (len(class_names) * in_training)
fitting = {
    "validation_data": batches["validation"],
    "epochs": args.epochs,
    "class_weight": dict(enumerate(weights.tolist())),
    "shuffle": False,  # the pipeline shuffles; Keras's own shuffling is for arrays
    "verbose": run.verbose,
}

# %% [markdown]
# ## Train the model, and watch it overfit
#
# Compare `accuracy` and `val_accuracy`: pictures that it learns from, and others. **Early
# stopping** ends the training when the loss of the others has not improved for five epochs. The
# run's callbacks then put back the weights of the epoch with the highest validation accuracy.

# %%
networks, histories = {}, {}
if not args.skip_baseline:
    print("\nThe plain network:")
    run.baseline_callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=5))
    histories["plain"] = plain.fit(plain_training, callbacks=run.baseline_callbacks, **fitting)
    networks["plain"] = plain
    curves = histories["plain"].history
    print(f"\nIn its last epoch, {curves['accuracy'][-1]:.1%} of the training pictures are right,")
    print(f"and {curves['val_accuracy'][-1]:.1%} of the others; the loss of those, at its lowest")
    print(f"{min(curves['val_loss']):.2f}, is {curves['val_loss'][-1]:.2f} now.")

# %% [markdown]
# ## Train a second model, against overfitting
#
# Nearly all weights of the plain network are in its first dense layer, which has its own for each
# place of the picture: enough to know every training picture by heart. Against that:
#
# - **Augmentation**: no picture comes twice as it was.
# - **Global pooling** keeps the strongest answer of each filter, wherever in the picture: a face
#   counts the same at every place, and the large dense layer is gone.
# - **Dropout** silences a random share of those answers at each step, so that none is relied on.
# - **Weight decay** (AdamW is Adam with it) pulls each weight a little toward 0 at each step.
#
# It is deeper, too; its first layer visits every second place only (`strides`), and the others cost
# a quarter. **Batch normalization** brings each filter's answers to a mean of 0 and a spread of 1
# over the batch, then scales and shifts them as it learns, which allows larger steps. These grow
# for a tenth of the training, then shrink along a cosine to 0, to settle.


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


model = keras.Sequential(
    [
        keras.Input(shape=(args.image_size, args.image_size, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(32, kernel_size=3, strides=2, padding="same", activation="relu"),
        *block(48),
        *block(96),
        *block(192),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(len(class_names), dtype="float32"),
    ]
)
steps = args.epochs * len(training)
warmup = steps // 10
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, decay_steps=steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
)
optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"])
model.summary()
print("\nThe second network:")
histories["second"] = model.fit(training, callbacks=run.callbacks, **fitting)
networks["second"] = model

# %% [markdown]
# ## Look at the learning curves
#
# Training dashed, validation solid. Where a solid line leaves its dashed one, the network overfits;
# where the loss of validation rises besides, it grows surer of its mistakes.

# %%
highest = [f"{max(h.history['val_accuracy']):.2%} the {n} network" for n, h in histories.items()]
baseline = None if args.skip_baseline else histories["plain"].history
title = f"Validation accuracy: {', '.join(highest)}"
plots.curves(run.folder / "curves.png", histories["second"].history, title, baseline=baseline)

# %% [markdown]
# ## Evaluate on the test set
#
# Precision: the share of the pictures taken for Lisa that show her. Recall: the share of Lisa's
# pictures that are taken for her. F1: their harmonic mean, near the lower of the two. **Macro F1**:
# the mean over the classes. The gap between training and test accuracy measures what is known by
# heart. Twins are near-duplicates: published test pictures are judged with and without them.

# %%
results = {}
for name, network in networks.items():
    classifier = keras.Sequential([*network.layers, keras.layers.Softmax(dtype="float32")])
    print(f"\nThe {name} network:")
    predicted = {part: classifier.predict(batches[part], verbose=0) for part in parts}
    results[name] = {p: evaluation.evaluate(labels[p], predicted[p], class_names) for p in parts}
    for part, figures in results[name].items():
        right = f"{figures['accuracy']:.2%} of {len(labels[part]):,} right"
        print(f"{part:>15}: macro F1 {figures['macro_f1']:.3f}, {right}")
    gap = results[name]["train"]["accuracy"] - results[name]["test"]["accuracy"]
    print(f"{'gap':>15}: {100 * gap:.1f} points between training and test accuracy")
truth, probabilities = labels["test"], predicted["test"]  # of the second network
print(evaluation.ABOUT_FIT)
report = evaluation.report(truth, probabilities, class_names)
(run.folder / "report.txt").write_text(report, encoding="utf-8")
print(report)

matrix = evaluation.confusion_matrix(truth, probabilities)
most_often = evaluation.most_confused(matrix, class_names)
plots.confusion_matrix(run.folder / "confusion_matrix.png", matrix, class_names, most_often)

# %% [markdown]
# ## Look at predictions and mistakes
#
# Some test pictures, right in blue, wrong in red; then the mistakes that the network was surest of.
# Last, a single picture, from a file that is not in the training: read and resized as Keras did it
# with the others, and made a batch of one.

# %%
some = np.linspace(0, len(truth) - 1, min(20, len(truth)), dtype=int)
wrong = evaluation.mistakes(truth, probabilities)
how_many = f"{len(wrong):,} of {len(truth):,} are wrong; here the most confident of them"
for name, chosen, title in [
    ("predictions.png", some, "Some pictures of the test set, and what they are taken for"),
    ("mistakes.png", wrong[:20], how_many),
]:
    shown = pipeline.pick(cached["test"], chosen), truth[chosen], probabilities[chosen]
    plots.predictions(run.folder / name, *shown, class_names, range(len(chosen)), title)

file = (published or parts["test"]).paths[0]
picture = folders.read(file, args.image_size)
(row,) = keras.ops.convert_to_numpy(classifier(picture[np.newaxis]))
print(f"{file}:\n  {class_names[row.argmax()]} ({row.max():.1%})")

# %% [markdown]
# ## Save the model, and load it again
#
# One file holds the layers and their weights, from the rescaling to the softmax: it takes
# pictures as bytes and gives probabilities.

# %%
classifier.save(run.folder / "model.keras")
loaded = keras.saving.load_model(run.folder / "model.keras")
difference = np.abs(loaded.predict(batches["test"], verbose=0) - probabilities).max()
print(f"Loaded from model.keras, its probabilities differ by {difference:.1g} at the most")

# %% [markdown]
# ## The answer to the question

# %%
for name, figures in results.items():
    known, unseen = (f"{figures[part]['accuracy']:.1%}" for part in ("train", "test"))
    print(f"\nThe {name} network knows {known} of its training pictures, {unseen} of those that it")
    print(f"has not seen, with a macro F1 of {figures['test']['macro_f1']:.3f}.")
print(f"{most_often}.\n")
trained = {n: (networks[n].count_params(), histories[n], results[n]) for n in networks}
run.finish(device, source, *trained["second"], baseline=trained.get("plain"))
