//! A model that calls a function of this program:
//! `cargo run --release -p lfm2-examples --features download --example tools -- LiquidAI/LFM2-1.2B-Tool`.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use anyhow::Context;
use lfm2::TextModel;
use lfm2::generate::{Tool, ToolCall};
use serde_json::json;

/// The function. Its result goes back to the model as JSON.
fn weather(call: &ToolCall) -> serde_json::Value {
    let city = call
        .arguments
        .get("city")
        .and_then(|city| city.as_str())
        .unwrap_or("nowhere");
    json!({"city": city, "degrees": 21, "sky": "clear"})
}

fn main() -> anyhow::Result<()> {
    let source = std::env::args()
        .nth(1)
        .context("expected a model, such as LiquidAI/LFM2-1.2B-Tool")?;
    let model = TextModel::open(source)?;
    let tool = Tool::from_json(json!({
        "name": "weather",
        "description": "The present weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }))?;
    let mut chat = model.chat_session()?.with_tools(vec![tool]);

    let mut reply = chat.send("What is the weather in Lisbon?")?.complete()?;
    // A model may call again with what it learnt; a few rounds are enough for anything sensible.
    for _ in 0..3 {
        if reply.tool_calls.is_empty() {
            break;
        }
        for call in &reply.tool_calls {
            println!("{}({})", call.name, serde_json::to_string(&call.arguments)?);
            chat.add_tool_result(weather(call));
        }
        reply = chat.reply()?.complete()?;
    }
    println!("{}", reply.text);
    Ok(())
}
