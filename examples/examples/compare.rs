//! What differs between two pictures, and where: `compare MODEL BEFORE AFTER OUT.png`.
//!
//! A model that was trained to say where things are, such as LFM2.5-VL, answers with boxes; they are drawn
//! onto the second picture. Tiles that are the same in both are read once.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::path::Path;

use anyhow::{Result, bail};
use lfm2::VlModel;
use lfm2::hub::Overwrite;
use lfm2::vl::{Boxes, Canvas, DecodeOptions, Picture, Size};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, before, after, out] = &args[..] else {
        bail!("usage: compare MODEL BEFORE AFTER OUT.png");
    };
    let open = |path: &String| Picture::open(path, &DecodeOptions::default());
    let pictures = [open(before)?, open(after)?];
    let model = VlModel::open(source.as_str())?;
    let mut chat = model.chat_session()?;

    let question = "The first picture was taken before the second. What changed?";
    println!("{}", chat.ask(&pictures, question)?.complete()?.text.trim());

    let question = format!(
        "Where in the second picture did it change? {}",
        Boxes::REQUEST
    );
    let answer = chat.ask(&[], question)?.complete()?.text;
    let sizes: Vec<Size> = pictures.iter().map(Picture::size).collect();
    let boxes = Boxes::parse(&answer, &sizes)?;
    let mut canvas = Canvas::from(&pictures[1]);
    canvas.boxes(boxes.found.iter().filter(|found| found.picture == 1));
    canvas
        .into_picture()?
        .save(Path::new(out), Overwrite::Replace)?;
    println!("{} boxes drawn to {out}", boxes.found.len());
    Ok(())
}
