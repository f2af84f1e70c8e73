"""Import: annotations and the images that they are of, as a training set.

Whatever gives no cell, and every file that gives no image, is listed with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cellseg.models.errors import CellsegError
from cellseg.models.layers import from_layers
from cellseg.pipeline.annotations import Drawn, Skipped
from cellseg.pipeline.coco import CocoImage, read_unlisted
from cellseg.pipeline.image import READERS
from cellseg.pipeline.image_names import image_names
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.masks import (
    FORMS,
    MASK_READERS,
    MaskSource,
    find_masks,
    is_mask_file,
    stem_of,
)
from cellseg.pipeline.plane_files import is_readable, read_plane
from cellseg.pipeline.training_set import TrainingSet

ANNOTATED = MASK_READERS.keys() - READERS.keys()
"""Suffixes of files of shapes, and not of label images."""
PICKLE = (
    "a pickle of CellPose, which may run any code when it is read; save the masks in CellPose as"
    " PNG or TIFF, or as ImageJ's ROIs"
)


class Import:
    """The import of annotations; `steps` does it.

    Parameters
    ----------
    annotations : Path
        What `cellseg.pipeline.masks.find_masks` reads; of a folder that holds files of shapes,
        those alone.
    images : Path
        A folder of images, or one image; TIFF, OME-Zarr, PNG, JPEG and all that cellseg reads.
    output : Path
        Folder of the training set.
    classes : sequence of str
        Take only cells that are called so, the first as class 1. With several of them the set
        has class images.
    channels : sequence of int or str
        Channels of the images to keep, in order; by default all.

    Raises
    ------
    CellsegError
        If there is nothing to import, or no image.
    """

    def __init__(
        self,
        annotations: Path,
        images: Path,
        output: Path,
        classes: Sequence[str] = (),
        channels: Sequence[int | str] = (),
    ) -> None:
        self.classes = tuple(classes)
        self.channels = tuple(channels)
        self.set = TrainingSet(output)
        self.skipped: list[Skipped] = []
        self.cells = 0
        self._kinds: set[int] = set()
        self.images: list[str] = []
        self.sources = self._find(annotations)
        self.paths = _images(images)
        self.pairs = self._paired(images)

    def _find(self, path: Path) -> dict[str, MaskSource]:
        """Return what is annotated, by the image's name; list the files that cannot be used."""
        files = [path] if is_mask_file(path) else _files(path)
        if not files:
            return find_masks(path)
        found: dict[str, MaskSource] = {}
        for file in files:
            for name, source in self._read(file).items():
                if name in found:
                    self._skip(file, f"{found[name].path.name} is of an image {name} too")
                else:
                    found[name] = source
        if not found:
            first = f" {self.skipped[0]}." if self.skipped else ""
            raise CellsegError(f"{path}: nothing to import.{first} Give {FORMS}.")
        return found

    def _read(self, file: Path) -> dict[str, MaskSource]:
        """Return what a file holds; nothing, and say so, where it cannot be read."""
        if file.suffix.lower() == ".npy":
            self._skip(file, PICKLE)
            return {}
        try:
            found = MASK_READERS[".zarr" if file.is_dir() else file.suffix.lower()](file)
            if any(isinstance(each.annotated, CocoImage) for each in found.values()):
                self.skipped += read_unlisted(file)
        except CellsegError as error:
            self._skip(file, str(error).removeprefix(f"{file}: ").rstrip("."))
            return {}
        return found

    def _skip(self, where: Path | str, why: str) -> None:
        self.skipped.append(Skipped(str(where), why))

    def _paired(self, images: Path) -> list[tuple[str, Path, MaskSource]]:
        """Return name, image and cells of what belongs together."""
        sources = self.sources
        if len(sources) == len(self.paths) == 1:
            # Two single files belong together whatever they are called.
            sources = dict(zip(self.paths, sources.values(), strict=True))
        for name, source in sources.items():
            if name not in self.paths:
                self._skip(source.path, f"no image {name} in {images}")
        bare = [name for name in self.paths if name not in sources]
        for name in bare:
            self._skip(self.paths[name], "nothing is drawn in it; it is left out")
        both = [name for name in self.paths if name in sources]
        if not both:
            raise CellsegError(
                f"{images}: none of its images ({', '.join(list(self.paths)[:3])}) is annotated;"
                f" annotated are {', '.join(list(sources)[:3])}. Names without suffix must agree."
            )
        names = image_names([self.paths[name].with_suffix(".tif") for name in both])
        return [
            (plain, self.paths[name], sources[name])
            for plain, name in zip(names, both, strict=True)
        ]

    def steps(self) -> Iterator[str]:
        """Write image by image; yield the name of each."""
        for name, path, source in self.pairs:
            try:
                self._add(name, path, source)
            except CellsegError as error:
                self._skip(path, str(error).removeprefix(f"{path}: ").rstrip("."))
            yield name
        for rank, name in enumerate(self.classes, 1):
            if rank not in self._kinds:
                self._skip("--classes", f"no cell is called {name}")
        self.set.write_report(self.report)

    def _add(self, name: str, path: Path, source: MaskSource) -> None:
        pixels, channels = read_plane(path)
        if self.channels:
            inputs = Inputs.of(self.channels, channels, str(path))
            pixels = pixels[list(inputs.channels)]
        shape = pixels.shape[1], pixels.shape[2]
        drawn = self._drawn(source, shape)
        self.skipped += drawn.skipped
        if drawn.skipped and not len(drawn.cells):
            raise CellsegError(f"{path}: none of its shapes is a cell; it is left out.")
        self.set.add(name, pixels, drawn.cells, classed=len(self.classes) > 1)
        self.images.append(name)
        self.cells += len(drawn.cells)
        self._kinds.update(drawn.cells.classes.tolist())

    def _drawn(self, source: MaskSource, shape: tuple[int, int]) -> Drawn:
        """Return the cells of an image."""
        if source.annotated is None:
            if self.classes:
                raise CellsegError(f"{source.path}: label images do not say what cells are called.")
            labels, _ = source.read(1, shape).label_layers()
            _check_shape(source, (labels.shape[1], labels.shape[2]), shape)
            return Drawn(from_layers(labels))
        annotated = source.annotated.over(shape)
        _check_shape(source, annotated.shape or shape, shape)
        return annotated.drawn(self.classes)

    @property
    def report(self) -> list[str]:
        """What was imported and what not, a line each."""
        first = f"{len(self.images)} images with {self.cells} cells in {self.set.folder}"
        kinds = [f"class {rank}: {name}" for rank, name in enumerate(self.classes, 1)]
        return [first, *kinds, *(f"skipped: {each}" for each in self.skipped)]

    @property
    def reasons(self) -> Mapping[str, int]:
        """How often something was skipped for each reason, the most frequent first."""
        counts: dict[str, int] = {}
        for each in self.skipped:
            counts[each.why] = counts.get(each.why, 0) + 1
        return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def _files(folder: Path) -> list[Path]:
    """Return the files of shapes in a folder, and those that look as if they were some."""
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    shapes = [path for path in files if path.suffix.lower() in ANNOTATED]
    pickles = [path for path in files if path.name.endswith("_seg.npy")]
    # Beside label images in files of their own, a run.json is no annotation.
    return [*shapes, *pickles] if shapes and not (folder / "run.json").is_file() else []


def _images(path: Path) -> dict[str, Path]:
    """Return the images of a folder, or one image, by name without suffix."""
    if is_readable(path):
        return {stem_of(path.name): path}
    found = [each for each in sorted(path.iterdir()) if is_readable(each)] if path.is_dir() else []
    if not found:
        raise CellsegError(f"{path}: no images. Give --images the folder of the annotated images.")
    return {stem_of(each.name): each for each in found}


def _check_shape(source: MaskSource, got: tuple[int, int], shape: tuple[int, int]) -> None:
    if got != shape:
        raise CellsegError(
            f"{source.path}: drawn over {got[0]} x {got[1]} px, the image has"
            f" {shape[0]} x {shape[1]} px."
        )
