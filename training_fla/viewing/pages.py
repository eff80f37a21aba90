"""Pages that need no other file, filled from the templates beside this module."""

import base64
from pathlib import Path

import jinja2


def render(template: str, **content) -> str:
    """Fill a template; whatever it is filled with is escaped unless the template says `safe`."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(loader=loader, **options).get_template(template).render(content)


def jpeg_url(content: bytes) -> str:
    """A JPEG as an address that needs no file."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()
