//! How fast this machine reads pictures with a model.

use std::time::Instant;

use candle_core::Tensor;
use lfm2_hub::Result;
use lfm2_nn::{CacheSpec, DType, Decoder, Input, Step, Want};

use crate::cost::Speed;
use crate::model::VlModel;
use crate::view::PatchGrid;

impl VlModel {
    /// Measures how fast this machine reads pictures: one full tile, a quarter of one, and a prompt of
    /// 256 tokens. Takes as long as a small picture.
    ///
    /// # Errors
    /// When the device fails.
    pub fn measure_speed(&self) -> Result<Speed> {
        const TOKENS: usize = 256;
        let settings = self.processor().settings();
        let side = (settings.tile_size / settings.patch_size / 2).max(1);
        // The first pass pays for pages and threads.
        self.time_view(side)?;
        let (small, large) = (self.time_view(side)?, self.time_view(2 * side)?);
        let patches = side.pow(2) as f64;
        // Of `n a + n^2 b = small` and `4 n a + 16 n^2 b = large`.
        let pairs = ((large - 4.0 * small) / 12.0).max(0.0);
        let tokens = TOKENS
            .min(self.config().text.max_position_embeddings)
            .max(1);
        self.time_prompt(tokens.min(8))?;
        Ok(Speed {
            per_patch: (small - pairs).max(0.0) / patches,
            per_pair: pairs / (patches * patches),
            per_token: self.time_prompt(tokens)? / tokens as f64,
        })
    }

    /// Seconds of tower and projector for a square view of `side` patches a side.
    fn time_view(&self, side: usize) -> Result<f64> {
        let grid = PatchGrid {
            rows: side,
            cols: side,
        };
        let text = self.text();
        let shape = (grid.patches(), self.config().vision.patch_values());
        let patches = Tensor::zeros(shape, text.dtype(), text.device())?;
        let start = Instant::now();
        let hidden = self.tower().forward(&patches, &[grid], None)?;
        let rows = match side % self.config().projector.factor {
            0 => self.projector().forward(&hidden, &[grid])?,
            _ => hidden,
        };
        wait(&rows)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of the text model for a prompt.
    fn time_prompt(&self, tokens: usize) -> Result<f64> {
        let text = self.text();
        let ids = Tensor::zeros(tokens, DType::U32, text.device())?;
        let mut cache = text.new_cache(CacheSpec::rows(1));
        let step = Step::single(tokens);
        let start = Instant::now();
        wait(&text.forward(Input::Ids(&ids), &step, &mut cache, Want::Hidden)?)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Waits until a device is done, by asking it for a number.
fn wait(result: &Tensor) -> Result<()> {
    let first = result.flatten_all()?.get(0)?;
    first.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    Ok(())
}
