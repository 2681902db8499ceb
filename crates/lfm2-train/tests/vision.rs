//! Whole runs that train a tiny vision-language model on pictures of shapes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::RefCell;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::Accuracy;
use lfm2_text::LoadOptions;
use lfm2_train::eval::RowLog;
use lfm2_train::shapes::{Exam, Examinee, Topic};
use lfm2_train::vision::{VisionOptions, VisionRun};
use lfm2_train::{AnyRun, Error, Hints, Objective, Resume, TrainEvent, TrainProgress};
use serde_json::{Value, json};

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self, steps: u64, changes: &Value) -> Value {
        let mut config = json!({
            "objective": "vision",
            "name": "test",
            "base": {"fresh": {
                "vocab_size": 340,
                "init": {"std": 0.1},
                "config": {
                    "architectures": ["Lfm2VlForConditionalGeneration"], "model_type": "lfm2_vl",
                    "projector_hidden_size": 24, "projector_use_layernorm": true,
                    "vision_config": {
                        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "num_patches": 16, "patch_size": 8,
                    },
                    "text_config": {
                        "model_type": "lfm2", "hidden_size": 16, "num_hidden_layers": 2,
                        "layer_types": ["conv", "full_attention"],
                        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
                        "block_auto_adjust_ff_dim": false, "conv_L_cache": 3, "norm_eps": 1e-5,
                        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
                        "max_position_embeddings": 512,
                    },
                },
                "processor": {
                    "encoder_patch_size": 8, "tile_size": 64, "do_image_splitting": false,
                    "min_image_tokens": 2, "max_image_tokens": 6,
                },
            }},
            "data": {"shapes": {
                "scenes": {"sides": [40, 64], "aspect": 2.0, "most": 3},
                "conversations": {"questions": [1, 2], "captions": 0.5},
            }},
            "validation_pictures": 3, "micro_batch_pictures": 3, "micro_batches": 2,
            "steps": steps, "schedule": {"kind": "constant", "peak": 0.01, "warmup": 2},
            "clip": 1.0, "validate_every": 100, "save_every": 2, "seed": 5, "export_dtype": "f32",
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn options(&self, steps: u64, changes: &Value) -> VisionOptions {
        serde_json::from_value(self.config(steps, changes)).unwrap()
    }

    fn open(&self, options: VisionOptions, run: &str, threads: usize) -> VisionRun {
        let run = self.path().join(run);
        VisionRun::open(options, self.path(), &run, Resume::Continue, threads).unwrap()
    }

    /// Why a run with these changes cannot be opened.
    fn refusal(&self, changes: &Value) -> String {
        let options: VisionOptions = match serde_json::from_value(self.config(2, changes)) {
            Ok(options) => options,
            Err(error) => return error.to_string(),
        };
        let run = self.path().join("refused");
        let opened = VisionRun::open(options, self.path(), &run, Resume::Continue, 1);
        opened.unwrap_err().to_string()
    }
}

/// Keeps the losses of steps and validations, and asks to stop once a step is finished.
#[derive(Default)]
struct Watch {
    losses: RefCell<Vec<(u64, f64, f64)>>,
    topics: RefCell<Vec<String>>,
    seen: RefCell<Vec<f64>>,
    stop: Option<(u64, Cancel)>,
}

impl TrainProgress for Watch {
    fn event(&self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Step(report) => {
                let line = (report.step, report.loss, report.grad_norm);
                self.losses.borrow_mut().push(line);
                assert!((0.0..=1.0).contains(&report.figures["right"]));
                self.seen.borrow_mut().extend(report.figures.get("seen"));
                if let Some((step, cancel)) = &self.stop
                    && report.step == *step
                {
                    cancel.cancel();
                }
            }
            TrainEvent::Validation(reports) => {
                *self.topics.borrow_mut() = reports.iter().map(|r| r.source.clone()).collect();
            }
            _ => {}
        }
    }
}

fn train(run: &mut VisionRun) -> Watch {
    let watch = Watch::default();
    run.train(&watch, &Cancel::new()).unwrap();
    watch
}

fn losses(watch: &Watch) -> Vec<(u64, f64, f64)> {
    watch.losses.borrow().clone()
}

#[test]
fn answers_are_learnt_and_measured_by_topic() {
    let bench = Bench::new();
    let mut run = bench.open(bench.options(30, &json!({})), "run", 2);
    let watch = train(&mut run);
    let losses = losses(&watch);
    let mean = |steps: &[(u64, f64, f64)]| {
        steps.iter().map(|(_, loss, _)| loss).sum::<f64>() / steps.len() as f64
    };
    let (first, last) = (mean(&losses[..4]), mean(&losses[26..]));
    assert!(last < 0.7 * first, "{first} then {last}");
    let topics = watch.topics.borrow();
    assert!(
        topics.len() >= 7 && topics.contains(&"count".to_string()),
        "{topics:?}"
    );
}

#[test]
fn gradients_of_tower_projector_and_text_are_slopes_of_the_loss() {
    let bench = Bench::new();
    let run = bench.open(bench.options(2, &json!({})), "run", 1);
    let objective = run.objective();
    let (_, batches) = &objective.validation()[0];
    let loss = || objective.loss(&batches[0], 2.0).unwrap().loss;
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let gradients = loss().backward().unwrap();
    let mut compared = [0; 3];
    for parameter in run.parameters().iter() {
        let name = parameter.name();
        let part = ["vision_tower", "multi_modal_projector", "language_model"];
        let part = part.iter().position(|part| name.contains(part)).unwrap();
        let gradient = gradients.get(parameter.tensor()).unwrap();
        let norm = gradient.sqr().unwrap().sum_all().unwrap();
        let norm = f64::from(norm.to_scalar::<f32>().unwrap().sqrt());
        // Keys all moved by the same change no softmax, and what is this small drowns in rounding.
        if norm < 0.02 {
            continue;
        }
        let start = parameter.tensor().copy().unwrap();
        let at = |step: f64| {
            let moved = (&start + (gradient * (step / norm)).unwrap()).unwrap();
            parameter.set(&moved).unwrap();
            value()
        };
        // A step that changes the loss by about a hundredth.
        let step = (0.01 / norm).min(0.05);
        let slope = (at(step) - at(-step)) / (2.0 * step);
        parameter.set(&start).unwrap();
        assert!(
            (slope - norm).abs() < 0.03 * norm,
            "{name}: {slope}, expected {norm}"
        );
        compared[part] += 1;
    }
    assert!(compared.iter().all(|count| *count >= 3), "{compared:?}");
}

/// What turns hints on: words have to be tokens.
fn hinted() -> Value {
    let mut config = Bench::new().config(2, &json!({"hints": 1.0}));
    config["base"]["fresh"]["vocab_size"] = json!(640);
    json!({"hints": 1.0, "base": config["base"]})
}

#[test]
fn rows_learn_the_words_for_what_they_show() {
    let bench = Bench::new();
    let run = |name: &str, threads| {
        let mut run = bench.open(bench.options(30, &hinted()), name, threads);
        let watch = train(&mut run);
        (watch.seen.take(), run.parameters().values().unwrap())
    };
    let (seen, values) = run("one", 1);
    let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
    assert!(seen.iter().all(|share| (0.0..=1.0).contains(share)));
    assert!(mean(&seen[20..]) > mean(&seen[..6]) + 0.04, "{seen:?}");
    assert_eq!((seen, values), run("two", 2));
}

#[test]
fn the_loss_of_hints_is_a_cross_entropy_with_its_slope() {
    let bench = Bench::new();
    let run = bench.open(bench.options(2, &json!({})), "run", 1);
    let text = run.model().text();
    let words = [3u32, 9, 20];
    let table = text
        .embed_tokens(&Tensor::new(&words, &Device::Cpu).unwrap())
        .unwrap();
    let table: Vec<Vec<f32>> = table.to_vec2().unwrap();
    let hidden = table[0].len();
    let values: Vec<f32> = (0..4 * hidden)
        .map(|i| ((i * 37 % 19) as f32 - 9.0) / 12.0)
        .collect();
    let x = Var::from_vec(values.clone(), (4, hidden), &Device::Cpu).unwrap();
    let mut hints = Hints::new(words.to_vec());
    let pushed = [(3u32, 1u32, 1.0f32), (0, 2, 0.25)];
    for (place, word, weight) in pushed {
        hints.push(place, word, weight);
    }

    let naive = |values: &[f32]| -> f64 {
        let mut total = 0.0;
        for (place, word, weight) in pushed {
            let row = &values[place as usize * hidden..][..hidden];
            let product = |e: &Vec<f32>| -> f64 {
                row.iter()
                    .zip(e)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum()
            };
            let logits: Vec<f64> = table.iter().map(|e| 8.0 * product(e)).collect();
            let sum: f64 = logits.iter().map(|l| l.exp()).sum();
            total += f64::from(weight) * (sum.ln() - logits[word as usize]);
        }
        total / 5.0
    };
    let (loss, [right, all]) = hints.loss(x.as_tensor(), text, 5.0).unwrap();
    let found = f64::from(loss.to_scalar::<f32>().unwrap());
    assert!((found - naive(&values)).abs() < 1e-5 * naive(&values));
    assert!(all == 1.25 && [0.0, 0.25, 1.0, 1.25].contains(&right));
    let gradients = loss.backward().unwrap();
    let gradient: Vec<f32> = gradients
        .get(x.as_tensor())
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    for i in (0..values.len()).step_by(5) {
        let at = |step: f32| {
            let mut moved = values.clone();
            moved[i] += step;
            naive(&moved)
        };
        let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
        assert!(
            (slope - f64::from(gradient[i])).abs() < 1e-3,
            "{i}: {slope} {}",
            gradient[i]
        );
    }
}

#[test]
fn views_of_a_run_leave_the_models_own_settings_alone() {
    let bench = Bench::new();
    let changes = json!({"views": {"min_image_tokens": 1, "max_image_tokens": 2}});
    let mut run = bench.open(bench.options(2, &changes), "run", 1);
    train(&mut run);
    assert_eq!(run.model().processor().settings().max_image_tokens, 6);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bench = Bench::new();
    let run = |name: &str, threads| {
        let mut run = bench.open(bench.options(3, &json!({})), name, threads);
        (losses(&train(&mut run)), run.parameters().values().unwrap())
    };
    assert_eq!(run("one", 1), run("three", 3));
}

#[test]
fn tr_04_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let bench = Bench::new();
    let mut whole = bench.open(bench.options(6, &json!({})), "whole", 2);
    let expected = losses(&train(&mut whole));

    let cancel = Cancel::new();
    let watch = Watch {
        stop: Some((3, cancel.clone())),
        ..Watch::default()
    };
    let mut first = bench.open(bench.options(6, &json!({})), "parts", 2);
    let error = first.train(&watch, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 3 }), "{error}");
    let mut second = bench.open(bench.options(6, &json!({})), "parts", 1);
    assert_eq!(second.step(), 3);
    assert_eq!(losses(&train(&mut second)), expected[3..]);
    let values = |run: &VisionRun| run.parameters().values().unwrap();
    assert_eq!(values(&whole), values(&second));
}

#[test]
fn the_exported_folder_opens_like_a_published_one_and_can_be_trained_further() {
    let bench = Bench::new();
    let config = bench.path().join("run.json");
    std::fs::write(&config, bench.config(2, &json!({})).to_string()).unwrap();
    // As the command does it: the kind of run is said by the file.
    let folder = bench.path().join("run");
    let mut run = AnyRun::open(&config, &folder, Resume::Never, 1).unwrap();
    run.train(&(), &Cancel::new()).unwrap();
    let path = folder.join("checkpoint");
    run.export(&path).unwrap();

    let source = ModelSource::Dir(path.clone());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    let load = LoadOptions::default().with_accuracy(Accuracy::Exact);
    let examinee = Examinee::from_checkpoint(&checkpoint, load).unwrap();
    let mut exam = Exam::default();
    (exam.pictures, exam.max_new_tokens, exam.batch) = (3, 4, 12);
    exam.scenes.sides = [40, 64];
    let mut answered = Vec::new();
    let mut log = RowLog::in_memory();
    let report = examinee.examine(&exam, (&mut log, &Cancel::new()), |answer| {
        answered.push((answer.picture, answer.question.topic, answer.right));
    });
    let report = report.unwrap();
    // What is in the log is not asked again, not even by somebody who was stopped.
    let stopped = Cancel::new();
    stopped.cancel();
    let again = examinee.examine(&exam, (&mut log, &stopped), |_| {});
    assert_eq!(again.unwrap(), report);
    exam.pictures = 4;
    assert!(
        examinee
            .examine(&exam, (&mut log, &stopped), |_| {})
            .is_err()
    );
    let questions: usize = report.topics.values().map(|score| score.questions).sum();
    assert_eq!(questions, answered.len());
    assert!(report.topics[&Topic::Count].questions == 3 && answered.last().unwrap().0 == 2);

    let card = std::fs::read_to_string(path.join("README.md")).unwrap();
    assert!(
        card.contains("cA") && card.contains("12 pictures"),
        "{card}"
    );

    // The weights of the folder are where the next run starts.
    let further = json!({"base": {"checkpoint": "run/checkpoint"}, "seed": 6});
    let next = bench.open(bench.options(2, &further), "next", 1);
    let AnyRun::Vision(run) = run else {
        panic!("expected a vision run");
    };
    let values = |run: &VisionRun| run.parameters().values().unwrap();
    assert_eq!(values(&next), values(&run));
    let mut next = next;
    train(&mut next);
    assert_ne!(values(&next), values(&run));
}

/// A picture file of one colour, as BMP, whose header is all there is to it.
fn bitmap(path: &Path, [red, green, blue]: [u8; 3]) {
    const SIDE: u32 = 48;
    let pixels = [blue, green, red].repeat((SIDE * SIDE) as usize);
    let mut file = b"BM".to_vec();
    let numbers = [
        54 + pixels.len() as u32,
        0,
        54,
        40,
        SIDE,
        SIDE,
        1 | (24 << 16),
        0,
    ];
    file.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    file.extend([0; 20]);
    file.extend(pixels);
    std::fs::write(path, file).unwrap();
}

fn row(parts: &Value, answer: &str) -> String {
    let messages = json!([
        {"role": "user", "content": parts},
        {"role": "assistant", "content": answer},
    ]);
    json!({"messages": messages, "image": "red.bmp"}).to_string()
}

#[test]
fn rows_of_a_file_are_learnt_from_with_their_pictures() {
    let bench = Bench::new();
    for (name, colour) in [("red", [200, 20, 20]), ("blue", [20, 20, 200])] {
        bitmap(&bench.path().join(format!("{name}.bmp")), colour);
    }
    let ask = json!({"type": "text", "text": "Which colour?"});
    let other = json!({"type": "image", "image": "blue.bmp"});
    let lines = [
        row(&json!([{"type": "image"}, ask]), "red"),
        row(&json!([other, {"type": "image"}, ask]), "blue and red"),
    ];
    let rows = bench.path().join("rows.jsonl");
    std::fs::write(&rows, lines.join("\n").repeat(4).replace("}{", "}\n{")).unwrap();
    let data = json!({"data": {"rows": {"path": "rows.jsonl"}}, "validation_pictures": 2});
    let mut run = bench.open(bench.options(25, &data), "run", 1);
    let watch = train(&mut run);
    let losses = losses(&watch);
    assert!(losses[24].1 < 0.5 * losses[0].1, "{losses:?}");
    assert_eq!(*watch.topics.borrow(), ["rows.jsonl"]);

    for (line, named) in [
        (row(&json!([ask]), "red"), "red.bmp"),
        (
            row(&json!([{"type": "image"}, {"type": "image"}]), "red"),
            "without a file",
        ),
        (
            row(
                &json!([{"type": "image", "image": "none.png"}, {"type": "image"}]),
                "red",
            ),
            "none.png",
        ),
    ] {
        std::fs::write(&rows, [lines[0].clone(), line].join("\n")).unwrap();
        let text = bench.refusal(&data);
        assert!(text.contains("line 2") && text.contains(named), "{text}");
    }
}

#[test]
fn a_part_with_rate_0_stays_as_it_is() {
    let bench = Bench::new();
    let changes = json!({"rates": {"tower": 0.0, "text": 0.0}});
    let mut run = bench.open(bench.options(2, &changes), "run", 1);
    let values = |run: &VisionRun| run.parameters().values().unwrap();
    let before = values(&run);
    train(&mut run);
    for ((parameter, before), after) in run.parameters().iter().zip(before).zip(values(&run)) {
        let is_projector = parameter.name().contains("multi_modal_projector");
        assert_eq!(before != after, is_projector, "{}", parameter.name());
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    let bench = Bench::new();
    let shapes = |what: Value| json!({"data": {"shapes": what}});
    let base = |change: &dyn Fn(&mut Value)| {
        let mut base = bench.config(2, &json!({}))["base"].clone();
        change(&mut base["fresh"]);
        json!({ "base": base })
    };
    let cases = [
        (json!({"micro_batch_pictures": 0}), "micro_batch_pictures"),
        (json!({"validation_pictures": 0}), "validation_pictures"),
        (json!({"steps": 0}), "steps"),
        (shapes(json!({"scenes": {"sides": [64, 40]}})), "sides"),
        (shapes(json!({"scenes": {"most": 40}})), "most"),
        (
            shapes(json!({"conversations": {"questions": [0, 2]}})),
            "questions",
        ),
        (
            shapes(json!({"conversations": {"captions": 2.0}})),
            "captions",
        ),
        (
            shapes(json!({"conversations": {"topics": {"count": -1.0}}})),
            "topics.count",
        ),
        (shapes(json!({"scene": {}})), "scene"),
        (json!({"base": {"checkpoint": "missing"}}), "missing"),
        (json!({"rates": {"tower": -1.0}}), "rates.tower"),
        (json!({"hints": -1.0}), "hints"),
        // Words of several tokens.
        (json!({"hints": 1.0}), "a token for"),
        (
            json!({"hints": 1.0, "data": {"rows": {"path": "rows.jsonl"}}}),
            "hints",
        ),
        (json!({"views": {"tile_size": -3}}), "tile_size"),
        (shapes(json!({"scenes": {"scale": 9.0}})), "scale"),
        (
            json!({"data": {"rows": {"path": "missing.jsonl"}}}),
            "missing.jsonl",
        ),
        (base(&|b| b["vocab_size"] = json!(100)), "vocab_size"),
        (
            base(&|b| b["config"]["text_config"] = Value::Null),
            "text_config",
        ),
        (
            base(&|b| b["processor"]["encoder_patch_size"] = json!(16)),
            "encoder_patch_size",
        ),
        (
            base(&|b| b["processor"]["do_image_splitting"] = json!(true)),
            "img_",
        ),
    ];
    for (changes, named) in cases {
        let text = bench.refusal(&changes);
        assert!(text.contains(named), "{changes}: {text}");
    }
}

#[test]
fn a_run_goes_on_with_its_own_settings_only() {
    let bench = Bench::new();
    train(&mut bench.open(bench.options(2, &json!({})), "run", 1));
    let changed = bench.options(2, &json!({"micro_batches": 1}));
    let run = bench.path().join("run");
    let error = VisionRun::open(changed, bench.path(), &run, Resume::Continue, 1).unwrap_err();
    assert!(matches!(error, Error::RunMismatch { .. }), "{error}");
}
