//! Means over the tokens of each text, taken while a pass runs.

use candle_core::{DType, Result, Tensor, bail};
use lfm2_nn::{Device, Observer};

use crate::read::Sentence;
use crate::site::{Site, SiteVectors};

/// Collects the means of a batch at some places.
pub(crate) struct Means<'a> {
    batch: &'a [Sentence],
    found: Vec<SiteVectors>,
}

impl<'a> Means<'a> {
    pub(crate) fn new(batch: &'a [Sentence], sites: &[Site]) -> Self {
        let empty = |&site: &Site| SiteVectors {
            site,
            dims: 0,
            values: Vec::new(),
        };
        Self {
            batch,
            found: sites.iter().map(empty).collect(),
        }
    }

    /// Takes states `(tokens, dims)` as those of `site`, if they are wanted.
    pub(crate) fn take(&mut self, site: Site, states: &Tensor) -> Result<()> {
        let Some(found) = self.found.iter_mut().find(|found| found.site == site) else {
            return Ok(());
        };
        let (tokens, dims) = states.dims2()?;
        let states = states.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let states = states.flatten_all()?.to_vec1::<f32>()?;
        let expected: usize = self.batch.iter().map(|text| text.ids.len()).sum();
        if tokens != expected {
            bail!("states of {tokens} tokens for texts of {expected}");
        }
        found.dims = dims;
        found.values.clear();
        let mut rest = &states[..];
        for text in self.batch {
            let Some((own, behind)) = rest.split_at_checked(text.ids.len() * dims) else {
                bail!("states end in the middle of a text");
            };
            rest = behind;
            found.values.extend(mean(own, dims, &text.averaged));
        }
        Ok(())
    }

    /// What was found, when every place was passed.
    pub(crate) fn finish(self) -> Result<Vec<SiteVectors>> {
        let missing = self.found.iter().find(|found| found.dims == 0);
        if let Some(missing) = missing {
            bail!("the pass did not come by layer {}", missing.site);
        }
        Ok(self.found)
    }
}

/// The mean of some rows of a matrix `(rows, dims)`, summed in double precision.
fn mean(matrix: &[f32], dims: usize, rows: &[u32]) -> Vec<f32> {
    let mut sums = vec![0.0f64; dims];
    let wanted = rows
        .iter()
        .filter_map(|&row| matrix.chunks_exact(dims).nth(row as usize));
    for row in wanted {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = rows.len().max(1) as f64;
    sums.iter().map(|sum| (sum / count) as f32).collect()
}

impl Observer for Means<'_> {
    fn embedded(&mut self, x: &Tensor) -> Result<()> {
        self.take(Site::Layer(0), x)
    }

    fn layer(&mut self, layer: usize, x: &Tensor) -> Result<()> {
        self.take(Site::Layer(layer + 1), x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(ids: usize, averaged: &[u32]) -> Sentence {
        Sentence {
            ids: vec![0; ids],
            averaged: averaged.to_vec(),
            cut: false,
        }
    }

    #[test]
    fn each_text_has_the_mean_of_its_own_tokens() -> Result<()> {
        let batch = [sentence(3, &[1, 2]), sentence(1, &[0])];
        let states = Tensor::new(&[[9f32, 9.], [1., 2.], [3., 6.], [5., 7.]], &Device::Cpu)?;
        let mut means = Means::new(&batch, &[Site::Layer(2)]);
        means.take(Site::Layer(1), &(&states * 100.)?)?;
        Observer::layer(&mut means, 1, &states)?;
        let found = means.finish()?;
        assert_eq!(found[0].values, [2., 4., 5., 7.]);
        assert_eq!(found[0].dims, 2);
        Ok(())
    }

    #[test]
    fn a_place_that_is_not_passed_and_other_counts_are_told() -> Result<()> {
        let batch = [sentence(2, &[0])];
        let mut means = Means::new(&batch, &[Site::Final]);
        let states = Tensor::new(&[[1f32], [2.], [3.]], &Device::Cpu)?;
        assert!(means.take(Site::Final, &states).is_err());
        assert!(means.finish().is_err());
        Ok(())
    }
}
