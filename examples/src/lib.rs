//! Short programs to copy.
