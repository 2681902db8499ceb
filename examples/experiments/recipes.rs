//! The models and runs of the experiments, as the keys of a run's configuration.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::Lab;

/// How long a run is and how fast it learns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) steps: u64,
    /// Tokens of a pass; four passes make a step.
    pub(crate) tokens: usize,
    pub(crate) peak: f64,
}

/// A dense model of `blocks` layers, two thirds of them convolutions.
pub(crate) fn dense(blocks: usize) -> Value {
    let kinds = [
        "conv",
        "conv",
        "full_attention",
        "conv",
        "full_attention",
        "conv",
    ];
    let layers: Vec<&str> = kinds.iter().copied().cycle().take(blocks).collect();
    json!({
        "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2",
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": blocks, "layer_types": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "block_auto_adjust_ff_dim": false,
        "conv_L_cache": 3, "norm_eps": 1e-5, "max_position_embeddings": 1024,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    })
}

/// A mixture: the same with eight experts per layer behind the first, two of them for every token.
pub(crate) fn mixture() -> Value {
    let mut config = dense(6);
    let keys = json!({
        "architectures": ["Lfm2MoeForCausalLM"], "model_type": "lfm2_moe",
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
        "num_dense_layers": 1, "use_expert_bias": true, "norm_topk_prob": true,
    });
    for (key, value) in keys.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

/// New weights, and a tokenizer trained on the run's data.
pub(crate) fn fresh(config: &Value) -> Value {
    json!({"fresh": {"vocab_size": 512, "init": {"std": 0.05}, "config": config}})
}

/// The weights of a checkpoint.
pub(crate) fn from(checkpoint: &Path) -> Value {
    json!({"checkpoint": checkpoint})
}

/// A run that learns the next token.
pub(crate) fn run(base: &Value, data: &Value, plan: Plan, seed: u64) -> Value {
    json!({
        "name": "experiment", "base": base, "data": data, "steps": plan.steps,
        "micro_batch_tokens": plan.tokens, "micro_batches": 4,
        "schedule": {
            "kind": "cosine", "peak": plan.peak, "floor": 0.05 * plan.peak,
            "warmup": plan.steps / 10, "total": plan.steps,
        },
        "optimizer": {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
        "clip": 1.0, "validate_every": 50, "save_every": plan.steps, "seed": seed,
        "export_dtype": "f32",
    })
}

/// Stories, all of them scored.
pub(crate) fn stories() -> Value {
    json!({"path": "stories-train.txt.gz", "format": "text", "holdout": 40})
}

/// Questions on stories; the answers count six times.
pub(crate) fn questions() -> Value {
    json!({
        "path": "chat-questions.jsonl.gz", "format": "chat", "score": "all", "answer_weight": 6,
        "holdout": 60,
    })
}

/// `source` with a share of all tokens.
pub(crate) fn share(mut source: Value, share: f64) -> Value {
    source["share"] = json!(share);
    source
}

/// The model that fine-tuning starts from: stories, and questions on a few sentences. It has seen every
/// word, but no question on a whole story, and few steps.
pub(crate) fn base(lab: &Lab, seed: u64) -> Result<PathBuf> {
    let short = json!({
        "path": "chat-short.jsonl.gz", "format": "chat", "score": "all", "answer_weight": 4, "holdout": 60,
    });
    // Never drawn, but the tokenizer knows its words.
    let pairs = json!({"path": "preference.jsonl.gz", "format": "preference"});
    let request =
        json!({"path": "chat-sft.jsonl.gz", "format": "chat", "score": "all", "holdout": 60});
    let data = json!([
        share(stories(), 0.5),
        share(short, 0.4),
        share(request, 0.1),
        share(pairs, 0.0),
    ]);
    let plan = Plan {
        steps: 350,
        tokens: 1024,
        peak: 4e-3,
    };
    lab.train(
        &format!("base/seed-{seed}"),
        &run(&fresh(&dense(6)), &data, plan, seed),
    )
}

/// The base after questions on whole stories: where preferences start, and one of the models to merge.
pub(crate) fn answering(lab: &Lab, seed: u64) -> Result<PathBuf> {
    let data = json!([questions()]);
    let plan = Plan {
        steps: 200,
        tokens: 1024,
        peak: 3e-3,
    };
    let settings = run(&from(&base(lab, seed)?), &data, plan, seed);
    lab.train(&format!("answering/seed-{seed}"), &settings)
}
