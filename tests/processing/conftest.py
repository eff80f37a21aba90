"""The marker of transformers' own test classes, which `test_upstream_common.py` brings in."""


def pytest_configure(config):
    config.addinivalue_line("markers", "torch_compile_test: transformers' own")
