//! Where the embeddings of a new tower begin.
//!
//! The values of a patch are nearly equal as a rule, so they add up, and a table of small random numbers
//! beside that would say nothing of where a patch is. So patches begin smaller than other matrices do, and
//! places begin as waves. Keys begin as queries do, so that at first a patch attends to what is near and like it:
//! where shapes are to be seen, that is what belongs together, and it takes long to find out from nothing.

use candle_core::{Device, Tensor};
use lfm2_vl::VlConfig;

use crate::Result;
use crate::variables::Parameters;

/// The size of the waves; embedded patches are of about 1.
const AMPLITUDE: f64 = 1.0;
/// The shortest wave in cells of the table; shorter ones would not survive a table that is stretched.
const SHORTEST: f64 = 3.0;

/// Scales the patch embedding by the root of its width over the values of a patch, fills the position table with
/// waves along both axes, from twice the side down to a few cells, and makes the tower's keys equal to its queries.
pub(super) fn begin(parameters: &Parameters, config: &VlConfig) -> Result<()> {
    let vision = &config.vision;
    let scale = (vision.hidden_size as f64 / vision.patch_values() as f64).sqrt();
    let waves = table(vision.num_patches.isqrt(), vision.hidden_size);
    for parameter in parameters.iter() {
        let old = parameter.tensor();
        if parameter.name().ends_with("position_embedding.weight") {
            parameter.set(&Tensor::from_slice(&waves, old.dims(), &Device::Cpu)?)?;
        } else if parameter.name().ends_with("patch_embedding.weight") {
            parameter.set(&(old.detach() * scale)?)?;
        } else if let Some(layer) = vision_layer(parameter.name(), "k_proj.weight") {
            let queries = |name: &str| vision_layer(name, "q_proj.weight") == Some(layer);
            if let Some(queries) = parameters.iter().find(|p| queries(p.name())) {
                parameter.set(&queries.tensor().detach())?;
            }
        }
    }
    Ok(())
}

/// What stands before `matrix` in the name of a tower's matrix; none for other tensors.
fn vision_layer<'a>(name: &'a str, matrix: &str) -> Option<&'a str> {
    name.strip_suffix(matrix)
        .filter(|layer| layer.contains("vision_tower"))
}

/// `(side * side, width)`, row by row: for every length of waves its sine and cosine along the columns,
/// and the same along the rows.
fn table(side: usize, width: usize) -> Vec<f32> {
    let lengths = width.div_ceil(4);
    let longest = 2.0 * side as f64;
    let mut values = Vec::with_capacity(side * side * width);
    for place in 0..side * side {
        for channel in 0..width {
            let share = (channel / 4) as f64 / lengths.max(2).saturating_sub(1) as f64;
            let length = longest * (SHORTEST / longest).powf(share);
            let along = if channel % 4 < 2 {
                place % side
            } else {
                place / side
            };
            let angle = std::f64::consts::TAU * (along as f64 + 0.5) / length;
            let wave = if channel % 2 == 0 {
                angle.sin()
            } else {
                angle.cos()
            };
            values.push((AMPLITUDE * wave) as f32);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_places_are_alike_and_all_are_different() {
        let (side, width) = (8, 32);
        let values = table(side, width);
        assert_eq!(values.len(), side * side * width);
        let at = |x: usize, y: usize| &values[(y * side + x) * width..][..width];
        let distance =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let near = distance(at(3, 3), at(4, 3));
        assert!(near < distance(at(3, 3), at(6, 3)) && near > 0.1, "{near}");
        assert_eq!(near, distance(at(3, 3), at(3, 4)));
        assert!(distance(at(1, 2), at(2, 1)) > 0.1);
    }
}
