//! What is in a picture: `describe MODEL PICTURE`, where MODEL is a folder or `organisation/name`.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::io::Write;

use anyhow::{Context, Result};
use lfm2::VlModel;
use lfm2::vl::{DecodeOptions, Picture};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let source = args.next().context("usage: describe MODEL PICTURE")?;
    let path = args.next().context("usage: describe MODEL PICTURE")?;
    let picture = Picture::open(&path, &DecodeOptions::default())?;
    let model = VlModel::open(source)?;

    // What it will take is known before anything is read.
    let plan = model.network().processor().plan(picture.size());
    println!("{}\n", model.network().cost(&plan, None));

    let mut chat = model.chat_session()?;
    for event in chat.ask(&[picture], "Describe the picture.")? {
        print!("{}", event?);
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}
