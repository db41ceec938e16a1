"""Relations between emotions, mining, metric losses and balanced batches."""
