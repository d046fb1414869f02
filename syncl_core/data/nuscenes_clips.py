"""A split of a nuScenes root as a ClipSource."""

from pathlib import Path

from syncl_core.classes import DETECTION_CLASSES
from syncl_core.config import SynclConfig
from syncl_core.data.augment import check_size
from syncl_core.data.nuscenes import NuScenesScenes, Sample
from syncl_core.errors import InputError
from syncl_core.types import FrameSet, ObjectSet


class NuScenesClips:
    """The scenes of a split, official or custom, whose key frames have all images of the rig on disk.

    Of a partly filled root the longest run of key frames with images counts. The tables are loaded once; workers made
    by fork share them.

    first_scene: of the split, the number of the first scene used. num_scenes: so many at most; 0 = all. Raises
    InputError, naming the folder, if no key frame can be used, for images too low for the network and for classes that
    nuScenes does not know: they would be taught without a single object.
    """

    def __init__(
        self,
        root: str | Path,
        config: SynclConfig,
        split: str = "",
        version: str = "",
        first_scene: int = 0,
        num_scenes: int = 0,
    ):
        if unknown := [label for label in config.classes if label not in DETECTION_CLASSES]:
            known = ", ".join(DETECTION_CLASSES)
            raise InputError(f"{root}: classes: nuScenes has no {', '.join(unknown)}; its classes are {known}")
        self._data = NuScenesScenes(root, version)
        self._cameras, self._classes = config.rig.cameras, config.classes
        names = self._data.split(split) if split else self._data.scene_names
        where = f"split {split!r}" if split else "the root"
        chosen = names[first_scene:][: num_scenes or None]
        if not chosen:
            raise InputError(f"{root}: {where} has the scenes 0 to {len(names) - 1}, got first scene = {first_scene}")
        runs = {name: self._longest_run(self._data.samples(name)) for name in chosen}
        self._samples = {name: samples for name, samples in runs.items() if samples}
        if not self._samples:
            raise InputError(f"{root}: no key frame of {where} has images of {', '.join(self._cameras)} on disk")
        for scene, samples in self._samples.items():
            for camera in self._cameras:
                check_size(
                    f"{root}: {scene}: {camera}", self._data.camera_model(samples[0].token, camera), config.image
                )

    @property
    def data(self) -> NuScenesScenes:
        return self._data

    @property
    def scene_names(self) -> tuple[str, ...]:
        return tuple(self._samples)

    @property
    def image_source(self) -> str:
        """Differs where the same key frames have other images: see `ClipSource`."""
        return " ".join([str(self._data.root.resolve()), *(samples[0].token for samples in self._samples.values())])

    def num_key_frames(self, scene: str) -> int:
        return len(self._samples[scene])

    def sample(self, scene: str, index: int) -> Sample:
        return self._samples[scene][index]

    def frame_set(self, scene: str, index: int) -> FrameSet:
        return self._data.frame_set(self._samples[scene][index].token, self._cameras)

    def ground_truth(self, scene: str, index: int) -> ObjectSet:
        return self._data.ground_truth(self._samples[scene][index].token, self._classes)

    def _longest_run(self, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        complete = [len(self._data.cameras_on_disk(s.token, self._cameras)) == len(self._cameras) for s in samples]
        best, start = (), 0
        for end in range(len(samples) + 1):
            if end == len(samples) or not complete[end]:
                best = max(best, samples[start:end], key=len)
                start = end + 1
        return best
