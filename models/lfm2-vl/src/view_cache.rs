//! [`ViewCache`]: what the tower and the projector made of views, so that it is made once.
//!
//! In memory, and on a disk where there is a [`Shelf`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::view::ViewKey;
use crate::view_folder::{Levels, Shelf};

/// The rows of views that were read lately, up to a number of bytes. One belongs to one model: a key
/// says which pixels, not which weights.
pub(crate) struct ViewCache {
    max_bytes: usize,
    kept: Mutex<Kept>,
    shelf: Option<Shelf>,
}

#[derive(Default)]
struct Kept {
    rows: HashMap<ViewKey, Entry>,
    bytes: usize,
    /// Rises with every use.
    clock: u64,
}

struct Entry {
    rows: Tensor,
    used: u64,
}

impl fmt::Debug for ViewCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewCache")
            .field("max_bytes", &self.max_bytes)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

fn size(rows: &Tensor) -> usize {
    rows.elem_count() * rows.dtype().size_in_bytes()
}

impl ViewCache {
    /// A cache that keeps up to `max_bytes`; 0 keeps nothing.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            kept: Mutex::default(),
            shelf: None,
        }
    }

    /// The same cache with what is on `shelf` besides.
    pub(crate) fn with_shelf(mut self, shelf: Shelf) -> Self {
        self.shelf = Some(shelf);
        self
    }

    /// An empty cache like this one for a model that sees other `levels` for the same pixels.
    pub(crate) fn emptied(&self, levels: &Levels) -> Self {
        Self {
            shelf: self.shelf.clone().map(|shelf| shelf.with_levels(levels)),
            ..Self::new(self.max_bytes)
        }
    }

    /// The rows of a view, if they are kept.
    pub(crate) fn get(&self, key: &ViewKey) -> Option<Tensor> {
        if let Some(rows) = self.remembered(key) {
            return Some(rows);
        }
        let rows = self.shelf.as_ref()?.get(key)?;
        self.remember(*key, rows.clone());
        Some(rows)
    }

    fn remembered(&self, key: &ViewKey) -> Option<Tensor> {
        let mut kept = self.lock();
        kept.clock += 1;
        let now = kept.clock;
        let entry = kept.rows.get_mut(key)?;
        entry.used = now;
        Some(entry.rows.clone())
    }

    /// Keeps the rows of a view; those that were not used for the longest time make room. Rows that are
    /// learnt are not kept, since they change with every step.
    pub(crate) fn insert(&self, key: ViewKey, rows: Tensor) {
        if rows.track_op() {
            return;
        }
        if let Some(shelf) = &self.shelf {
            shelf.put(&key, &rows);
        }
        self.remember(key, rows);
    }

    fn remember(&self, key: ViewKey, rows: Tensor) {
        let new = size(&rows);
        if new > self.max_bytes {
            return;
        }
        let mut kept = self.lock();
        kept.remove(&key);
        while kept.bytes + new > self.max_bytes {
            let oldest = kept.rows.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            kept.remove(&oldest);
        }
        kept.clock += 1;
        let used = kept.clock;
        kept.bytes += new;
        kept.rows.insert(key, Entry { rows, used });
    }

    /// Bytes of what is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, key: &ViewKey) {
        if let Some(entry) = self.rows.remove(key) {
            self.bytes -= size(&entry.rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn rows(count: usize) -> Tensor {
        Tensor::zeros((count, 1), DType::F32, &Device::Cpu).unwrap()
    }

    fn key(number: u8) -> ViewKey {
        ViewKey::from_bytes([number; 32])
    }

    #[test]
    fn the_longest_unused_make_room() {
        let cache = ViewCache::new(40);
        for number in 0..3 {
            cache.insert(key(number), rows(3));
        }
        assert_eq!(cache.bytes(), 36);
        assert!(cache.get(&key(0)).is_some());
        cache.insert(key(3), rows(4));
        assert_eq!(cache.bytes(), 40);
        let kept = (0..4).map(|n| cache.get(&key(n)).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [true, false, true, true]);
    }

    #[test]
    fn what_does_not_fit_is_not_kept_and_the_same_view_counts_once() {
        let cache = ViewCache::new(10);
        cache.insert(key(0), rows(3));
        assert!(cache.get(&key(0)).is_none());
        cache.insert(key(1), rows(1));
        cache.insert(key(1), rows(2));
        assert_eq!(cache.bytes(), 8);
        assert!(ViewCache::new(0).get(&key(1)).is_none());
    }
}
