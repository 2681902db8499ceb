//! Which dimension of an embedding says what.
