//! Configs that are refused, and why.

use lfm2_hub::ErrorKind;

use super::*;

fn released() -> Value {
    json!({
        "architectures": ["Lfm2AudioForConditionalGeneration"],
        "codebooks": 8, "tie_audio_embeddings": false, "semantic_codebook_factor": 100,
        "codebook_weight": "log", "interleaved_n_text": 6, "interleaved_n_audio": 12,
        "preprocessor": {"sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025,
            "window_stride": 0.01, "window": "hann", "features": 128, "n_fft": 512, "log": true,
            "frame_splicing": 1, "dither": 1e-5, "pad_to": 0, "pad_value": 0.0},
        "encoder": {"feat_in": 128, "feat_out": -1, "n_layers": 17, "d_model": 512,
            "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 256,
            "causal_downsampling": false, "reduction": null, "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos", "n_heads": 8, "att_context_size": [-1, -1],
            "xscaling": false, "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
            "conv_context_size": null},
        "lfm": {"hidden_size": 2048, "num_hidden_layers": 16, "block_ff_dim": 12288,
            "block_ffn_dim_multiplier": 1, "vocab_size": 65536,
            "layer_types": ["conv", "conv", "full_attention", "conv", "conv", "full_attention", "conv",
                "conv", "full_attention", "conv", "full_attention", "conv", "full_attention", "conv",
                "full_attention", "conv"]},
        "depthformer": {"layers": 6, "dim": 1024, "tie": true}
    })
}

fn parse(json: &Value) -> Result<AudioConfig> {
    AudioConfig::from_json(json, &Limits::default())
}

/// The error of the released config with the value at `pointer` replaced, or the key taken out.
fn refused(pointer: &str, value: Option<Value>) -> Error {
    let mut json = released();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let map = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => drop(map.insert(key.to_owned(), value)),
        None => drop(map.remove(key)),
    }
    parse(&json).unwrap_err()
}

#[test]
fn the_released_sizes_are_read() {
    let config = parse(&released()).unwrap();
    assert_eq!(config.text.ffn_width, 8192);
    assert_eq!(config.depth.ffn_width(), 2816);
    assert_eq!(config.depth.head_dim(), 32);
    assert_eq!((config.mel.window, config.mel.hop), (400, 160));
    assert_eq!(config.encoder.context, [None, None]);
    let weights = config.codebook_weights();
    assert!((weights[0] - 100.0).abs() < 1e-3 && (weights[7] - 1.0).abs() < 1e-6);
    assert!((weights[1] - 51.79475).abs() < 1e-3);
}

#[test]
fn missing_structural_keys_are_named() {
    for pointer in [
        "/codebooks",
        "/encoder/n_layers",
        "/depthformer/tie",
        "/preprocessor/n_fft",
    ] {
        let error = refused(pointer, None);
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{pointer}");
        let key = pointer[1..].replace('/', ".");
        assert!(error.to_string().contains(&key), "{error}");
    }
}

#[test]
fn variants_nobody_published_are_refused_by_key() {
    for (pointer, value) in [
        ("/encoder/subsampling", json!("striding")),
        ("/encoder/subsampling_factor", json!(4)),
        ("/encoder/causal_downsampling", json!(true)),
        ("/encoder/reduction", json!("pooling")),
        ("/encoder/self_attention_model", json!("abs_pos")),
        ("/encoder/conv_norm_type", json!("layer_norm")),
        ("/encoder/conv_context_size", json!([4, 4])),
        ("/preprocessor/normalize", json!("all_features")),
    ] {
        let error = refused(pointer, Some(value));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let key = pointer[1..].replace('/', ".");
        assert!(error.to_string().contains(&key), "{error}");
    }
}

#[test]
fn cf_15_counts_and_rates_that_do_not_fit_are_refused() {
    for (pointer, value) in [
        ("/codebooks", json!(0)),
        ("/codebooks", json!(65)),
        ("/codebooks", json!("8")),
        ("/preprocessor/window_stride", json!(0.0)),
        ("/preprocessor/sample_rate", json!(0)),
        ("/encoder/n_heads", json!(7)),
        ("/encoder/conv_kernel_size", json!(8)),
        ("/encoder/feat_in", json!(80)),
        ("/encoder/att_context_size", json!([-2, 0])),
        ("/depthformer/dim", json!(100)),
        ("/codebook_weight", json!("even")),
        ("/semantic_codebook_factor", json!(-1)),
    ] {
        let error = refused(pointer, Some(value.clone()));
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::InvalidModel | ErrorKind::Limit),
            "{pointer} {value}: {error}"
        );
    }
}

#[test]
fn a_list_of_contexts_counts_by_its_first() {
    let mut json = released();
    json["encoder"]["att_context_size"] = json!([[70, -1], [0, 0]]);
    assert_eq!(parse(&json).unwrap().encoder.context, [Some(70), None]);
}

#[test]
fn cf_11_other_architectures_are_refused_by_name() {
    let error = refused(
        "/architectures",
        Some(json!(["Lfm3AudioForConditionalGeneration"])),
    );
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("causal encoder"), "{error}");
    let error = refused("/architectures", Some(json!(["Lfm2ForCausalLM"])));
    assert!(
        error
            .to_string()
            .contains("Lfm2AudioForConditionalGeneration"),
        "{error}"
    );
    assert!(
        refused("/architectures", None)
            .to_string()
            .contains("architectures")
    );
}

#[test]
fn both_names_of_the_detokenizers_attention_mean_the_window() {
    for name in ["full_attention", "sliding_attention"] {
        let json = json!({"hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 16,
            "num_key_value_heads": 8, "layer_types": ["conv", name], "sliding_window": 30,
            "output_size": 1282, "vocab_size": 65536, "block_ff_dim": 3328});
        let config = DetokenizerConfig::from_json(&json, &Limits::default()).unwrap();
        assert_eq!(config.text.layers[1], LayerKind::SlidingAttention);
        assert_eq!(
            (config.text.sliding_window, config.text.ffn_width),
            (30, 2304)
        );
    }
}
