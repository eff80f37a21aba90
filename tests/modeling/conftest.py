"""The markers of transformers' own test classes, which `test_upstream_common.py` brings in."""

UPSTREAM_MARKERS = (
    *("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test"),
    *("generate", "is_training_test", "order"),
)


def pytest_configure(config):
    for marker in UPSTREAM_MARKERS:
        config.addinivalue_line("markers", f"{marker}: transformers' own")
