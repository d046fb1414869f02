"""SynCL (Lin et al. 2025): one-to-many matching in a decoder without self-attention, a filter, a contrastive term."""
