# %% [markdown]
"""
# Recognize handwritten digits with a small convolutional network

How many of 10,000 handwritten digits does a small convolutional network misclassify, and could you
have read them yourself?

    python train_mnist.py            # MNIST; downloads it (12 MB) if it is not there
    python train_mnist.py --sample   # 5,000 of its 70,000 images; needs no network

With its results: outputs/reference/mnist-cnn

Expect a test accuracy of 99.55% on the whole of MNIST (99.46 to 99.64; seeds 0, 1, 2) after 53 to
54 seconds of training on two CPU cores (Intel Xeon with AMX, in bfloat16).
"""

# %% [markdown]
# ## Set up
#
# `options.parse` reads the command line. The three numbers are the defaults of this lesson: how
# often the model sees the training images, how many of them at a time, and how fast it learns. All
# of it is explained below, where it is used. `devices.start` starts TensorFlow and names the
# device. Where the hardware is faster with 16-bit numbers, the model computes with them (**mixed
# precision**). A **seed** fixes the random numbers: after `set_random_seed`, runs of the same
# `--seed` start from the same model. `runs.Run` makes a folder for the files of this run.

# %%
from common import options

args = options.parse(__doc__, epochs=11, batch_size=200, learning_rate=4e-3)

from common import devices  # the options are checked by now, before the slow imports

device = devices.start(args, convolutional=True)

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split

from common import datasets, plots, runs

keras.utils.set_random_seed(args.seed)
run = runs.Run(args, device, model="cnn")
plots.set_up(args.show)

# %% [markdown]
# ## Load the data
#
# MNIST (LeCun, Cortes and Burges, 1998) has 60,000 images of handwritten digits for training and
# 10,000 for the test. Each is 28 pixels high and 28 wide, with one number per pixel (a color image
# has three); so the whole training set has the shape (60000, 28, 28, 1). A **label** says which
# digit an image shows. There are ten **classes**, one per digit. The model learns from the training
# set. The test set waits until the end, and tells how the model does on new images.

# %%
(x_train, y_train), (x_test, y_test), source = datasets.load("mnist", args.data_dir, args.sample)
class_names = [str(digit) for digit in range(10)]
datasets.check(x_train, y_train, x_test, y_test, class_names, source)  # says what does not fit
plots.set_note(source.note)
print(f"Training set: x_train {x_train.shape}, y_train {y_train.shape}")
print(f"Test set: x_test {x_test.shape}, y_test {y_test.shape}")

# %% [markdown]
# ## Explore the data
#
# Look at the numbers first, then at the images. A pixel is a number from 0 (paper) to 255 (ink).
# The classes are about equally frequent, so **accuracy**, the share of correct predictions, is a
# fair measure. Each plot is a file in the run's folder, which is named above. Do the labels fit
# what you see in `examples.png`?

# %%
print(f"Pixels: {x_train.dtype}, from {x_train.min()} to {x_train.max()}")
print("Training images of each digit:", np.bincount(y_train))
print("Test images of each digit:", np.bincount(y_test))
examples = [x_train[y_train == label][:10] for label in range(len(class_names))]
title = "Handwriting varies: ten training images of each digit"
plots.rows(run.folder / "examples.png", examples, title, class_names)

# %% [markdown]
# ## Prepare the input pipeline
#
# We set a tenth of the training images aside as a **validation set**, with the same share of each
# digit (`stratify`). It shows how the model does on images that it is not trained on. We make all
# choices by it, and none by the test set: a model that was chosen on the test set looks better
# there than on new images.

# %%
x_train, x_validation, y_train, y_validation = train_test_split(
    x_train, y_train, test_size=0.1, stratify=y_train, random_state=args.seed
)
print(f"{len(x_train):,} images for training, {len(x_validation):,} for validation")

# %% [markdown]
# **Data augmentation** changes each training image a little, and differently each time. Ours are
# rotated by up to 3% of a full turn (11 degrees), shifted by up to 8% (2 pixels) and zoomed by up
# to 10%. The model rarely sees exactly the same image twice, which makes memorizing hard. Choose
# changes that keep the label true. A mirrored 2 is not a digit and an upside-down 6 is a 9, so we
# do not flip, and we rotate only a little. A rotated or zoomed image takes each pixel from the
# `nearest` one of the original, which leaves edges a little ragged; Keras's default blurs the image
# with each of the three layers. Places beyond the border take the nearest pixel, too (`fill_mode`).
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
# The validation images are neither shuffled nor augmented. In `augmented.png`, check that each
# image still shows its digit.

# %%
augment = keras.layers.Pipeline(  # layers that follow each other
    [
        keras.layers.RandomRotation(0.03, fill_mode="nearest", interpolation="nearest"),
        keras.layers.RandomTranslation(0.08, 0.08, fill_mode="nearest", interpolation="nearest"),
        keras.layers.RandomZoom(0.1, fill_mode="nearest", interpolation="nearest"),
    ]
)


def augment_batch(images, labels):
    return augment(images, training=True), labels  # training=False: images unchanged


no_autotuning = tf.data.Options()
no_autotuning.autotune.enabled = False  # for speed: tuning the pipeline delays epochs by up to 2 s
training_data = (
    tf.data.Dataset.from_tensor_slices((x_train, y_train))
    .cache()
    .shuffle(len(x_train), seed=args.seed)
    .batch(args.batch_size)
    .map(augment_batch, num_parallel_calls=device.cores)
    .prefetch(4)
    .with_options(no_autotuning)
)
validation_data = tf.data.Dataset.from_tensor_slices((x_validation, y_validation)).batch(500)

originals = np.stack([images[0] for images in examples])
augmented = [keras.ops.convert_to_numpy(augment(originals, training=True)) for _ in range(4)]
title = "Rotated, shifted and zoomed, each image still shows the same digit"
plots.rows(run.folder / "augmented.png", [originals, *augmented], title)

# %% [markdown]
# ## Build the model
#
# A **layer** computes new numbers from those of the layer before. Many layers do so with learned
# factors, their **weights**. A **convolution** slides small filters, here of 3x3 weights, over the
# image. Each filter responds to one pattern, wherever it occurs, and its outputs form a **feature
# map**. Early layers find simple patterns, such as edges; later ones combine them into larger ones.
# Nobody designs the filters: they are learned. A filter is shared by all positions, so a
# convolution needs few weights. **ReLU** sets negative outputs to zero; without such a step
# between them, several layers could do no more than a single one.
#
# **Max pooling** keeps the largest of 2x2 neighbors: feature maps shrink, and a small shift of the
# digit matters less. **Flatten** lays the feature maps out as one row of numbers, and **dense**
# layers combine all of them. **Dropout** (Srivastava and others, 2014) zeroes a random 30% of its
# inputs at each training step, so that the model cannot rely on any single one. Outside of
# training, nothing is zeroed. The last layer has one output per digit, its **logit**: a score of
# any size. The higher it is, the more likely the digit.
#
# The summary below counts each layer's **parameters**: its weights, and one constant per filter or
# unit, the bias. The first convolution has 16 x (3 x 3 + 1) = 160. Each filter of the second looks
# at all 16 feature maps of the first: 64 x (3 x 3 x 16 + 1) = 9,280. `None` stands for any number
# of images.

# %%
model = keras.Sequential(
    [
        keras.Input(shape=(28, 28, 1)),
        keras.layers.Rescaling(1 / 255),  # 0..255 -> 0..1; a part of the model
        keras.layers.Conv2D(16, kernel_size=3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, kernel_size=3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(128, kernel_size=3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(len(class_names), dtype="float32"),  # logits in full precision
    ]
)
model.summary()

# %% [markdown]
# ## Compile the model
#
# - The **loss** is what training minimizes. **Softmax** turns the ten logits into probabilities
#   that sum to 1: e to the power of each logit, divided by the sum of all ten. The
#   **cross-entropy** of an image is -ln(probability of its true digit), and the loss is its mean
#   over the images. `Sparse` means that each label is one number. With `from_logits=True`, the loss
#   includes the softmax, so that no probability is rounded to 0 before its logarithm.
# - The **optimizer** changes the weights to lower the loss. The **gradient** tells how the loss
#   changes with each weight. **Adam** (Kingma and Ba, 2015) follows it downhill after each batch,
#   and the **learning rate** sets how far. The rate warms up from 0 over the first 20% of the steps
#   (Goyal and others, 2017), so the untrained model begins with small steps. Then it decays to 0
#   along a cosine (Loshchilov and Hutter, 2017), so that the weights settle.
# - The **metric** is for us: accuracy. It changes in jumps, so it has no useful gradient to
#   follow.
#
# An untrained model should give each digit a probability of about 1/10: a loss near -ln(1/10) =
# 2.303, and an accuracy near 10%. An untrained loss far from that is a sign of a mistake in the
# code.

# %%
steps = args.epochs * len(training_data)  # its length is the number of batches
warmup = steps // 5
learning_rate = keras.optimizers.schedules.CosineDecay(
    0.0, warmup_target=args.learning_rate, warmup_steps=warmup, decay_steps=steps - warmup
)
model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    optimizer=keras.optimizers.Adam(learning_rate),
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
# named after the training, here `cnn`.
#
# For each epoch, Keras prints the number of batches, loss and accuracy on the training images, and
# those on the validation images (`val_loss`, `val_accuracy`).

# %%
model.fit(
    training_data,
    validation_data=validation_data,
    epochs=args.epochs,
    callbacks=run.callbacks("cnn"),
    shuffle=False,  # the pipeline shuffles
    verbose=run.verbose,
)
history = run.history("cnn")  # of all epochs, those before a --resume included
best_epoch = np.nanargmin(history["val_loss"]) + 1  # "nan": passes over epochs without a figure
print(f"Trained for {run.seconds['cnn']:.0f} s; best epoch: {best_epoch}")

# %% [markdown]
# ## Look at the learning curves
#
# The vertical axes are logarithmic, so that the late epochs stay readable. The **error** is 1 -
# accuracy. Training looks worse than validation here, for three reasons. Its figures are means
# over an epoch, in which the model still improves. Its images are augmented. And dropout is at
# work.
#
# Watch for **overfitting**: the model memorizes its training images. It shows as a growing gap
# between training and validation. Where it is strong, the validation loss rises while the training
# loss falls.

# %%
epochs = np.arange(1, len(history["loss"]) + 1)
figure, (loss_axis, error_axis) = plt.subplots(1, 2, figsize=(8, 3.6))
loss_axis.plot(epochs, history["loss"], "--o", markerfacecolor="white", label="training")
loss_axis.plot(epochs, history["val_loss"], "-o", color="C0", label="validation")  # C0: blue
loss_axis.set(xlabel="Epoch", ylabel="Loss (cross-entropy)", yscale="log")
loss_axis.legend()
error_axis.plot(epochs, 1 - np.array(history["accuracy"]), "--o", markerfacecolor="white")
error_axis.plot(epochs, 1 - np.array(history["val_accuracy"]), "-o", color="C0")
error_axis.set(xlabel="Epoch", ylabel="Error (1 - accuracy)", yscale="log")
best_accuracy = history["val_accuracy"][best_epoch - 1]
figure.suptitle(f"Best epoch: {best_epoch}, with a validation accuracy of {best_accuracy:.2%}")
plots.save(figure, run.folder / "curves.png")

# %% [markdown]
# ## Evaluate on the test set
#
# We load the model of the best epoch and append a softmax, so that it outputs probabilities:
# `keras.Model(inputs, outputs)` makes a model of the layers between the two, with their trained
# weights. Now the test set is used; nothing is chosen by what it shows. The training images are
# evaluated without augmentation and dropout this time. (`log_loss` is scikit-learn's name for the
# cross-entropy.) Two measures per digit say more than accuracy:
#
# - **Precision**: of the images predicted to be a 7, the share that is a 7.
# - **Recall**: of the images of a 7, the share that is predicted to be a 7.
#
# **F1** combines the two (their harmonic mean), and **support** is the number of images. The macro
# average is the mean over the digits; the weighted one counts each digit by its support. The
# **confusion matrix** counts each pair of true and predicted digit: the diagonal holds the correct
# predictions.

# %%
keras.distribution.set_distribution(None)  # several GPUs (docs/scaling.md) are for `fit` alone
model = keras.saving.load_model(run.path("cnn", "best.keras"))
classifier = keras.Model(model.inputs[0], keras.layers.Softmax()(model.outputs[0]))
classifier = devices.to_float32(classifier)  # other machines may be slow with 16-bit numbers
images = {"train": x_train, "validation": x_validation, "test": x_test}
labels = {"train": y_train, "validation": y_validation, "test": y_test}
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

# %% [markdown]
# ## Look at predictions and mistakes
#
# The highest of the ten probabilities is the model's **confidence** in its prediction. Two groups
# of images teach the most: the least confident correct predictions, and the most confident errors.
# Would you have hesitated over the first group? Which digits do you see in the second?

# %%
confidence = probabilities["test"].max(axis=1)
correct = np.flatnonzero(predicted == y_test)  # the indices of these images
errors = np.flatnonzero(predicted != y_test)
least_confident = correct[np.argsort(confidence[correct])][:20]
most_confident = errors[np.argsort(-confidence[errors])][:15]  # minus: the highest first
test_set = (x_test, y_test, probabilities["test"], class_names)
title = f"Correct, with a confidence of at most {confidence[least_confident].max(initial=0):.0%}"
plots.predictions(run.folder / "predictions.png", *test_set, least_confident, title)
title = f"{len(errors)} of {len(x_test):,} misclassified; the {len(most_confident)} most confident"
plots.predictions(run.folder / "mistakes.png", *test_set, most_confident, title)

# %% [markdown]
# ## How far to trust a probability
#
# A model is **calibrated** if its confidence matches its accuracy: of all predictions with a
# confidence of about 80%, about 80% are correct. `plots.calibration` puts the predictions into ten
# bins by their confidence: 0 to 10%, 10 to 20%, and so on. The **reliability diagram** has a point
# for each bin that is not empty: x is its mean confidence, y its accuracy. On the diagonal line,
# the two are equal. Below it, the model is **overconfident**; above it, **underconfident**. Hollow
# points stand for fewer than 30 images, whose accuracy says little. If the mean confidence of all
# predictions is above the accuracy, the model is overconfident on the whole; if it is below,
# underconfident.
#
# For each bin, take the distance between accuracy and mean confidence. The **expected calibration
# error** (Naeini and others, 2015; Guo and others, 2017) is the mean of these distances, weighted
# by the number of images in the bin. An error of 0.03, for example, is a distance of 3 points.
#
# Nearly all predictions of this model are in the last bin. The other points stand for few images
# each, so do not read much into any one of them.

# %%
confidences, accuracies, counts = plots.calibration(y_test, probabilities["test"])
scores["test"]["calibration_error"] = np.average(np.abs(accuracies - confidences), weights=counts)
title = f"Mean confidence {confidence.mean():.2%}, accuracy {scores['test']['accuracy']:.2%}"
print(f"{title}; expected calibration error {scores['test']['calibration_error']:.3f}")
curves = {"the model": (confidences, accuracies, counts)}
plots.reliability(run.folder / "reliability.png", curves, title)

# %% [markdown]
# ## Work one image through
#
# How do logits become a probability and a loss? We take a test image with a confidence of about
# 50%: the model is unsure of it. Softmax computes e to the power of each logit (e is about 2.718),
# and divides by the sum of all ten. If the logit of a 3 is higher by 1 than that of an 8, the 3 is
# 2.7 times as probable. The prediction is the digit with the highest probability. The cross-entropy
# of the image depends on its true digit alone. -ln(probability), the natural logarithm, is 0 at
# 100%, 0.69 at 50% and 2.3 at 10%.
#
# The model `model` outputs the logits. The slice in `predict` is a batch of one image.

# %%
hesitant = np.argmin(np.abs(confidence - 0.5))  # its index
logits = model.predict(x_test[hesitant : hesitant + 1], verbose=0)[0]
exponentials = np.exp(logits)
softmax = exponentials / exponentials.sum()
print(f"Test image {hesitant}, true {y_test[hesitant]}, predicted {predicted[hesitant]}:")
print("digit   logit    e^logit  probability")
for digit, row in enumerate(zip(logits, exponentials, softmax, strict=True)):
    print("{:5}{:8.2f}{:11.3f}{:13.1%}".format(digit, *row))
probability = softmax[y_test[hesitant]]
print(f"Cross-entropy: -ln({probability:.3f}) = {-np.log(probability):.3f}")

# %% [markdown]
# ## Save the model, and load it again
#
# One file holds the layers and their weights, from rescaling to softmax. Loaded, the model takes
# images with pixels from 0 to 255 and outputs probabilities. It expects a batch; a single image is
# a batch of one. `python predict.py photo.jpg` prepares a photographed digit and asks the model of
# the newest run. To train on images of your own, see the README.

# %%
classifier.save(run.folder / "model.keras")
loaded = keras.saving.load_model(run.folder / "model.keras")
first = loaded.predict(x_test[:1], verbose=0)[0]  # x_test[:1] has the shape (1, 28, 28, 1)
print(f"The first test image: true {y_test[0]}, predicted {first.argmax()} ({first.max():.1%})")

# %% [markdown]
# ## The answer to the question
#
# Count the digits in `mistakes.png` that you would have read: your answer to the second half of the
# question. `run.finish` writes all numbers to `results.json`, the errors to `mistakes.csv`, and
# everything together to a page, `report.html`. On that page you can also draw a digit, and the
# model predicts it while you draw.

# %%
print(f"\nThe model misclassifies {len(errors)} of {len(x_test):,} test images. {most_common}.")
print("Could you have read the most confident errors? See mistakes.png.\n")
run.finish(
    source=source,
    class_names=class_names,
    preparation="digit",  # how predict.py prepares an image: as a digit on paper
    models={"cnn": classifier},
    scores={"cnn": scores},
    labels=labels,
    probabilities=probabilities["test"],
)

# %% [markdown]
# ## Look inside the model
#
# What has the model learned, and what does each layer pass on? In all our plots of digits, high
# numbers are dark. So in `filters.png`, which draws the **filters** of the first convolution, dark
# cells are positive weights, and light ones negative; a middle gray is near 0. A filter that is
# dark on one side and light on the other responds to an edge.
#
# `feature_maps.png` draws the first ten **feature maps** of each convolution for one test image,
# after ReLU: the darker a place is, the more the filter responds there. The maps have 26x26, 11x11
# and 3x3 places. In the first layer, you still see the digit, its edges or its strokes. Where the
# background is gray, the filter also responds to empty paper. An empty map means that its filter
# responds weakly or not at all to this image.

# %%
convolutions = [layer for layer in classifier.layers if isinstance(layer, keras.layers.Conv2D)]
shown = []
for layer in convolutions:
    map_model = keras.Model(classifier.inputs, layer.output)
    maps = map_model.predict(x_test[:1], verbose=0)  # shape: (1, height, width, filters)
    shown.append(255 * maps[0].transpose(2, 0, 1)[:10, :, :, np.newaxis] / maps.max())
if convolutions:
    filters = convolutions[0].get_weights()[0].transpose(3, 0, 1, 2)  # as images: (16, 3, 3, 1)
    pixels = 127.5 + 127.5 * filters / np.abs(filters).max()  # 0 to 255; a weight of 0 is 127.5
    names = [str(number) for number in range(len(filters))]
    plots.grid(run.folder / "filters.png", pixels, names, "Which filters find edges?", columns=8)
    title = f"Feature maps of a {y_test[0]}: ten of each convolution"
    names = [f"convolution {number}" for number in range(1, len(shown) + 1)]
    plots.rows(run.folder / "feature_maps.png", shown, title, names)
else:
    print("The model has no convolutional layer of its own to look at.")
run.write_page()  # again, with these plots

# %% [markdown]
# ## Where this model comes from
#
# It descends from LeNet. Five families of convolutional networks to know:
#
# - **LeNet** (LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document
#   recognition*, 1998): convolution and pooling, twice, then dense layers. It read the digits on
#   checks. Ours has ReLU, max pooling, dropout and a third convolution.
# - **AlexNet** (Krizhevsky, Sutskever and Hinton, *ImageNet classification with deep convolutional
#   neural networks*, 2012): the same idea on a larger scale, trained on two GPUs with ReLU,
#   dropout and augmentation. Its lead on the 1,000 classes of ImageNet turned the field to deep
#   learning.
# - **VGG** (Simonyan and Zisserman, *Very deep convolutional networks for large-scale image
#   recognition*, 2014): all convolutions are 3x3, in groups with pooling after each, and three
#   dense layers behind; 16 or 19 layers with weights.
# - **Inception** (Szegedy and others, *Going deeper with convolutions*, 2014): filters of several
#   sizes side by side. Convolutions of 1x1, which mix the feature maps of each position, keep them
#   cheap.
# - **ResNet** (He, Zhang, Ren and Sun, *Deep residual learning for image recognition*, 2015): each
#   block adds to its input instead of replacing it, so that networks of more than a hundred layers
#   can be trained.

# %% [markdown]
# ## Try it yourself
#
# Predict the outcome, change one line, run the script again, and compare.
#
# 1. Train without augmentation: remove the line that begins with `.map(`. Compare the accuracies
#    of the training set and of the validation set, as evaluated at the end. What happens to the
#    gap?
# 2. Remove the line with `Rescaling`. What does the untrained loss tell you? Does the model still
#    learn?
# 3. Move `.cache()` below the line with `.map(`, so that every epoch repeats the batches of the
#    first. What happens to the training loss of the last epoch, and what to its validation loss?
#
# "Classic mistakes, and how they look", in `outputs/reference/faults`, shows what comes of
# exercises 2 and 3, and of other mistakes.
