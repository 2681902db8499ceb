//! A conversation in speech: every file is a turn of the user, and the model remembers all of them.
//! `cargo run --release -p lfm2-examples --features download --example converse -- MODEL hello.wav more.wav`

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use lfm2::speech::{
    self, Chat, Clip, Event, GenerationOptions, Mode, OUTPUT_RATE, Role, SoundLimits, write_wav,
};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let model = args.next().context("give a model and sound files")?;
    let model = speech::open(model)?;
    let options = GenerationOptions::chat();

    let mut session = model.session();
    for (turn, file) in args.enumerate() {
        let clip = Clip::open(Path::new(&file), &SoundLimits::default())?;
        let mut chat = match turn {
            0 => {
                let mut chat = Chat::new(model.tokenizer(), model.front_end())?;
                chat.begin(Role::System)?
                    .text("Respond with interleaved text and audio.")?
                    .end()?;
                chat
            }
            // What was said before is in the session already.
            _ => Chat::more(model.tokenizer(), model.front_end()),
        };
        chat.begin(Role::User)?.clip(&clip)?.end()?;
        chat.begin(Role::Assistant)?;
        session.read(&chat.into_sequence())?;

        let mut reply = session.reply(Mode::Interleaved, &options)?;
        let mut samples = Vec::new();
        for event in reply.by_ref() {
            match event? {
                Event::Text(text) => print!("{text}"),
                Event::Samples(more) => samples.extend(more),
                _ => {}
            }
            std::io::stdout().flush()?;
        }
        println!();
        write_wav(
            Path::new(&format!("answer-{turn}.wav")),
            &samples,
            OUTPUT_RATE,
        )?;
        session = reply.into_session()?;
    }
    Ok(())
}
