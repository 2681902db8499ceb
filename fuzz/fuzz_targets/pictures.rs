//! Any bytes are a picture, an animation or an error, and a picture becomes views that have as many
//! features as the prompt has places, under any settings and any budget.

#![no_main]

use lfm2_vl::{
    Boxes, Budget, DecodeOptions, FrameOptions, Frames, ImageLimits, ImageProcessor, ImageSettings,
    Picture, Size, contact_sheet,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u8, u8, u8, u16)| {
    let (bytes, tiles, tokens, switches, budget) = input;
    let mut limits = ImageLimits::default();
    // Small, so that an input that reaches them is not slow.
    (limits.max_pixels, limits.max_side) = (1 << 18, 4096);
    let decode = DecodeOptions::default().with_limits(limits);
    let mut several = FrameOptions::default().with_decode(decode).with_most(3);
    several.max_decoded = 1 << 22;
    if let Ok(frames) = Frames::decode(bytes, &several) {
        assert!((1..=3).contains(&frames.taken.len()) && frames.taken.len() <= frames.found);
    }
    let boxes = Boxes::parse(&String::from_utf8_lossy(bytes), &[Size::new(70, 30)]);
    let inside = |found: &lfm2_vl::FoundBox| found.area.right <= 70 && found.area.bottom <= 30;
    assert!(boxes.is_ok_and(|boxes| boxes.found.iter().all(inside)));
    let Ok(picture) = Picture::decode(bytes, &decode) else {
        return;
    };
    let mut settings = ImageSettings::default();
    settings.tile_size = 64;
    settings.max_tiles = usize::from(tiles);
    settings.max_image_tokens = usize::from(tokens);
    settings.min_image_tokens = usize::from(tokens / 2);
    settings.do_image_splitting = switches & 1 != 0;
    settings.use_thumbnail = switches & 2 != 0;
    settings.use_image_special_tokens = switches & 4 != 0;
    let Ok(processor) = ImageProcessor::new(settings) else {
        return;
    };
    let budget_of = Budget::Tokens(usize::from(budget));
    let mut plans = vec![processor.plan(picture.size())];
    if let Ok(within) = processor.plan_within(&[picture.size()], &budget_of) {
        assert!(within[0].prompt_tokens() <= usize::from(budget));
        plans.extend(within);
    }
    for plan in plans {
        let places = plan.image_tokens();
        let Ok(views) = processor.process_as(&picture, plan) else {
            panic!("a picture has no views");
        };
        let features = views.views().iter().map(|view| view.grid().patches() / 4);
        assert_eq!(features.sum::<usize>(), places);
        assert!(contact_sheet(&views).is_ok());
    }
});
