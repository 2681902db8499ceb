//! The names that tensors had over time all lead to the same model.

mod support;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use lfm2_hub::{Bos, Checkpoint, ModelSource, OpenOptions, SpecialTokens};
use lfm2_nn::{Accuracy, CacheSpec, Decoder, Input, Step, Want};
use lfm2_text::LoadOptions;
use lfm2_vl::{Picture, VlModel, VlOptions};
use support::{Renamed, sets};

/// The parts of a checkpoint: text model, tower, projector, in that order.
const PUBLISHED: [&str; 3] = [
    "model.language_model.",
    "model.vision_tower.vision_model.",
    "model.multi_modal_projector.",
];
const LAYOUTS: [[&str; 3]; 5] = [
    PUBLISHED,
    [
        "model.language_model.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    ],
    ["language_model.", "vision_tower.", "multi_modal_projector."],
    [
        "language_model.model.",
        "vision_tower.vision_model.",
        "multi_modal_projector.",
    ],
    [
        "language_model.model.",
        "vision_tower.",
        "multi_modal_projector.",
    ],
];

fn logits(model: &VlModel) -> Result<Vec<f32>> {
    let picture = Picture::from_fn(120, 90, |x, y| [x as u8, (y * 2) as u8, (x * y) as u8])?;
    let views = model.process_images(&[picture])?;
    let prompt = model
        .tokenizer()
        .encode("<image>the", SpecialTokens::Parse, Bos::Add)?;
    let album = model.album();
    let prompt = album.prompt(&prompt, &[&views[0]])?;
    let input = Tensor::new(prompt.as_slice(), album.device())?;
    let mut cache = album.new_cache(CacheSpec::rows(1));
    let step = Step::single(prompt.len());
    let logits = album.forward(Input::Ids(&input), &step, &mut cache, Want::AllLogits)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

#[test]
fn every_layout_of_names_is_the_same_model() -> Result<()> {
    let options = LoadOptions::default()
        .with_accuracy(Accuracy::Exact)
        .strict();
    let options = VlOptions::from(options);
    for set in sets() {
        for name in set.models()? {
            let source = ModelSource::Dir(set.folder.join("models").join(&name));
            let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
            let model = VlModel::from_checkpoint(&checkpoint, &options)?;
            let expected = logits(&model)?;
            let tensors = checkpoint.tensors();
            let towers = [PUBLISHED[1], "model.vision_tower."];
            let tower = towers
                .into_iter()
                .find(|p| tensors.info(&format!("{p}post_layernorm.weight")).is_some());
            let own = [PUBLISHED[0], tower.context("no tower")?, PUBLISHED[2]];
            for layout in LAYOUTS {
                let rename = |name: &str| {
                    let mut parts = own.iter().zip(layout);
                    let found = parts.find_map(|(own, new)| {
                        name.strip_prefix(own).map(|rest| format!("{new}{rest}"))
                    });
                    // The head lies beside the text model, wherever that is.
                    let head = match layout[0] {
                        "language_model.model." => "language_model.",
                        _ => "",
                    };
                    found.or_else(|| Some(format!("{head}{name}")))
                };
                let facts = (
                    model.config().clone(),
                    model.processor().settings().clone(),
                    model.tokenizer().clone(),
                );
                let renamed = Arc::new(Renamed::new(Arc::clone(&tensors), rename));
                let found = VlModel::from_tensors(facts, renamed, &options)
                    .with_context(|| format!("{name} {layout:?}"))?;
                ensure!(logits(&found)? == expected, "{name} {layout:?}");
            }
        }
    }
    Ok(())
}
