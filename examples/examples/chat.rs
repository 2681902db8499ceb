//! A conversation: the second question refers to the first, and only its own tokens are fed.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::io::Write;

use lfm2::{ChatEvent, TextModel};

const STORY: &str = "Sam had a red ball. Then the ball was lost. A fox named Vera came by. They searched for a long \
    time. At last they saw something red under the bridge. It was the ball! Sam thanked the fox.\nWho helped Sam?";

fn main() -> anyhow::Result<()> {
    let model = match std::env::args().nth(1) {
        Some(source) => TextModel::open(source)?,
        None => TextModel::embedded()?,
    };
    let mut chat = model.chat_session()?;
    for question in [STORY, "What colour was it?"] {
        println!("> {question}");
        for event in chat.send(question)? {
            match event? {
                ChatEvent::Text(text) => print!("{text}"),
                ChatEvent::Done(finish) => {
                    let new = finish.prompt_tokens - finish.reused_tokens;
                    println!(
                        "\n({new} of {} prompt tokens were new)",
                        finish.prompt_tokens
                    );
                }
                _ => {}
            }
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}
