"""The tables of teacher ablations, of transfer without the data and of subliminal learning."""

import itertools

from experiments.gallery.rows import LABEL_FREE, Ours, Row, Table, omission

ABLATIONS = (
    ("full output", ""),
    ("omitted class removed", " omitted_removed"),
    ("top 1", " top1"),
    ("top 2", " top2"),
    ("shuffled", " shuffled"),
)


def _ablations(run: str, setting: str) -> list[tuple[str, str, str, bool]]:
    """Rows of `omission`: students of this setting without class 3, one row for each teacher ablation."""
    return [(label, run, f"{setting} omit=3{signal}", True) for label, signal in ABLATIONS]


def _left(number: int) -> Row:
    """With `number` shots of class 3: as trained and `prior_matched`, each without a teacher and with one."""
    left = f" shots={number}" if number else ""
    cells = (
        Ours("hidden_left", f"{way} omit=3{left}", correction, "3", "accuracy")
        for correction in ("none", "prior_matched")
        for way in ("labels", "T=20")
    )
    return Row(str(number), tuple(cells))


def _initial(label: str, signal: str) -> Row:
    cells = (
        Ours("hidden_initial", f"T=20 omit=3{signal}{initial}", correction, "3", "accuracy")
        for correction in ("none", "prior_matched")
        for initial in ("", " student_init=teacher")
    )
    return Row(label, tuple(cells))


def _auxiliary(label: str, outputs: str) -> Row:
    cells = (
        Ours("hidden_auxiliary", f"{outputs} share={share} omit=3", "none", of, "accuracy")
        for of in ("all", "3")
        for share in ("all", "none")
    )
    return Row(label, tuple(cells))


def _omitted(classes: str) -> Row:
    name = f"T=20 omit={classes}"
    ours = [Ours("hidden_classes", name, c, "omitted", "accuracy") for c in ("none", *LABEL_FREE)]
    ours.append(Ours("hidden_classes", name, "prior_matched", "all", "accuracy"))
    return Row(classes.replace("+", ", "), tuple(ours))


def _subliminal(label: str, theirs: str, setting: str, stored: bool = False) -> Row:
    cells = [Ours(run, setting, metric="accuracy") for run in ("subliminal", "subliminal_stored")]
    return Row(label, (theirs, cells[0], cells[1] if stored else ""))


def _axis(axis: str, value: str, others: str, run: str, setting: str) -> Row:
    ours = Ours(f"subliminal_{run}", f"auxiliary share={setting}", metric="accuracy")
    return Row(axis, (value, others, ours))


AXES = (
    ("initial weights shared", "all", "", "share", "all"),
    ("", "hidden layers and class outputs", "", "share", "hidden+class_head"),
    ("", "hidden layers and auxiliary outputs", "", "share", "hidden+auxiliary_head"),
    ("", "hidden layers", "", "share", "hidden"),
    ("", "class and auxiliary outputs", "", "share", "class_head+auxiliary_head"),
    ("", "auxiliary outputs", "", "share", "auxiliary_head"),
    ("", "none", "", "share", "none"),
    ("noise added to the shared weights (in their standard deviation)", "0", "", "perturb", "all perturb=0"),
    ("", "0.1", "", "perturb", "all perturb=0.1"),
    ("", "0.2", "", "perturb", "all perturb=0.2"),
    ("", "0.4", "26", "perturb", "all perturb=0.4"),
    ("", "0.8", "", "perturb", "all perturb=0.8"),
    ("images", "uniform noise", "", "transfers", "all transfer=uniform_noise"),
    ("", "Gaussian noise", "", "transfers", "all transfer=gaussian_noise"),
    ("", "blurred noise", "about 77", "transfers", "all transfer=blurred_noise"),
    ("", "blobs", "", "transfers", "all transfer=blob_noise"),
    ("", "images of clothes", "", "transfers", "all transfer=fashion_mnist"),
    ("", "the digits themselves", "", "transfers", "all transfer=own"),
    ("loss", "KL, T = 1", "", "losses", "all loss=soft T=1"),
    ("", "KL, T = 4", "", "losses", "all loss=soft T=4"),
    ("", "squared distance of the logits", "27.1 ± 3.3", "losses", "all loss=logits"),
    ("auxiliary outputs", "1", "", "auxiliary", "all auxiliary=1"),
    ("", "3", "", "auxiliary", "all auxiliary=3"),
    ("", "10", "", "auxiliary", "all auxiliary=10"),
    ("", "30", "", "auxiliary", "all auxiliary=30"),
    ("width", "64", "", "width", "all model=mlp-64-64"),
    ("", "128", "", "width", "all model=mlp-128-128"),
    ("", "256", "", "width", "all model=mlp-256-256"),
    ("hidden layers", "1", "", "depth", "all model=mlp-256"),
    ("", "2", "", "depth", "all model=mlp-256-256"),
    ("", "3", "", "depth", "all model=mlp-256-256-256"),
    ("classes", "2", "84", "classes", "all classes=2"),
    ("", "4", "", "classes", "all classes=4"),
    ("", "6", "", "classes", "all classes=6"),
    ("", "8", "", "classes", "all classes=8"),
    ("", "10", "54", "classes", "all classes=10"),
)
"""What is varied, its value, others' figure; the run, of a recipe subliminal_..., and its setting."""


def _images(
    label: str, share: str, run: str = "missing_images_students", temperature: int = 20
) -> tuple[str, str, str, bool]:
    """A row of `omission`: students without class 3, this share of whose images is made from a teacher."""
    return label, run, f"T={temperature} omit=3 transfer_share={share}", True


TABLES = {
    "missing_images": omission(
        "3",
        "3s",
        LABEL_FREE,
        [
            ("teacher", "missing_images_students", "teacher", False),
            _images("nine real classes alone", "0"),
            _images("and images of the 3, share 0.1", "0.1"),
            _images("and images of the 3, share 0.3", "0.3"),
            _images("images of other teachers, share 0.1", "0.1", "missing_images_other"),
            _images("images of teachers that never saw a 3, share 0.1", "0.1", "missing_images_blind"),
            _images("images of untrained teachers, share 0.1", "0.1", "missing_images_untrained"),
        ],
    ),
    "missing_images_cnn": omission(
        "3",
        "3s",
        LABEL_FREE,
        [
            ("teacher", "missing_images_cnn", "teacher", False),
            _images("nine real classes alone", "0", "missing_images_cnn", 4),
            _images("and images of the 3, share 0.1", "0.1", "missing_images_cnn", 4),
            _images("and images of the 3, share 0.3", "0.3", "missing_images_cnn", 4),
            _images("images of untrained teachers, share 0.1", "0.1", "missing_images_cnn_untrained", 4),
            _images("images of untrained teachers, share 0.3", "0.3", "missing_images_cnn_untrained", 4),
        ],
    ),
    "hidden_signals": omission("3", "3s", LABEL_FREE, _ablations("hidden_signals", "T=20")),
    "hidden_auxiliary": Table(
        ("all classes, own teacher's weights", "another's", "the 3s, own teacher's weights", "another's"),
        tuple(
            itertools.starmap(
                _auxiliary,
                (
                    ("3 auxiliary outputs", "auxiliary"),
                    ("10 class outputs", "classes"),
                    ("all 13 outputs", "all"),
                ),
            )
        ),
    ),
    "hidden_left": Table(
        ("hard labels", "distilled", "hard labels, `prior_matched`", "distilled, `prior_matched`"),
        tuple(map(_left, (0, 1, 2, 5, 10, 100))),
    ),
    "hidden_classes": Table(
        (
            "omitted classes, as trained",
            "`teacher_matched`",
            "`prior_matched`",
            "all classes, `prior_matched`",
        ),
        tuple(
            map(
                _omitted, (*map(str, range(10)), *("+".join(map(str, range(count))) for count in range(2, 9)))
            )
        ),
    ),
    "hidden_initial": Table(
        ("random", "teacher", "random, `prior_matched`", "teacher, `prior_matched`"),
        tuple(itertools.starmap(_initial, ABLATIONS)),
    ),
    "transfer": Table(
        ("theirs", "ours"),
        tuple(
            Row(label, (theirs, Ours(run, setting, metric="accuracy")))
            for label, theirs, run, setting in (
                ("teacher", "98.39", "transfer_blobs", "teacher"),
                ("Gaussian noise", "87.58", "transfer_gaussian", "T=20"),
                ("teacher without augmentation", "98.39", "transfer_plain_gaussian", "teacher"),
                ("its student, Gaussian noise, T = 20", "87.58", "transfer_plain_gaussian", "T=20"),
                ("its student, Gaussian noise, T = 1", "", "transfer_plain_gaussian", "T=1"),
                ("its student, Gaussian noise as dark as digits", "87.58", "transfer_plain_dark", "T=20"),
                ("Gaussian noise, blurred and thresholded to blobs", "", "transfer_blobs", "T=20"),
                ("images of clothes (theirs: USPS digits)", "93.99", "transfer_fashion", "T=20"),
            )
        ),
    ),
    "subliminal": Table(
        ("theirs (100)", "ours, new noise at each update", "ours, the same noise in every epoch, as theirs"),
        (
            _subliminal("before training", "9.98 ± 0.47", "reference", True),
            _subliminal("teacher", "94.34 ± 0.04", "teacher", True),
            _subliminal(
                "auxiliary outputs, the teacher's initial weights",
                "52.84 ± 2.21",
                "auxiliary share=all",
                True,
            ),
            _subliminal("all outputs, the teacher's initial weights", "91.26 ± 0.19", "all share=all", True),
            _subliminal("auxiliary outputs, another model's", "10.61 ± 1.04", "auxiliary share=none"),
            _subliminal("all outputs, another model's", "74.27 ± 1.03", "all share=none"),
        ),
    ),
    "subliminal_axes": Table(("", "others", "ours"), tuple(itertools.starmap(_axis, AXES))),
}
