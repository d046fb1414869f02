"""What training and evaluation need of a data set, whatever it is: scenes of key frames with ground truth."""

from collections.abc import Collection, Sequence
from typing import Protocol

from syncl_core.types import FrameSet, ObjectSet


class ClipSource(Protocol):
    """Scenes of key frames, numbered from zero. Must survive pickling: workers get a copy each.

    A source may have more, which the functions below ask for. To save work: `future_objects(scene, index)`,
    `frame_sets(scene, indices)`, `unseen_frame_set(scene, index)`, `scenes_together`. And `image_source`, a text that
    differs where the same key frames have other images.
    """

    @property
    def scene_names(self) -> tuple[str, ...]: ...

    def num_key_frames(self, scene: str) -> int: ...

    def frame_set(self, scene: str, index: int) -> FrameSet:
        """Images of the rig's cameras around key frame `index`."""
        ...

    def ground_truth(self, scene: str, index: int) -> ObjectSet:
        """The objects of key frame `index` in the fixed frame; the same object has the same id in all of them."""
        ...


def key_frames_of(source: ClipSource) -> str:
    """Which key frames the numbers of clips count, whatever they look like."""
    return " ".join(f"{scene} {source.num_key_frames(scene)}" for scene in source.scene_names)


def images_of(source: ClipSource) -> str:
    """Which images those key frames have."""
    return f"{getattr(source, 'image_source', '')} {key_frames_of(source)}"


def future_objects(source: ClipSource, scene: str, index: int) -> ObjectSet:
    """`ground_truth` of which only identities, centres and the time will be read."""
    return getattr(source, "future_objects", source.ground_truth)(scene, index)


def frame_sets(source: ClipSource, scene: str, indices: Sequence[int], unseen: Collection[int] = ()) -> list[FrameSet]:
    """The frame sets of key frames in order of time; one that is asked for twice is made once.

    Nobody will look at the images of those that are `unseen`, whatever they show.
    """
    blank = {i: source.unseen_frame_set(scene, i) for i in unseen} if hasattr(source, "unseen_frame_set") else {}
    once = [index for index in dict.fromkeys(indices) if index not in blank]
    if hasattr(source, "frame_sets"):
        made = source.frame_sets(scene, once) if once else []
    else:
        made = [source.frame_set(scene, index) for index in once]
    by_index = blank | dict(zip(once, made, strict=True))
    return [by_index[index] for index in indices]


def scenes_together(source: ClipSource) -> int:
    """How many scenes the source can keep open, if opening one is dear: clips of so many come close together. 0 = any.

    It decides about the order of clips, so it must not depend on the machine.
    """
    return getattr(source, "scenes_together", 0)
