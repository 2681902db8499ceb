//! The state of running sequences: keys and values of attention, the window of convolutions.
//!
//! A [`Cache`] holds any number of rows, one sequence each, all independent: rows may differ in
//! length, join and leave. Only real tokens are stored, never padding. The cache knows nothing of
//! weights; what it must know of a model is in its [`CacheLayout`].

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::trial::Trial;

/// Shape of one layer's state for one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerShape {
    /// Keys and values of `kv_heads` heads of `head_dim` numbers per token.
    Kv {
        /// Heads of keys and values.
        kv_heads: usize,
        /// Numbers per head.
        head_dim: usize,
    },
    /// The last `width` gated inputs of `channels` channels (`width` is the kernel's width - 1).
    Conv {
        /// Channels.
        channels: usize,
        /// Kept positions; 0 for a kernel of width 1.
        width: usize,
    },
}

/// What a model's state looks like, layer by layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLayout {
    /// One entry per layer.
    pub layers: Vec<LayerShape>,
}

impl CacheLayout {
    /// How many tokens before a position have to be replayed to rebuild the convolution states
    /// there: the sum of all kept windows, `(L-1) * conv layers`.
    ///
    /// After k convolutions an unknown start has spoilt k * (L-1) positions and no more, since
    /// attention reads the cached keys and values, which are right.
    pub fn replay_len(&self) -> usize {
        let windows = self.layers.iter().map(|l| match l {
            LayerShape::Conv { width, .. } => *width,
            LayerShape::Kv { .. } => 0,
        });
        windows.sum()
    }

    /// Bytes of one row that holds `tokens` tokens, with `kv` numbers for keys and values.
    pub fn bytes(&self, tokens: usize, kv: DType) -> usize {
        let layers = self.layers.iter().map(|l| match l {
            LayerShape::Kv { kv_heads, head_dim } => {
                2 * kv_heads * head_dim * tokens * kv.size_in_bytes()
            }
            LayerShape::Conv { channels, width } => channels * width * DType::F32.size_in_bytes(),
        });
        layers.sum()
    }
}

/// What a new cache should be able to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CacheSpec {
    /// Number of rows (sequences).
    pub rows: usize,
    /// Tokens to make room for at once; a row that grows past it doubles its room.
    pub capacity: usize,
    /// Number type of keys and values; `None` is what the model finds good enough for its weights.
    pub kv_dtype: Option<DType>,
}

impl CacheSpec {
    /// Room for `rows` sequences.
    pub fn rows(rows: usize) -> Self {
        Self {
            rows,
            capacity: 256,
            kv_dtype: None,
        }
    }

    /// Makes room for `tokens` tokens per row from the start.
    pub fn with_capacity(mut self, tokens: usize) -> Self {
        self.capacity = tokens;
        self
    }

    /// Stores keys and values as `dtype`: `F32`, `F16` or `BF16`.
    pub fn with_kv_dtype(mut self, dtype: DType) -> Self {
        self.kv_dtype = Some(dtype);
        self
    }
}

/// Keys and values of one layer and row: tensors of `(kv_heads, capacity, head_dim)` of which the
/// first [`Row::len`] positions are valid.
#[derive(Debug)]
pub struct KvSlot {
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

impl KvSlot {
    fn new(
        kv_heads: usize,
        capacity: usize,
        head_dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let zeros = || Tensor::zeros((kv_heads, capacity, head_dim), dtype, device);
        Ok(Self {
            k: zeros()?,
            v: zeros()?,
        })
    }

    /// Keys, `(kv_heads, capacity, head_dim)`, normalised and rotated.
    pub fn keys(&self) -> &Tensor {
        &self.k
    }

    /// Values, `(kv_heads, capacity, head_dim)`.
    pub fn values(&self) -> &Tensor {
        &self.v
    }

    pub(crate) fn capacity(&self) -> usize {
        self.k.dims()[1]
    }

    /// Makes room for `needed` tokens, keeping the first `len`.
    pub(crate) fn reserve(&mut self, len: usize, needed: usize) -> Result<()> {
        if needed <= self.capacity() {
            return Ok(());
        }
        let capacity = needed.max(2 * self.capacity());
        let (kv_heads, _, head_dim) = self.k.dims3()?;
        let grown = Self::new(
            kv_heads,
            capacity,
            head_dim,
            self.k.dtype(),
            self.k.device(),
        )?;
        if len > 0 {
            grown
                .k
                .slice_set(&self.k.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
            grown
                .v
                .slice_set(&self.v.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
        }
        *self = grown;
        Ok(())
    }

    /// Keeps `len` positions from `start` on, as the first ones.
    pub(crate) fn keep(&mut self, start: usize, len: usize) -> Result<()> {
        for cache in [&self.k, &self.v] {
            if len > 0 {
                // A copy, since the ranges may overlap.
                let kept = cache.narrow(1, start, len)?.force_contiguous()?;
                cache.slice_set(&kept, 1, 0)?;
            }
        }
        Ok(())
    }
}

/// One layer's state of one row.
#[derive(Debug)]
pub enum LayerCache {
    /// Of an attention layer.
    Kv(KvSlot),
    /// Of a short convolution: the last gated inputs, `(width, channels)`, oldest first. Values
    /// before the first position are zero.
    Conv(Tensor),
}

impl LayerCache {
    fn new(
        shape: &LayerShape,
        capacity: usize,
        kv: DType,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Ok(match *shape {
            LayerShape::Kv { kv_heads, head_dim } => {
                Self::Kv(KvSlot::new(kv_heads, capacity, head_dim, kv, device)?)
            }
            LayerShape::Conv { channels, width } => {
                Self::Conv(Tensor::zeros((width, channels), dtype, device)?)
            }
        })
    }

    fn fork(&self) -> Result<Self> {
        Ok(match self {
            Self::Kv(slot) => Self::Kv(KvSlot {
                k: slot.k.copy()?,
                v: slot.v.copy()?,
            }),
            Self::Conv(state) => Self::Conv(state.copy()?),
        })
    }

    fn bytes(&self) -> usize {
        let size = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        match self {
            Self::Kv(slot) => size(&slot.k) + size(&slot.v),
            Self::Conv(state) => size(state),
        }
    }
}

/// What was fed at one position, kept so that convolution states can be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    Id(u32),
    /// Came as an embedding; cannot be replayed from the cache alone.
    Embedding,
}

/// One sequence: its state in every layer and the tokens it was fed.
#[derive(Debug)]
pub struct Row {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) fed: Vec<Fed>,
    /// How many tokens came before those of `fed`; see [`Cache::forget`].
    pub(crate) forgotten: usize,
    /// What is kept to take back the newest tokens; see [`Cache::begin_trial`].
    pub(crate) trial: Option<Trial>,
}

impl Row {
    pub(crate) fn new(layers: Vec<LayerCache>, fed: Vec<Fed>) -> Self {
        Self {
            layers,
            fed,
            forgotten: 0,
            trial: None,
        }
    }

    /// Tokens in this sequence.
    pub fn len(&self) -> usize {
        self.fed.len()
    }

    /// Whether nothing was fed yet.
    pub fn is_empty(&self) -> bool {
        self.fed.is_empty()
    }

    fn clear(&mut self) {
        self.layers.clear();
        self.fed.clear();
        self.forgotten = 0;
        self.trial = None;
    }

    /// The state of layer `layer`.
    pub fn layer(&self, layer: usize) -> Option<&LayerCache> {
        self.layers.get(layer)
    }
}

/// A position in a row that [`Decoder::rewind`](crate::Decoder::rewind) can go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The row.
    pub row: usize,
    /// Its number of tokens when the mark was made.
    pub len: usize,
}

/// The state of a group of sequences, one per row, all independent. Only real tokens are stored,
/// never padding.
#[derive(Debug)]
pub struct Cache {
    layout: CacheLayout,
    spec: CacheSpec,
    dtype: DType,
    device: Device,
    rows: Option<Vec<Row>>,
}

impl Cache {
    /// An empty cache for a model of this layout whose activations are `dtype`.
    pub fn new(layout: CacheLayout, spec: CacheSpec, dtype: DType, device: &Device) -> Self {
        let rows = (0..spec.rows)
            .map(|_| Row::new(Vec::new(), Vec::new()))
            .collect();
        Self {
            layout,
            spec,
            dtype,
            device: device.clone(),
            rows: Some(rows),
        }
    }

    /// A cache that remembers nothing: every forward pass starts from empty sequences, `rows` of
    /// them. For training and for encoders, where it also lets gradients through.
    pub fn stateless(rows: usize) -> Self {
        let layout = CacheLayout { layers: Vec::new() };
        Self {
            layout,
            spec: CacheSpec::rows(rows),
            dtype: DType::F32,
            device: Device::Cpu,
            rows: None,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.as_ref().map_or(self.spec.rows, Vec::len)
    }

    /// Tokens in row `row`; 0 for a row that does not exist.
    pub fn len(&self, row: usize) -> usize {
        self.row(row).map_or(0, Row::len)
    }

    /// Whether no row holds a token.
    pub fn is_empty(&self) -> bool {
        (0..self.rows()).all(|row| self.len(row) == 0)
    }

    /// The state of row `row`; `None` outside the cache or in a stateless one.
    pub fn row(&self, row: usize) -> Option<&Row> {
        self.rows.as_ref()?.get(row)
    }

    /// The ids row `row` was fed; `None` where a position came as an embedding.
    pub fn fed_ids(&self, row: usize) -> Vec<Option<u32>> {
        let fed = self.row(row).map_or(&[][..], |r| &r.fed);
        fed.iter()
            .map(|f| if let Fed::Id(id) = f { Some(*id) } else { None })
            .collect()
    }

    /// The model facts this cache was made for.
    pub fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Number type of keys and values.
    pub fn kv_dtype(&self) -> DType {
        self.spec.kv_dtype.unwrap_or(self.dtype)
    }

    /// Number type of activations, and so of convolution states.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the state lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The present end of row `row`.
    pub fn mark(&self, row: usize) -> Mark {
        Mark {
            row,
            len: self.len(row),
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        let rows = self.rows.iter().flatten();
        rows.flat_map(|r| &r.layers).map(LayerCache::bytes).sum()
    }

    /// Forgets every token of every row, convolution states included.
    pub fn clear(&mut self) {
        for row in self.rows.iter_mut().flatten() {
            row.clear();
        }
    }

    /// Forgets every token of one row; a row that does not exist is already empty.
    pub fn clear_row(&mut self, row: usize) {
        if let Some(row) = self.row_mut(row) {
            row.clear();
        }
    }

    /// Forgets all but the newest `keep` tokens of row `row`, which keep their positions: for models
    /// none of whose layers looks further back, so that a sequence without end takes bounded room.
    ///
    /// [`len`](Self::len) then counts the tokens kept. The row cannot be rewound any more, nor saved.
    ///
    /// # Errors
    /// When there is no such row, or the device is out of memory.
    pub fn forget(&mut self, row: usize, keep: usize) -> Result<()> {
        let count = self.rows();
        let Some(row) = self.row_mut(row) else {
            bail!("row {row} is outside a cache of {count} rows, or the cache is stateless")
        };
        let Some(gone) = row.len().checked_sub(keep).filter(|gone| *gone > 0) else {
            return Ok(());
        };
        for layer in &mut row.layers {
            if let LayerCache::Kv(slot) = layer {
                slot.keep(gone, keep)?;
            }
        }
        row.fed.drain(..gone);
        row.forgotten += gone;
        row.trial = None;
        Ok(())
    }

    /// The position of the next token of row `row`: its length and what it has forgotten.
    pub(crate) fn position(&self, row: usize) -> usize {
        self.row(row).map_or(0, |row| row.forgotten + row.len())
    }

    /// An independent copy of the whole cache.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn fork(&self) -> Result<Self> {
        let rows = self
            .rows
            .as_ref()
            .map(|rows| rows.iter().map(fork_row).collect::<Result<Vec<_>>>());
        Ok(Self {
            layout: self.layout.clone(),
            spec: self.spec,
            dtype: self.dtype,
            device: self.device.clone(),
            rows: rows.transpose()?,
        })
    }

    /// Appends a copy of row `row` and returns its number: the start of a second continuation.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn fork_row(&mut self, row: usize) -> Result<usize> {
        let Some(rows) = self.rows.as_mut() else {
            bail!("a stateless cache has nothing to fork")
        };
        let Some(source) = rows.get(row) else {
            bail!("row {row} is outside a cache of {} rows", rows.len())
        };
        let copy = fork_row(source)?;
        rows.push(copy);
        Ok(rows.len() - 1)
    }

    /// Appends an empty row and returns its number.
    pub fn push_row(&mut self) -> usize {
        if let Some(rows) = self.rows.as_mut() {
            rows.push(Row::new(Vec::new(), Vec::new()));
        } else {
            self.spec.rows += 1;
        }
        self.rows() - 1
    }

    /// Removes row `row`; the last row takes its number.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn swap_remove_row(&mut self, row: usize) -> Result<()> {
        let count = self.rows();
        match self.rows.as_mut() {
            Some(rows) if row < count => drop(rows.swap_remove(row)),
            None if row < count => self.spec.rows -= 1,
            _ => bail!("row {row} is outside a cache of {count} rows"),
        }
        Ok(())
    }

    pub(crate) fn is_stateless(&self) -> bool {
        self.rows.is_none()
    }

    /// The row's layers, made on first use, with room for `more` tokens in every attention layer.
    pub(crate) fn prepare_row(&mut self, row: usize, more: usize) -> Result<()> {
        let (kv, dtype, capacity) = (self.kv_dtype(), self.dtype, self.spec.capacity);
        let Some(rows) = self.rows.as_mut() else {
            return Ok(());
        };
        let count = rows.len();
        let Some(row) = rows.get_mut(row) else {
            bail!("row {row} is outside a cache of {count} rows")
        };
        if row.layers.is_empty() {
            let capacity = capacity.max(more).max(1);
            let layers = self.layout.layers.iter();
            row.layers = layers
                .map(|s| LayerCache::new(s, capacity, kv, dtype, &self.device))
                .collect::<Result<_>>()?;
        }
        let len = row.len();
        for layer in &mut row.layers {
            if let LayerCache::Kv(slot) = layer {
                slot.reserve(len, len + more)?;
            }
        }
        Ok(())
    }

    /// The state of one layer in one row; `None` in a stateless cache.
    pub(crate) fn slot(&mut self, row: usize, layer: usize) -> Option<&mut LayerCache> {
        self.rows.as_mut()?.get_mut(row)?.layers.get_mut(layer)
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> Option<&mut Row> {
        self.rows.as_mut()?.get_mut(row)
    }

    pub(crate) fn append_fed(&mut self, row: usize, fed: impl IntoIterator<Item = Fed>) {
        if let Some(row) = self.row_mut(row) {
            row.fed.extend(fed);
        }
    }

    /// Notes that row `row` was fed `ids` without touching the state of any layer: for a
    /// [`Decoder`](crate::Decoder) that keeps none, such as a stand-in for a model in tests.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn record_ids(&mut self, row: usize, ids: &[u32]) -> Result<()> {
        let count = self.rows();
        if row >= count {
            bail!("row {row} is outside a cache of {count} rows");
        }
        self.append_fed(row, ids.iter().map(|id| Fed::Id(*id)));
        Ok(())
    }

    /// Cuts a row to `len` tokens and returns the ids that have to be replayed
    /// ([`PassKind::Replay`](crate::PassKind::Replay)) to make it whole again: the row then ends
    /// right before them, with empty convolution states. No ids means it is whole already, as it
    /// always is behind the start of a [trial](Self::begin_trial).
    ///
    /// # Errors
    /// When the row is shorter than `len`, or was fed embeddings where ids are needed to replay; the
    /// row is unchanged then.
    pub fn cut(&mut self, row: usize, len: usize) -> Result<Vec<u32>> {
        let replay = self.layout.replay_len();
        let Some(found) = self.rows.as_mut().and_then(|rows| rows.get_mut(row)) else {
            bail!("there is no row {row} to cut");
        };
        if len > found.len() {
            bail!(
                "row {row} has {} tokens, it cannot be cut to {len}",
                found.len()
            );
        }
        if len == found.len() {
            return Ok(Vec::new());
        }
        if found.take_back(len)? {
            return Ok(Vec::new());
        }
        if found.forgotten > 0 {
            bail!("row {row} has forgotten its first tokens, it cannot be cut");
        }
        if len == 0 {
            self.clear_row(row);
            return Ok(Vec::new());
        }
        let start = len.saturating_sub(replay);
        let ids = found.fed[start..len].iter().map(|fed| match fed {
            Fed::Id(id) => Ok(*id),
            Fed::Embedding => {
                bail!("row {row} was fed embeddings before token {len}, it cannot be cut there")
            }
        });
        let ids = ids.collect::<Result<Vec<_>>>()?;
        found.fed.truncate(start);
        found.trial = None;
        for layer in &mut found.layers {
            if let LayerCache::Conv(state) = layer {
                *state = state.zeros_like()?;
            }
        }
        Ok(ids)
    }

    /// All rows; `None` in a stateless cache.
    pub(crate) fn all_rows(&self) -> Option<&[Row]> {
        self.rows.as_deref()
    }

    pub(crate) fn set_rows(&mut self, rows: Vec<Row>) {
        self.rows = Some(rows);
    }
}

fn fork_row(row: &Row) -> Result<Row> {
    let layers = row
        .layers
        .iter()
        .map(LayerCache::fork)
        .collect::<Result<_>>()?;
    let mut copy = Row::new(layers, row.fed.clone());
    copy.forgotten = row.forgotten;
    Ok(copy)
}
