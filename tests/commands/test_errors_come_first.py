"""What is wrong with the arguments of a command is said before anything large is imported."""

import subprocess
import sys

import pytest

LARGE = ("torch", "transformers", "datasets", "gradio")
CODE = f"""
import sys
from training_fla.cli import main
status = main(sys.argv[1:])
print(*(name for name in {LARGE} if name in sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("translate", "./none", "clip.mp4"), "none"),
        (("translate", ".", "clip.mp4"), "config.json"),
        (("translate", "owner/name", "clip.mp4", "--cut", "pauses"), "--format srt"),
        (("inspect", "none.mp4"), "none.mp4"),
        (("features", "clips", "--model", "./none", "--out", "out"), "none"),
        (("serve", "./none"), "none"),
        (("report", "none"), "none"),
        (("denoise", "--text", "none.txt", "--out", "out", "--width", "65"), "--width"),
        (("denoise", "--text", "none.txt", "--out", "out"), "none.txt"),
        (("trim", "--model", "none", "--sentences", "none.txt", "--out", "out"), "none.txt"),
        (("prepare", "phoenix14t", "--root", "none", "--out", "out"), "none"),
    ],
)
def test_a_wrong_argument_is_named_before_large_libraries_are_imported(tmp_path, words, message):
    done = subprocess.run([sys.executable, "-c", CODE, *words], cwd=tmp_path, capture_output=True, text=True)
    error, imported = done.stderr.splitlines()[-2:]
    assert done.returncode == 2 and message in error
    assert imported == ""
