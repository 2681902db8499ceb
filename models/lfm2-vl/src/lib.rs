//! LFM2-VL: pictures in, text out.
