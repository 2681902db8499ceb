//! Texts as one packed matrix, and back.

use lfm2_nn::{DType, Device, FillerStates, Step, Tensor};

use crate::Result;
use crate::reader::TokenInput;

/// The ids of texts one after another, and where each begins and ends. Texts without ids are left out.
pub(crate) fn packed(
    inputs: &[TokenInput],
    states: FillerStates,
    device: &Device,
) -> candle_core::Result<(Tensor, Step)> {
    let texts = inputs.iter().filter(|input| !input.ids().is_empty());
    let (mut ids, mut lens, mut filler) = (Vec::new(), Vec::new(), Vec::new());
    for input in texts {
        ids.extend_from_slice(input.ids());
        lens.push(input.ids().len());
        filler.push(input.ids().len() - input.attended());
    }
    let step = Step::rows(&lens).with_filler(filler, states);
    Ok((Tensor::new(ids.as_slice(), device)?, step))
}

/// The rows of the packed matrix whose vectors are kept.
pub(crate) fn kept_rows(inputs: &[TokenInput]) -> Vec<u32> {
    let mut kept = Vec::new();
    let mut start = 0;
    for input in inputs {
        kept.extend(input.kept().iter().map(|&place| start + place));
        start += input.ids().len() as u32;
    }
    kept
}

/// The numbers of a matrix, row after row.
///
/// # Errors
/// When one is not finite: nobody could tell where it came from once it is in an index.
pub(crate) fn values(matrix: &Tensor) -> Result<Vec<f32>> {
    let matrix = matrix.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let values = matrix.flatten_all()?.to_vec1::<f32>()?;
    if values.iter().any(|value| !value.is_finite()) {
        let message = "a vector is not a number: weights of the model are damaged";
        return Err(candle_core::Error::msg(message).into());
    }
    Ok(values)
}
