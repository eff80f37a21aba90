"""From clips to batches: packing, data sets, augmentation, the feature cache. Imports corpora and below."""
