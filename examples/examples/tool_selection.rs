//! Chooses the few tools of many that a question is about, before a language model sees them:
//! `cargo run --release -p lfm2-examples --example tool_selection -- "will it rain in Lisbon?"`, with
//! another model than the built-in one behind that.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use lfm2::generate::Tool;
use lfm2::retrieval;
use serde_json::json;

const TOOLS: [(&str, &str); 8] = [
    (
        "weather_forecast",
        "Temperature, wind and rain of the coming days in a city",
    ),
    ("currency_rate", "The price of one currency in another"),
    ("calendar_add", "Write an appointment into the calendar"),
    ("calendar_free", "Find an hour that is free in the calendar"),
    ("mail_send", "Send an electronic letter to somebody"),
    (
        "route",
        "The fastest way from one place to another, by train, car or bicycle",
    ),
    ("translate", "Say a sentence in another language"),
    ("light_switch", "Turn the lights of a room on or off"),
];

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let question = args
        .next()
        .unwrap_or_else(|| "will it rain in Lisbon?".to_owned());
    let model = match args.next() {
        Some(source) => retrieval::open(source)?,
        None => retrieval::embedded()?,
    };

    let texts: Vec<String> = TOOLS
        .iter()
        .map(|(name, description)| format!("{}: {description}", name.replace('_', " ")))
        .collect();
    let ranking = model.rerank(&question, &texts)?;
    let chosen: Vec<Tool> = ranking
        .iter()
        .take(3)
        .map(|ranked| {
            let (name, description) = TOOLS[ranked.index];
            println!("{:6.3}  {name}", ranked.score);
            Tool::from_json(json!({
                "name": name,
                "description": description,
                "parameters": {"type": "object", "properties": {}},
            }))
        })
        .collect::<Result<_, _>>()?;
    // These go to `Chat::with_tools`: see the example `tools`.
    println!("{} of {} tools", chosen.len(), TOOLS.len());
    Ok(())
}
