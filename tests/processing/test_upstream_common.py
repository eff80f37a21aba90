"""transformers' own common test classes for processors and video processors, run against ours.

They are in its source distribution, not in its wheel: `make test-upstream` downloads that and runs this.
"""

import os
import sys
import types
import unittest
from pathlib import Path

import pytest

from processing_fla import FlaProcessor, FlaVideoProcessor

from .drawing import tiny_tokenizer

SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
pytestmark = pytest.mark.slow
if not SOURCE:
    pytest.skip("TRANSFORMERS_SOURCE names no source of transformers", allow_module_level=True)
assert (Path(SOURCE) / "tests" / "test_processing_common.py").is_file(), f"{SOURCE} holds no tests of transformers"
pytest.importorskip("parameterized", reason="transformers' tests need the `parameterized` package")

PACKAGE = "transformers_source_tests"  # under a name of its own: `tests` is this repository's package
package = sys.modules.setdefault(PACKAGE, types.ModuleType(PACKAGE))
package.__path__ = [str(Path(SOURCE) / "tests")]
if not (Path(SOURCE) / "utils").is_dir():
    # The source distribution lacks `utils/`; of it the tests take one function, which says where a download lies.
    stand_in = types.ModuleType("fetch_hub_objects_for_ci")
    stand_in.url_to_local_path = lambda url, *args, **kwargs: url
    sys.modules.setdefault("fetch_hub_objects_for_ci", stand_in)

from transformers_source_tests.test_processing_common import ProcessorTesterMixin  # noqa: E402
from transformers_source_tests.test_video_processing_common import (  # noqa: E402
    VideoProcessingTestMixin,
    prepare_video_inputs,
)


class FlaVideoProcessingTester:
    """What transformers' test class asks about a video processor: options for a tiny one, and inputs for it."""

    def __init__(self):
        self.batch_size, self.num_frames, self.num_channels = 5, 8, 3
        self.min_resolution, self.max_resolution = 30, 80

    def prepare_video_processor_dict(self) -> dict:
        return {
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 18, "width": 18},
            "frame_stride": 1,  # upstream's tests expect every frame back where they ask for no sampling
            "image_mean": [0.5, 0.4, 0.3],
            "image_std": [0.2, 0.3, 0.4],
        }

    def expected_output_video_shape(self, videos) -> list[int]:
        return [self.num_frames, self.num_channels, 18, 18]

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=self.min_resolution,
            max_resolution=self.max_resolution,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class FlaVideoProcessorTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = FlaVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = FlaVideoProcessingTester()

    @property
    def video_processor_dict(self) -> dict:
        return self.video_processor_tester.prepare_video_processor_dict()


class FlaProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = FlaProcessor
    text_input_name = "labels"  # text beside videos is the target

    @classmethod
    def _setup_video_processor(cls) -> FlaVideoProcessor:
        return FlaVideoProcessor(size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32})

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()
