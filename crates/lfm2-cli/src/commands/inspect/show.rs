//! The facts as text for people.

use super::facts::{Facts, Memory, Shape, TokenizerFacts, VisionFacts, WeightFacts};
use super::values::Values;
use crate::ui::format::{bytes, count, table};

pub(super) fn text(facts: &Facts) -> String {
    let mut text = table(&head(facts));
    section(&mut text, "Memory of one sequence", &memory(&facts.memory));
    if let Some(weights) = &facts.weights {
        section(&mut text, "Weights", &types(weights));
    }
    if let Some(values) = &facts.values {
        section(&mut text, "Values", &checked(values));
    }
    text
}

fn section(text: &mut String, title: &str, rows: &[Vec<String>]) {
    text.push_str(&format!("\n{title}\n{}", table(rows)));
}

fn head(facts: &Facts) -> Vec<Vec<String>> {
    let shape = &facts.shape;
    let mut rows = vec![
        ("source", facts.source.clone()),
        ("architecture", facts.model_type.to_owned()),
        ("layers", layers(&facts.layers)),
        ("parameters", parameters(facts)),
        ("hidden size", count(shape.hidden_size as u64)),
        ("heads", heads(shape)),
        ("feed-forward", feed_forward(shape)),
        ("convolution", format!("{} wide", shape.conv_width)),
        ("vocabulary", vocabulary(shape)),
        ("context", count(shape.context as u64)),
        ("rope theta", count(shape.rope_theta as u64)),
    ];
    if let Some(vision) = &facts.vision {
        rows.push(("vision tower", tower(vision)));
        rows.push(("projector", projector(vision)));
    }
    if let Some(tokenizer) = &facts.tokenizer {
        rows.push(("tokenizer", tokenizer_line(tokenizer)));
        rows.push(("ends with", tokenizer.end_tokens.join(", ")));
        let template = if tokenizer.chat_template {
            "yes"
        } else {
            "none"
        };
        rows.push(("chat template", template.to_owned()));
    }
    // One cell each: the values are texts, not numbers to be aligned.
    rows.into_iter()
        .map(|(name, value)| vec![format!("{name:<14}{value}")])
        .collect()
}

fn tower(vision: &VisionFacts) -> String {
    format!(
        "{} layers {} wide, {} heads, feed-forward {}; {} parameters with the projector",
        vision.layers,
        count(vision.hidden_size as u64),
        vision.heads,
        count(vision.ffn_dim as u64),
        count(vision.parameters)
    )
}

fn projector(vision: &VisionFacts) -> String {
    let side = vision.patch_size * vision.downsample_factor;
    format!(
        "{} wide; {side} x {side} pixels become a token",
        count(vision.projector_hidden_size as u64)
    )
}

fn layers(line: &str) -> String {
    let of = |letter| line.chars().filter(|c| *c == letter).count();
    let kinds = [
        ('c', "conv"),
        ('A', "attention"),
        ('s', "sliding attention"),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .filter(|(letter, _)| of(*letter) > 0)
        .map(|(letter, name)| format!("{} {name}", of(letter)))
        .collect();
    format!("{line}  ({})", parts.join(", "))
}

fn parameters(facts: &Facts) -> String {
    if facts.active_parameters == facts.parameters {
        return count(facts.parameters);
    }
    format!(
        "{}, {} of them for each token",
        count(facts.parameters),
        count(facts.active_parameters)
    )
}

fn heads(shape: &Shape) -> String {
    let window = shape.sliding_window.map_or(String::new(), |window| {
        format!(", window of {window} tokens")
    });
    format!(
        "{} of {} numbers, {} for keys and values{window}",
        shape.heads, shape.head_dim, shape.kv_heads
    )
}

fn feed_forward(shape: &Shape) -> String {
    let width = count(shape.ffn_dim as u64);
    match (
        shape.experts,
        shape.experts_per_token,
        shape.expert_dim,
        shape.dense_layers,
    ) {
        (Some(experts), Some(chosen), Some(expert), Some(dense)) => {
            let expert = count(expert as u64);
            format!(
                "{chosen} of {experts} experts {expert} wide; {dense} dense layers {width} wide"
            )
        }
        _ => format!("{width} wide"),
    }
}

fn vocabulary(shape: &Shape) -> String {
    let head = if shape.tied_embedding {
        "tied"
    } else {
        "separate"
    };
    format!("{}, {head} output head", count(shape.vocab_size as u64))
}

fn tokenizer_line(tokenizer: &TokenizerFacts) -> String {
    format!(
        "{} tokens, {} of them special",
        count(tokenizer.tokens as u64),
        tokenizer.special_tokens
    )
}

fn memory(memory: &[Memory]) -> Vec<Vec<String>> {
    let title = ["tokens", "keys and values f32", "f16", "conv state"]
        .map(str::to_owned)
        .to_vec();
    let rows = memory.iter().map(|row| {
        let sizes = [row.kv_f32_bytes, row.kv_f16_bytes, row.conv_state_bytes];
        let cells = sizes.map(|size| bytes(size as u64));
        std::iter::once(count(row.context as u64))
            .chain(cells)
            .collect()
    });
    std::iter::once(title).chain(rows).collect()
}

fn types(weights: &WeightFacts) -> Vec<Vec<String>> {
    let title = ["type", "tensors", "parameters", "size"]
        .map(str::to_owned)
        .to_vec();
    let rows = weights.types.iter().map(|row| {
        vec![
            row.name.clone(),
            row.tensors.to_string(),
            count(row.parameters),
            bytes(row.bytes),
        ]
    });
    let tensors: usize = weights.types.iter().map(|row| row.tensors).sum();
    let bits = format!("{:.2} bits each", weights.bits_per_weight);
    let sum = vec![
        "all".to_owned(),
        tensors.to_string(),
        bits,
        bytes(weights.bytes),
    ];
    std::iter::once(title).chain(rows).chain([sum]).collect()
}

fn checked(values: &Values) -> Vec<Vec<String>> {
    let sum = vec![format!(
        "{} tensors, largest magnitude {}",
        values.tensors, values.largest
    )];
    let broken = values.broken.iter().map(|broken| {
        vec![format!(
            "{}: {} NaN, {} infinite",
            broken.tensor, broken.nan, broken.infinite
        )]
    });
    std::iter::once(sum).chain(broken).collect()
}
