//! Prompts with pictures behave like prompts of text: in pieces, cut back, continued, side by side.

mod support;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use lfm2_hub::{Bos, Error, ModelSource, OpenOptions, SpecialTokens};
use lfm2_nn::{Accuracy, Cache, CacheSpec, Decoder, Input, Step, Want};
use lfm2_text::LoadOptions;
use lfm2_vl::{Album, Budget, ImageViews, Picture, VlModel, VlOptions};
use proptest::prelude::*;
use support::sets;

fn model() -> Result<VlModel> {
    let set = sets().into_iter().next().context("no golden data")?;
    let name = set.models()?.into_iter().next().context("no model")?;
    let source = ModelSource::Dir(set.folder.join("models").join(name));
    let load = LoadOptions::default().with_accuracy(Accuracy::Exact);
    Ok(VlModel::open(
        &source,
        &OpenOptions::default(),
        &VlOptions::from(load),
    )?)
}

fn picture(width: usize, height: usize, seed: usize) -> lfm2_hub::Result<Picture> {
    Picture::from_fn(width, height, |x, y| {
        [
            (x * seed) as u8,
            (y * 3 + seed) as u8,
            ((x ^ y) * seed) as u8,
        ]
    })
}

fn views(model: &VlModel, width: usize, height: usize, seed: usize) -> Result<ImageViews> {
    Ok(model.processor().process(&picture(width, height, seed)?)?)
}

fn encode(model: &VlModel, text: &str) -> Result<Vec<u32>> {
    Ok(model
        .tokenizer()
        .encode(text, SpecialTokens::Parse, Bos::Omit)?)
}

fn feed(album: &Album, cache: &mut Cache, ids: &[u32]) -> Result<Vec<f32>> {
    let input = Tensor::new(ids, album.device())?;
    let step = Step::single(ids.len());
    let logits = album.forward(Input::Ids(&input), &step, cache, Want::LastLogits)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn the_same_picture_has_the_same_ids_and_is_read_once() -> Result<()> {
    let model = model()?;
    let album = model.album();
    let ids = encode(&model, "<image>describe<image> the image")?;
    let (a, b) = (views(&model, 150, 120, 3)?, views(&model, 150, 120, 5)?);
    let twice = album.prompt(&ids, &[&a, &a.clone()])?;
    let rows = album.rows();
    ensure!(rows == a.plan().image_tokens(), "{rows} rows");
    let other = album.prompt(&ids, &[&a, &b])?;
    ensure!(album.rows() == 2 * rows);
    let common = twice.iter().zip(&other).take_while(|(a, b)| a == b).count();
    ensure!(
        common > rows && common < twice.len(),
        "{common} ids in common"
    );
    ensure!(album.spelled(&twice) == album.spelled(&other));
    ensure!(album.spelled(&twice) == model.image_tokens().expand(&ids, &[a.plan(), a.plan()])?);
    ensure!(!album.accepts(u32::MAX) && album.accepts(0));
    Ok(())
}

#[test]
fn a_turn_that_is_cut_inside_a_picture_goes_on_exactly() -> Result<()> {
    let model = model()?;
    let album = model.album();
    let prompt = album.prompt(
        &encode(&model, "the <image> of <image>the user")?,
        &[&views(&model, 300, 200, 3)?, &views(&model, 90, 300, 7)?],
    )?;
    let mut cache = album.new_cache(CacheSpec::rows(1));
    let whole = feed(&album, &mut cache, &prompt)?;
    for len in [prompt.len() - 1, prompt.len() / 2, 9, 1] {
        album.rewind(&mut cache, 0, len)?;
        ensure!(cache.len(0) == len);
        let fed: Option<Vec<u32>> = cache.fed_ids(0).into_iter().collect();
        ensure!(
            fed.as_deref() == prompt.get(..len),
            "the cache knows what it was fed"
        );
        let again = feed(&album, &mut cache, &prompt[len..])?;
        let error = distance(&whole, &again);
        ensure!(error < 1e-3, "cut to {len}: {error}");
    }
    Ok(())
}

#[test]
fn im_06_places_and_pictures_have_to_match() -> Result<()> {
    let model = model()?;
    let album = model.album();
    let one = views(&model, 60, 60, 1)?;
    for (text, pictures, counts) in [
        ("<image><image>", vec![&one], ["2", "1"]),
        ("the image", vec![&one], ["0", "1"]),
        ("<image>", vec![], ["1", "0"]),
    ] {
        let error = album.prompt(&encode(&model, text)?, &pictures).unwrap_err();
        ensure!(matches!(error, Error::InvalidInput(_)), "{error}");
        ensure!(
            counts.iter().all(|count| error.to_string().contains(count)),
            "{error}"
        );
    }
    ensure!(album.rows() == 0, "nothing was read");
    Ok(())
}

#[test]
fn im_10_what_does_not_fit_the_context_is_refused_before_it_is_read() -> Result<()> {
    let model = model()?;
    let album = model.album();
    let context = model.config().text.max_position_embeddings;
    let image = views(&model, 300, 200, 1)?;
    let count = context / image.plan().prompt_tokens() + 1;
    let ids = encode(&model, &"<image>".repeat(count))?;
    let pictures: Vec<&ImageViews> = std::iter::repeat_n(&image, count).collect();
    let error = album.prompt(&ids, &pictures).unwrap_err();
    ensure!(matches!(error, Error::InvalidInput(_)), "{error}");
    let length = (count * image.plan().prompt_tokens()).to_string();
    ensure!(error.to_string().contains(&length), "{error}");
    ensure!(error.to_string().contains(&context.to_string()), "{error}");
    ensure!(album.rows() == 0);
    Ok(())
}

#[test]
fn tk_06_words_of_users_are_no_places() -> Result<()> {
    let model = model()?;
    let words = "<image><|image_start|><|img_row_1_col_1|>";
    let literal = model
        .tokenizer()
        .encode(words, SpecialTokens::Literal, Bos::Omit)?;
    let tokens = model.image_tokens().all();
    ensure!(literal.iter().all(|id| !tokens.contains(id)));
    let album = model.album();
    ensure!(album.prompt(&literal, &[])? == literal);
    Ok(())
}

#[test]
fn an_image_token_by_itself_is_an_ordinary_token() -> Result<()> {
    let model = model()?;
    let album = model.album();
    let image = model.image_tokens().image();
    let mut cache = album.new_cache(CacheSpec::rows(1));
    let prompt = album.prompt(
        &encode(&model, "<image>the")?,
        &[&views(&model, 64, 64, 1)?],
    )?;
    feed(&album, &mut cache, &prompt)?;
    let sampled = feed(&album, &mut cache, &[image])?;
    ensure!(sampled.len() == model.config().text.vocab_size);
    let mut text = model.text().new_cache(CacheSpec::rows(1));
    let input = Tensor::new(&[image], model.text().device())?;
    let own = model.text().forward(
        Input::Ids(&input),
        &Step::single(1),
        &mut text,
        Want::LastLogits,
    )?;
    let mut fresh = album.new_cache(CacheSpec::rows(1));
    let error = distance(
        &feed(&album, &mut fresh, &[image])?,
        &own.flatten_all()?.to_vec1()?,
    );
    ensure!(error == 0.0, "{error}");
    Ok(())
}

#[test]
fn ids_of_another_album_are_refused() -> Result<()> {
    let model = model()?;
    let prompt = model
        .album()
        .prompt(&encode(&model, "<image>")?, &[&views(&model, 64, 64, 1)?])?;
    let album = model.album();
    let mut cache = album.new_cache(CacheSpec::rows(1));
    let error = feed(&album, &mut cache, &prompt).unwrap_err();
    ensure!(
        error
            .to_string()
            .contains("neither in the vocabulary nor in the album"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_budget_holds_for_all_pictures_of_a_request() -> Result<()> {
    let model = model()?;
    let pictures = [picture(300, 200, 3)?, picture(60, 60, 5)?];
    let all = model.process_images(&pictures)?;
    let most: usize = all.iter().map(|views| views.plan().prompt_tokens()).sum();
    for budget in [most, most - 1, most / 2, 6] {
        let found = model.process_images_within(&pictures, &Budget::Tokens(budget))?;
        let total: usize = found.iter().map(|views| views.plan().prompt_tokens()).sum();
        ensure!(total <= budget, "{total} of {budget}");
        let album = model.album();
        let ids = album.prompt(
            &encode(&model, "<image><image>")?,
            &found.iter().collect::<Vec<_>>(),
        )?;
        ensure!(ids.len() == total);
    }
    Ok(())
}

#[test]
fn measured_speed_prices_plans() -> Result<()> {
    let model = model()?;
    let speed = model.measure_speed()?;
    ensure!(speed.per_token > 0.0 && speed.per_patch >= 0.0 && speed.per_pair >= 0.0);
    let views = views(&model, 300, 200, 3)?;
    let cost = model.cost(views.plan(), Some(&speed));
    ensure!(cost.time.is_some() && cost.tokens == views.plan().prompt_tokens());
    Ok(())
}

proptest! {
    // Each case runs a model several times.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_prompt_in_any_pieces_equals_the_whole(
        (width, height) in (20usize..320, 20usize..320), cuts in prop::collection::vec(1usize..40, 0..6), cold in any::<bool>(),
    ) {
        let run = || -> Result<f32> {
            let model = model()?;
            let album = model.album();
            let image = views(&model, width, height, 3)?;
            let prompt = album.prompt(&encode(&model, "what is <image>in it")?, &[&image])?;
            let whole = feed(&album, &mut album.new_cache(CacheSpec::rows(1)), &prompt)?;
            // Another album of the same model, with or without the cache of views.
            let model = if cold { self::model()? } else { model };
            let album = model.album();
            let prompt = album.prompt(&encode(&model, "what is <image>in it")?, &[&image])?;
            let mut cache = album.new_cache(CacheSpec::rows(1));
            let mut rest = &prompt[..];
            let mut last = Vec::new();
            for cut in cuts.iter().copied().chain([usize::MAX]) {
                let (piece, others) = rest.split_at(cut.min(rest.len()));
                if !piece.is_empty() {
                    last = feed(&album, &mut cache, piece)?;
                }
                rest = others;
            }
            Ok(distance(&whole, &last))
        };
        let error = run().map_err(|e| TestCaseError::fail(format!("{e:#}")))?;
        prop_assert!(error < 1e-3, "{}", error);
    }
}
