//! Everything can be learnt: a loss of what the model writes reaches each of its tensors.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::Var;
use candle_core::quantized::QTensor;
use lfm2_hub::{
    Bos, Checkpoint, ModelSource, OpenOptions, SpecialTokens, StoredType, TensorInfo, TensorSource,
};
use lfm2_nn::{Accuracy, Cache, DType, Decoder, Device, Input, Step, Tensor, Want};
use lfm2_text::LoadOptions;
use lfm2_vl::{Picture, View, VlModel, VlOptions};
use support::sets;

/// A checkpoint as trainable variables.
struct Variables(BTreeMap<String, Var>);

impl TensorSource for Variables {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let shape = self.0.get(name)?.dims().to_vec();
        let stored = StoredType::Dense(DType::F32);
        Some(TensorInfo { shape, stored })
    }

    fn dense(&self, name: &str, _: DType, _: &Device) -> lfm2_hub::Result<Tensor> {
        let missing = || lfm2_hub::Error::MissingTensor {
            name: name.to_owned(),
        };
        Ok(self.0.get(name).ok_or_else(missing)?.as_tensor().clone())
    }

    fn quantized(&self, _: &str, _: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        Ok(None)
    }
}

fn logits(model: &VlModel, ids: &[u32], views: &[View]) -> Result<Tensor> {
    let x = model.embed(ids, views)?;
    let step = Step::single(ids.len());
    let mut cache = Cache::stateless(1);
    Ok(model
        .text()
        .forward(Input::Embeddings(&x), &step, &mut cache, Want::AllLogits)?)
}

#[test]
fn every_tensor_of_tower_projector_and_text_gets_a_gradient() -> Result<()> {
    let set = sets().into_iter().next().context("no golden data")?;
    let name = set.models()?.into_iter().next().context("no model")?;
    let source = ModelSource::Dir(set.folder.join("models").join(name));
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
    let options: VlOptions = LoadOptions::default().with_accuracy(Accuracy::Exact).into();
    let fixed = VlModel::from_checkpoint(&checkpoint, &options)?;

    let tensors = checkpoint.tensors();
    let variable = |name: String| -> Result<(String, Var)> {
        let value = tensors.dense(&name, DType::F32, &Device::Cpu)?;
        Ok((name, Var::from_tensor(&value)?))
    };
    let names = tensors.names().into_iter();
    let variables = Arc::new(Variables(names.map(variable).collect::<Result<_>>()?));
    let facts = (
        fixed.config().clone(),
        fixed.processor().settings().clone(),
        fixed.tokenizer().clone(),
    );
    let learnt = VlModel::from_tensors(facts, variables.clone(), &options)?;

    // Several views of unlike sizes, twice, so that nothing may be remembered from the first time.
    let picture = Picture::from_fn(300, 200, |x, y| [x as u8, (y * 5) as u8, (x * y) as u8])?;
    let views = fixed.process_images(&[picture])?.remove(0);
    let prompt = fixed
        .tokenizer()
        .encode("the <image> of a", SpecialTokens::Parse, Bos::Add)?;
    let ids = fixed.image_tokens().expand(&prompt, &[views.plan()])?;
    let expected = logits(&fixed, &ids, views.views())?;
    for _ in 0..2 {
        let found = logits(&learnt, &ids, views.views())?;
        let error = (&found - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        ensure!(error < 1e-3, "{error}");
        let gradients = found.sqr()?.mean_all()?.backward()?;
        for (name, var) in &variables.0 {
            let gradient = gradients.get(var.as_tensor());
            let gradient = gradient.with_context(|| format!("{name} got no gradient"))?;
            let norm = gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
            ensure!(
                norm.is_finite() && (norm > 0.0 || name.ends_with("k_proj.bias")),
                "{name}: {norm}"
            );
        }
    }
    let error = learnt
        .embed(&ids[1..], &views.views()[1..])
        .err()
        .context("embedded")?;
    ensure!(error.to_string().contains("places for"), "{error}");
    Ok(())
}
