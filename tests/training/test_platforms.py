"""Training where processes are not forked, as on macOS and Windows, and where nothing open may be renamed."""

import pickle
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from torch.utils.data import dataloader

from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run
from tests.windows_rules import windows_rules  # noqa: F401  a fixture
from training_fla.data import feature_store
from training_fla.data.collation import SignTranslationCollator
from training_fla.training import callbacks
from training_fla.training.trainer import SignTranslationTrainer


class Clips(list):
    lengths = property(list)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("platforms")
    pack_demo(folder / "corpus", num_train=8, num_dev=3, num_test=3)
    return folder


@pytest.mark.slow
def test_both_stages_train_with_workers_that_are_not_forked(folder, windows_rules, monkeypatch):  # noqa: F811
    """Each worker takes seconds to start, so those of dev start once for all evaluations; none is sent the model."""
    started, sizes = Counter(), []
    make_loader, iterate = SignTranslationTrainer.make_loader, dataloader._MultiProcessingDataLoaderIter.__init__

    def counted(self, loader):
        started[len(loader.dataset), loader.persistent_workers] += 1
        sizes.append(len(pickle.dumps(loader.collate_fn)))
        iterate(self, loader)

    def made(self, dataset, **options):
        assert self.start_method == "forkserver"
        return make_loader(self, dataset, **options)

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "__init__", counted)
    monkeypatch.setattr(SignTranslationTrainer, "make_loader", made)
    monkeypatch.setattr(feature_store, "START_METHOD", "forkserver")
    lines = (
        f"dataset: {folder / 'corpus'}\ndataloader_num_workers: 1\ndataloader_multiprocessing_context: forkserver\n"
    )
    (folder / "stage1.yaml").write_text(lines + STAGE1)
    (folder / "stage2.yaml").write_text(lines + STAGE2)
    often = ("--max_steps", 4, "--eval_steps", 1, "--save_steps", 2, "--save_total_limit", 1)
    assert run("run_stage1", folder / "stage1.yaml", "--output_dir", folder / "stage1", *often) == 0
    # Dev and test have three clips each; four evaluations and the last of dev share one worker.
    assert started == {(8, True): 1, (3, True): 1, (3, False): 1}
    assert max(sizes) < 1000
    stage1 = ("--stage1_checkpoint", folder / "stage1", "--tokenizer", folder / "stage1")
    assert run("run_stage2", folder / "stage2.yaml", "--output_dir", folder / "stage2", *stage1) == 0


def test_the_loader_of_dev_is_kept_where_workers_are_not_forked():
    trainer = object.__new__(SignTranslationTrainer)
    trainer.eval_dataset, trainer.dev_loader = Clips([3, 5]), None
    trainer.data_collator = SignTranslationCollator()
    for start_method, kept in (("fork", False), ("forkserver", True)):
        trainer.args = SimpleNamespace(
            world_size=1, process_index=0, eval_batch_size=1, dataloader_pin_memory=False, dataloader_num_workers=1,
            dataloader_prefetch_factor=None, dataloader_multiprocessing_context=start_method, dataloader_in_order=True,
        )  # fmt: skip
        loaders = [trainer.get_eval_dataloader() for _ in range(2)]
        assert (loaders[0] is loaders[1]) == kept == loaders[0].persistent_workers
        assert trainer.get_eval_dataloader(Clips([1])) is not loaders[0]


@pytest.mark.parametrize(("system", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_peak_memory_is_counted_in_the_units_of_the_system(monkeypatch, system, unit):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=300 * unit))
    assert callbacks.peak_memory_mib() == 300


def test_peak_memory_is_known_without_the_module_that_windows_lacks(monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setitem(sys.modules, "resource", None)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=300 * 2**20))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert callbacks.peak_memory_mib() == 300


def test_the_device_is_stated_as_it_is():
    assert callbacks.device_text("cpu").startswith("CPU, ")
    assert callbacks.device_text("mps").startswith("MPS of ")
