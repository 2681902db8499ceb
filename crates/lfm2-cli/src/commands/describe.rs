//! `lfm2 describe`.

use std::time::Instant;

use anyhow::Result;
use lfm2::generate::{Content, Error as GenerateError, Finish, FinishReason, Part};
use lfm2::hub::Overwrite;
use lfm2::vl::{Boxes, Canvas, FoundBox, Size};
use lfm2::{Cancel, Chat, ChatEvent, Message, VlModel};
use serde::Serialize;

use super::generate::show_reasoning;
use super::pictures::{Costs, Pictures, prefill_bar, watch_reading};
use super::report::{Usage, summary};
use crate::args::{DescribeArgs, Explain};
use crate::exit::{Stopped, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{json_line, open, screen};

pub(crate) fn run(args: &DescribeArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    check_target(args)?;
    let pictures = Pictures::read(&args.images, &args.pictures)?;
    if let (Some(_), [_, _, ..]) = (&args.draw, &pictures.shown[..]) {
        let found = pictures.shown.len();
        return Err(invalid(format!(
            "--draw: expected one picture, found {found}"
        )));
    }
    let model = open::picture_model(&args.model, &args.pictures)?;
    let gallery = model.gallery();
    let budget = pictures.budget(&args.pictures, &model)?;
    let parts = gallery.add(&pictures.named(), budget.as_ref())?;
    let costs = costs(args, &model, &gallery, &parts, &pictures)?;
    if args.explain_cost == Some(Explain::Only) {
        return match args.json {
            true => json_line(&costs),
            false => Ok(screen::print(&costs.map_or(String::new(), |c| c.text()))?),
        };
    }
    if let Some(costs) = costs.as_ref().filter(|_| !args.json) {
        eprint!("{}", screen::visible(&costs.text()));
    }
    let watch = interrupt.watch();
    watch_reading(&gallery, &watch);
    let options = args.sampling.options(model.options());
    let mut chat = model.chat_with(&gallery)?.with_options(options.clone());
    if let Some(system) = &args.system {
        chat = chat.with_messages(vec![Message::system(system.as_str())]);
    }
    let said = ask(&mut chat, parts, args, &pictures, &watch)?;
    let boxes = match args.boxes {
        true => Some(boxes(args, &said.text, &pictures)?),
        false => None,
    };
    if args.json {
        json_line(&Report {
            model: model.origin(),
            text: &said.text,
            boxes: boxes.as_ref().map(|boxes| &boxes.found[..]),
            cost: costs.as_ref(),
            read_seconds: said.read_seconds,
            seed: options.seed,
            usage: Usage::new(&said.finish),
        })?;
    } else if let Some(boxes) = &boxes {
        boxes.found.iter().try_for_each(json_line)?;
    }
    if args.verbose || args.explain_cost.is_some() && !args.json {
        eprintln!(
            "pictures: {:.2} s; {}",
            said.read_seconds,
            summary(&said.finish)
        );
    }
    match said.finish.reason {
        FinishReason::Cancelled => Err(Stopped.into()),
        FinishReason::Stop(_) | FinishReason::Length => Ok(()),
    }
}

/// The object that `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boxes: Option<&'a [FoundBox]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'a Costs>,
    /// Until all pictures were read; the prompt with them comes after that.
    read_seconds: f64,
    seed: Option<u64>,
    #[serde(flatten)]
    usage: Usage,
}

/// Says before the work that its result could not be written.
fn check_target(args: &DescribeArgs) -> Result<()> {
    match &args.draw {
        Some(path) if !args.force && path.symlink_metadata().is_ok() => Err(invalid(format!(
            "{}: file exists, not overwriting it; use --force",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// What the pictures take, where anybody wants to know.
fn costs(
    args: &DescribeArgs,
    model: &VlModel,
    gallery: &lfm2::Gallery,
    parts: &[Part],
    pictures: &Pictures,
) -> Result<Option<Costs>> {
    if args.explain_cost.is_none() {
        return Ok(None);
    }
    let names: Vec<&str> = parts.iter().filter_map(Part::picture_name).collect();
    let speed = model.speed()?;
    Ok(Some(Costs::new(gallery, &names, pictures, Some(&speed))))
}

/// What the model said.
struct Said {
    text: String,
    read_seconds: f64,
    finish: Finish,
}

fn ask(
    chat: &mut Chat,
    mut parts: Vec<Part>,
    args: &DescribeArgs,
    pictures: &Pictures,
    cancel: &Cancel,
) -> Result<Said> {
    parts.push(Part::text(question(args, pictures)));
    let streams = !args.json && !args.boxes;
    let started = Instant::now();
    let stream = match chat.send(Content::Parts(parts)) {
        Err(GenerateError::Cancelled) => return Err(Stopped.into()),
        other => other?,
    };
    let read_seconds = started.elapsed().as_secs_f64();
    let mut text = String::new();
    let mut finish = None;
    for event in stream.with_cancel(cancel).on_prefill(prefill_bar()) {
        match event? {
            ChatEvent::Text(piece) => {
                if streams {
                    screen::print(&piece)?;
                }
                text.push_str(&piece);
            }
            ChatEvent::Reasoning(piece) => show_reasoning(&piece),
            ChatEvent::Done(done) => finish = Some(done),
            _ => {}
        }
    }
    if streams {
        screen::print("\n")?;
    }
    Ok(Said {
        text,
        read_seconds,
        finish: finish.ok_or(Stopped)?,
    })
}

/// The question, with what it takes to be answered with boxes.
fn question(args: &DescribeArgs, pictures: &Pictures) -> String {
    let default = match (args.boxes, pictures.moving, pictures.shown.len()) {
        (true, _, _) => "Find every object.",
        (false, true, _) => "Describe what happens.",
        (false, false, 1) => "Describe the picture.",
        (false, false, _) => "Describe the pictures.",
    };
    let asked = args.prompt.as_deref().unwrap_or(default);
    // Who names the format knows what the model was trained with.
    match args.boxes && !asked.contains("JSON") {
        true => format!("{asked} {}", Boxes::REQUEST),
        false => asked.to_owned(),
    }
}

/// The boxes of an answer, drawn where that is asked for.
fn boxes(args: &DescribeArgs, answer: &str, pictures: &Pictures) -> Result<Boxes> {
    let sizes: Vec<Size> = pictures
        .shown
        .iter()
        .map(|one| one.picture.size())
        .collect();
    let boxes = Boxes::parse(answer, &sizes)?;
    if boxes.found.is_empty() {
        eprintln!(
            "there is no box in the answer: {}",
            screen::visible(answer.trim())
        );
    }
    if boxes.senseless > 0 {
        eprintln!(
            "{} boxes of the answer are not inside a picture",
            boxes.senseless
        );
    }
    if let (Some(path), Some(one)) = (&args.draw, pictures.shown.first()) {
        let mut canvas = Canvas::from(&one.picture);
        canvas.boxes(&boxes.found);
        let overwrite = match args.force {
            true => Overwrite::Replace,
            false => Overwrite::Refuse,
        };
        canvas.into_picture()?.save(path, overwrite)?;
        eprintln!("{}: {} boxes", path.display(), boxes.found.len());
    }
    Ok(boxes)
}
