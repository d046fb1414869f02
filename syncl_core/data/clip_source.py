"""What training and evaluation need of a data set, whatever it is: scenes of key frames with ground truth."""

from typing import Protocol

from syncl_core.types import FrameSet, ObjectSet


class ClipSource(Protocol):
    """Scenes of key frames, numbered from zero. Must survive pickling: workers get a copy each."""

    @property
    def scene_names(self) -> tuple[str, ...]: ...

    def num_key_frames(self, scene: str) -> int: ...

    def frame_set(self, scene: str, index: int) -> FrameSet:
        """Images of the rig's cameras around key frame `index`."""
        ...

    def ground_truth(self, scene: str, index: int) -> ObjectSet:
        """The objects of key frame `index` in the fixed frame; the same object has the same id in all of them."""
        ...
