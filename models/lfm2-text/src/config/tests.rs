#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]

use serde_json::{Value, json};

use super::*;

fn base() -> Value {
    json!({
        "model_type": "lfm2", "vocab_size": 384, "hidden_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["conv", "conv", "full_attention"],
        "intermediate_size": 200, "block_multiple_of": 32,
    })
}

fn with(changes: Value) -> Value {
    let mut config = base();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn message(changes: Value) -> String {
    TextConfig::from_json(&with(changes))
        .unwrap_err()
        .to_string()
}

#[test]
fn the_width_rule_gives_the_published_widths() {
    let width = |stated, multiplier, multiple_of| {
        FfnRule {
            stated,
            adjust: true,
            multiplier: Some(multiplier),
            multiple_of,
        }
        .width()
    };
    assert_eq!(width(6656, 1.0, 256), 4608);
    assert_eq!(width(10240, 1.0, 256), 6912);
    assert_eq!(width(12288, 1.0, 256), 8192);
    assert_eq!(width(200, 1.0, 32), 160);
    assert_eq!(width(160, 1.3, 16), 144);
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = TextConfig::from_json(&base()).unwrap();
    assert_eq!(config.ffn_width, 160);
    assert_eq!(config.head_dim, 16);
    assert_eq!(
        (config.rope.theta, config.conv_width, config.norm_eps),
        (1e6, 3, 1e-5)
    );
    assert!(config.tied && !config.conv_bias && !config.bidirectional);
    assert_eq!(config.to_string(), "ccA");
}

#[test]
fn every_layer_is_attention_when_nothing_says_otherwise() {
    let mut json = base();
    json.as_object_mut().unwrap().remove("layer_types");
    json["full_attn_idxs"] = Value::Null;
    assert_eq!(TextConfig::from_json(&json).unwrap().to_string(), "AAA");
    json["full_attn_idxs"] = json!([1]);
    assert_eq!(TextConfig::from_json(&json).unwrap().to_string(), "cAc");
}

#[test]
fn nested_theta_wins_over_flat_over_the_first_spelling() {
    let theta = |changes| TextConfig::from_json(&with(changes)).unwrap().rope.theta;
    assert_eq!(theta(json!({"theta": 5.0})), 5.0);
    assert_eq!(theta(json!({"theta": 5.0, "rope_theta": 6.0})), 6.0);
    assert_eq!(
        theta(json!({"rope_theta": 6.0, "rope_parameters": {"rope_theta": 7.0}})),
        7.0
    );
}

#[test]
fn cf_02_heads_that_do_not_divide() {
    assert!(message(json!({"num_attention_heads": 0})).contains("num_attention_heads"));
    let text = message(json!({"num_attention_heads": 5}));
    assert!(
        text.contains("hidden_size") && text.contains("num_attention_heads"),
        "{text}"
    );
    let text = message(json!({"num_key_value_heads": 3}));
    assert!(
        text.contains("num_key_value_heads") && text.contains("num_attention_heads"),
        "{text}"
    );
    assert!(message(json!({"head_dim": 15})).contains("head_dim"));
}

#[test]
fn cf_03_layer_types_of_wrong_length_kind_or_contradicting() {
    assert!(message(json!({"layer_types": ["conv"]})).contains("num_hidden_layers"));
    assert!(message(json!({"layer_types": ["conv", "conv", "mamba"]})).contains("mamba"));
    assert!(
        message(json!({"layer_types": ["conv", "conv", "sliding_attention"]})).contains("sliding")
    );
    assert!(message(json!({"full_attn_idxs": [0]})).contains("full_attn_idxs"));
    assert!(message(json!({"full_attn_idxs": [7]})).contains("full_attn_idxs"));
    assert!(TextConfig::from_json(&with(json!({"full_attn_idxs": [2]}))).is_ok());
}

#[test]
fn cf_04_convolution_widths() {
    assert!(message(json!({"conv_L_cache": 0})).contains("conv_L_cache"));
    assert!(TextConfig::from_json(&with(json!({"conv_L_cache": 1}))).is_ok());
    let error = TextConfig::from_json(&with(json!({"conv_L_cache": 1_000_000}))).unwrap_err();
    assert_eq!(error.kind(), lfm2_hub::ErrorKind::Limit);
}

#[test]
fn cf_07_rotary_parameters() {
    for theta in [json!(0), json!(-1.0), json!("1e6")] {
        assert!(message(json!({"rope_theta": theta})).contains("rope_theta"));
    }
    assert!(message(json!({"rope_parameters": {"rope_type": "yarn"}})).contains("yarn"));
    assert!(message(json!({"rope_scaling": {"type": "linear"}})).contains("rope_scaling"));
}

#[test]
fn cf_08_experts() {
    let moe = |mut changes: Value| {
        changes["model_type"] = json!("lfm2_moe");
        message(changes)
    };
    assert!(
        moe(json!({"num_experts": 2, "num_experts_per_tok": 3})).contains("num_experts_per_tok")
    );
    assert!(moe(json!({"num_experts": 0})).contains("num_experts"));
    assert!(moe(json!({"num_dense_layers": 4})).contains("num_dense_layers"));
}

#[test]
fn cf_09_contradicting_tie_keys() {
    let text = message(json!({"tie_embedding": true, "tie_word_embeddings": false}));
    assert!(
        text.contains("tie_embedding") && text.contains("tie_word_embeddings"),
        "{text}"
    );
    assert!(
        !TextConfig::from_json(&with(json!({"tie_word_embeddings": false})))
            .unwrap()
            .tied
    );
}

#[test]
fn cf_10_unknown_keys_are_ignored() {
    assert!(TextConfig::from_json(&with(json!({"flavour": [1, 2]}))).is_ok());
}

#[test]
fn cf_11_unknown_architectures() {
    let error = TextConfig::from_json(&with(json!({"model_type": "llama"}))).unwrap_err();
    assert_eq!(error.kind(), lfm2_hub::ErrorKind::Unsupported);
    assert!(error.to_string().contains("lfm2_moe"));
    assert!(message(json!({"architectures": ["LlamaForCausalLM"]})).contains("LlamaForCausalLM"));
    assert!(message(json!({"model_type": null})).contains("model_type"));
}

#[test]
fn cf_12_token_ids() {
    assert!(message(json!({"eos_token_id": [7, 384]})).contains("eos_token_id"));
    let ids = |changes| TextConfig::from_json(&with(changes)).unwrap().eos_token_ids;
    assert_eq!(ids(json!({"eos_token_id": 7})), [7]);
    assert_eq!(ids(json!({"eos_token_id": [2, 7]})), [2, 7]);
    assert!(ids(json!({"eos_token_id": []})).is_empty());
}

#[test]
fn cf_13_impossible_numbers() {
    let huge: Value = serde_json::from_str("{\"hidden_size\": 1180591620717411303424}").unwrap();
    assert!(message(huge).contains("hidden_size"));
    assert!(message(json!({"hidden_size": -1})).contains("hidden_size"));
    assert!(message(json!({"hidden_size": 0})).contains("hidden_size"));
    assert!(message(json!({"norm_eps": "small"})).contains("norm_eps"));
}

#[test]
fn repacked_checkpoints_are_refused_by_name() {
    let error = TextConfig::from_json(&with(json!({"quantization": {"bits": 4}}))).unwrap_err();
    assert_eq!(error.kind(), lfm2_hub::ErrorKind::Unsupported);
}
