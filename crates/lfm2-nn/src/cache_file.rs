//! Saving and loading caches.
