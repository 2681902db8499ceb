//! LFM2-ColBERT: token embeddings, MaxSim, and the indexes that search them.
