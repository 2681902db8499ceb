//! Logits from where a model computed them to where tokens are drawn.

use candle_core::{CpuStorage, DType, Storage, Tensor};

use crate::Result;

/// Copies logits `(.., vocab)` into `buffer`, row after row; it keeps its memory.
pub(crate) fn read_logits(logits: &Tensor, buffer: &mut Vec<f32>) -> Result<()> {
    let logits = logits.flatten_all()?.to_dtype(DType::F32)?;
    buffer.clear();
    {
        let (storage, layout) = logits.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            buffer.extend_from_slice(&numbers[start..end]);
            return Ok(());
        }
    }
    buffer.extend(logits.to_vec1::<f32>()?);
    Ok(())
}
