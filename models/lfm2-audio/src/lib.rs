//! LFM2-Audio: speech in, speech out.
