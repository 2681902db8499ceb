//! Requests that come, go and are cancelled at any step, and what became of each.

use std::collections::BTreeMap;

use lfm2_generate::{
    Batch, BatchEvent, Error, Finish, FinishReason, GenerationOptions, Generator, Request,
    RequestId,
};
use proptest::prelude::*;

use super::{BOS, bytes};

/// What the events of one request add up to.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) finish: Option<Finish>,
    pub(crate) error: Option<Error>,
}

pub(crate) type Stories = BTreeMap<RequestId, Story>;

/// One step; nothing may follow the last event of a request.
pub(crate) fn step(batch: &mut Batch, stories: &mut Stories) {
    for (id, event) in batch.step() {
        let story = stories.entry(id).or_default();
        assert!(
            story.finish.is_none() && story.error.is_none(),
            "{id}: {event:?} after its end"
        );
        match event {
            BatchEvent::Piece(piece) => {
                story.text.push_str(&piece.text);
                story.tokens.extend(piece.token.map(|token| token.id));
            }
            BatchEvent::Finished(finish) => story.finish = Some(finish),
            BatchEvent::Failed(error) => story.error = Some(error),
            other => unreachable!("{other:?}"),
        }
    }
}

pub(crate) fn run(batch: &mut Batch) -> Stories {
    let mut stories = Stories::new();
    while !batch.is_idle() {
        step(batch, &mut stories);
    }
    stories
}

pub(crate) fn alone(
    generator: &Generator,
    ids: &[u32],
    options: &GenerationOptions,
) -> (String, Vec<u32>) {
    let output = generator.generate_ids(ids.to_vec(), options).unwrap();
    let output = output.complete().unwrap();
    let tokens = output.tokens.iter().map(|token| token.id).collect();
    (output.text, tokens)
}

pub(crate) fn assert_alone(
    generator: &Generator,
    ids: &[u32],
    options: &GenerationOptions,
    story: &Story,
) {
    let expected = alone(generator, ids, options);
    assert_eq!((&story.text, &story.tokens), (&expected.0, &expected.1));
}

/// A request of a schedule.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Steps after the one before.
    wait: usize,
    /// How much of a common beginning the prompt has.
    shared: usize,
    own: String,
    options: GenerationOptions,
    /// Steps until it is cancelled.
    cancel: Option<usize>,
}

impl Arrival {
    pub(crate) fn ids(&self) -> Vec<u32> {
        let instruction = "You are a helpful assistant who always answers briefly.";
        [
            vec![BOS],
            bytes(&instruction[..self.shared]),
            bytes(&self.own),
        ]
        .concat()
    }
}

pub(crate) fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let options = (any::<bool>(), any::<u64>(), 0usize..14, any::<bool>()).prop_map(
        |(is_greedy, seed, max, stops)| {
            let options = match is_greedy {
                true => GenerationOptions::greedy(),
                false => GenerationOptions::neutral().with_seed(seed),
            };
            let options = options.with_max_new_tokens(max);
            if stops {
                options.with_stop("ab")
            } else {
                options
            }
        },
    );
    let shared = prop_oneof![Just(0usize), Just(55), 0usize..=55];
    let cancel = prop::option::weighted(0.2, 0usize..10);
    let arrival = (0usize..4, shared, "[a-e]{0,30}", options, cancel).prop_map(
        |(wait, shared, own, options, cancel)| Arrival {
            wait,
            shared,
            own,
            options,
            cancel,
        },
    );
    prop::collection::vec(arrival, 1..9)
}

/// Checks that every story is that of its request alone, or the beginning of it when it was cancelled.
pub(crate) fn check(
    generator: &Generator,
    schedule: &[Arrival],
    stories: &[Story],
) -> Result<(), TestCaseError> {
    for (arrival, story) in schedule.iter().zip(stories) {
        let (text, tokens) = alone(generator, &arrival.ids(), &arrival.options);
        let finish = story.finish.as_ref().unwrap();
        if finish.reason == FinishReason::Cancelled {
            prop_assert!(arrival.cancel.is_some());
            prop_assert!(tokens.starts_with(&story.tokens));
        } else {
            prop_assert_eq!(&story.tokens, &tokens);
            prop_assert_eq!(&story.text, &text);
        }
        prop_assert_eq!(finish.prompt_tokens, arrival.ids().len());
        prop_assert_eq!(finish.generated_tokens, story.tokens.len());
    }
    Ok(())
}

/// Runs a schedule and returns what became of each request, in its order.
pub(crate) fn play(batch: &mut Batch, schedule: &[Arrival]) -> Vec<Story> {
    let mut stories = Stories::new();
    let mut ids = Vec::new();
    let mut cancels = Vec::new();
    let mut now = 0;
    let mut due = 0;
    let mut coming = schedule.iter().peekable();
    while coming.peek().is_some() || !batch.is_idle() {
        while let Some(arrival) = coming.next_if(|arrival| now >= due + arrival.wait) {
            due = now;
            let request = Request::ids(arrival.ids(), arrival.options.clone());
            let id = batch.submit(request).unwrap();
            cancels.extend(arrival.cancel.map(|steps| (now + steps, id)));
            ids.push(id);
        }
        for (_, id) in cancels.iter().filter(|(at, _)| *at == now) {
            batch.cancel(*id);
        }
        if now % 7 == 6 {
            batch.forget();
        }
        step(batch, &mut stories);
        now += 1;
    }
    ids.iter().map(|id| stories.remove(id).unwrap()).collect()
}
