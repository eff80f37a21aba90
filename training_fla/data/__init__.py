"""From clips to batches: packing, data sets, augmentation, stored features; may import corpora, scoring and below."""
