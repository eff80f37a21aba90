"""From clips to batches: packing, data sets, augmentation, stored features. Imports corpora and below."""
