"""From a clip to a sentence or a picture. Imports every other room."""
