//! Chooses the few tools of many that a question is about, before a language model sees them:
//! `cargo run --release -p lfm2-examples --features download --example tool_selection --
//! LiquidAI/LFM2-ColBERT-350M "will it rain in Lisbon tomorrow?"`.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use anyhow::Context;
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
    let source = args
        .next()
        .context("expected a model, such as LiquidAI/LFM2-ColBERT-350M")?;
    let question = args
        .next()
        .unwrap_or_else(|| "will it rain in Lisbon tomorrow?".to_owned());
    let model = retrieval::open(source)?;

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
