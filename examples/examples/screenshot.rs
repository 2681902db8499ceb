//! Questions about a screenshot, one per line of stdin, each answered within a budget of tokens:
//! `screenshot MODEL PICTURE < questions.txt`.
//!
//! The screenshot is read once. After the first question only the words of the next one are new.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use anyhow::{Context, Result};
use lfm2::VlModel;
use lfm2::vl::{Budget, DecodeOptions, Picture};

/// Small text needs tiles; this leaves room for three or four of them.
const BUDGET: Budget = Budget::Tokens(1200);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let source = args.next().context("usage: screenshot MODEL PICTURE")?;
    let path = args.next().context("usage: screenshot MODEL PICTURE")?;
    let mut screenshot = vec![Picture::open(&path, &DecodeOptions::default())?];
    let model = VlModel::open(source)?;
    let mut chat = model.chat_session()?.with_budget(BUDGET);

    for question in std::io::stdin().lines() {
        let question = question?;
        let reply = chat.ask(&screenshot, question.as_str())?.complete()?;
        let finish = reply.finish;
        println!("> {question}\n{}", reply.text.trim());
        println!(
            "({} of {} prompt tokens were new, {:.2} s to the first word)\n",
            finish.prompt_tokens - finish.reused_tokens,
            finish.prompt_tokens,
            finish.prefill_time.as_secs_f64()
        );
        // Shown once; it stays in the conversation.
        screenshot.clear();
    }
    Ok(())
}
