//! Tool calls and reasoning in model output, whole and in pieces.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use lfm2_generate::{
    ReasoningEvent, ReasoningStream, ToolCall, ToolCallStream, ToolEvent, ToolOutput,
    split_reasoning, tools, write_calls,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const START: &str = tools::TOOL_CALL_START;
const END: &str = tools::TOOL_CALL_END;

fn in_pieces(pieces: &[&str]) -> ToolOutput {
    let mut stream = ToolCallStream::new();
    let mut events: Vec<ToolEvent> = pieces.iter().flat_map(|piece| stream.push(piece)).collect();
    events.extend(stream.finish());
    events.into_iter().collect()
}

fn names(output: &ToolOutput) -> Vec<&str> {
    output.calls.iter().map(|call| call.name.as_str()).collect()
}

#[test]
fn ct_08_malformed_calls_stay_text() {
    let bodies = [
        "[f(a=1",
        "[f(a=1)",
        "f(a=1)]",
        "[f(a=(1]",
        "[f(1)]",
        "[f(a='x)]",
        "[f(a=\"x')]",
        "[]",
        "",
        "text",
        "[f(a=1) g(b=2)]",
        "[f()] and more",
        "{",
        "[{\"name\": 1}]",
    ];
    for body in bodies {
        let text = format!("a{START}{body}{END}b");
        let output = tools::parse(&text);
        assert_eq!((output.content, output.calls), (text, vec![]), "{body}");
        let unfinished = format!("a{START}{body} ");
        assert_eq!(
            tools::parse(&unfinished).content,
            if body == "[f(a=1)]" { "a" } else { &unfinished }
        );
    }
}

#[test]
fn ct_08_calls_around_text_and_marks_twice() {
    let output = tools::parse(&format!(
        "[a] {START}[f()]{END} [b](c) {START}[a.b(x=\"it's [1]\"), g()]{END}!"
    ));
    assert_eq!(names(&output), ["f", "a.b", "g"]);
    assert_eq!(output.content, "[a]  [b](c) !");
    let twice = format!("{START}{START}[f()]{END}{END}");
    assert_eq!(tools::parse(&twice).content, twice);
    assert_eq!(tools::parse(END).content, END);
}

#[test]
fn ct_08_calls_to_undefined_tools_are_calls() {
    assert_eq!(
        names(&tools::parse(&format!("{START}[no_such_tool(x=1)]{END}"))),
        ["no_such_tool"]
    );
}

#[test]
fn ct_09_arguments_are_valid_json_or_text() {
    let call = |arguments: &str| tools::parse(&format!("{START}[f({arguments})]{END}"));
    for arguments in [
        "a=NaN",
        "a=-inf",
        "a=1e999",
        "a=123456789012345678901234567890",
        "a=1, a=2",
    ] {
        assert!(call(arguments).calls.is_empty(), "{arguments}");
    }
    let output = call(r#"a={"k": 1, "k": 2}, b="\q\u12""#);
    assert_eq!(
        Value::Object(output.calls[0].arguments.clone()),
        json!({"a": {"k": 2}, "b": r"\q\u12"})
    );
}

#[test]
fn ct_09_deep_nesting_is_text_and_not_a_crash() {
    for (open, close) in [("[", "]"), ("(", ")"), ("{'a': ", "}")] {
        let body = format!("[f(a={}1{})]", open.repeat(100_000), close.repeat(100_000));
        assert!(
            tools::parse(&format!("{START}{body}{END}"))
                .calls
                .is_empty()
        );
    }
    let json = format!(
        "[{{\"name\": \"f\", \"arguments\": {}",
        "{\"a\": ".repeat(100_000)
    );
    assert!(
        tools::parse(&format!("{START}{json}{END}"))
            .calls
            .is_empty()
    );
}

#[test]
fn a_marker_is_never_shown_before_it_is_certain() {
    let mut stream = ToolCallStream::new();
    let text = format!("ab{START}[f(a='<|x')]{END}c<|d");
    let mut shown = String::new();
    for c in text.chars() {
        for event in stream.push(&c.to_string()) {
            if let ToolEvent::Content(text) = event {
                shown.push_str(&text);
                assert!("abc<|d".starts_with(&shown), "{shown}");
            }
        }
    }
    assert_eq!(shown, "abc<|d");
    assert_eq!(stream.finish(), []);
}

#[test]
fn reasoning_is_separate_and_hides_calls() {
    let output = tools::parse(&format!(
        "<think>maybe {START}[f()]{END}</think>So: {START}[g()]{END}"
    ));
    assert_eq!(output.reasoning, format!("maybe {START}[f()]{END}"));
    assert_eq!(
        (output.content.as_str(), names(&output)),
        ("So: ", vec!["g"])
    );
    let in_argument = tools::parse(&format!("{START}[f(a='<think>')]{END}x"));
    assert_eq!(
        (in_argument.content.as_str(), names(&in_argument)),
        ("x", vec!["f"])
    );
}

#[test]
fn writing_refuses_names_that_cannot_be_called() {
    assert_eq!(write_calls(&[]).unwrap(), "");
    for name in ["", "a b", "f()", "a."] {
        assert!(
            write_calls(&[ToolCall::new(name, Map::new())]).is_err(),
            "{name}"
        );
    }
}

/// Text made of what matters here.
fn output_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(START.to_owned()),
        Just(END.to_owned()),
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("<|cot_start|>".to_owned()),
        Just("<|cot_end|>".to_owned()),
        Just("[f(a=1, b='x')]".to_owned()),
        Just("[{\"name\": \"g\"}]".to_owned()),
        "[<|>a-z\\[\\]()='\" é🙂\\\\]{0,6}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |x| x.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![
            Just(START),
            Just(END),
            Just("</think>"),
            Just("\\"),
            Just("'\"")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn tool_call() -> impl Strategy<Value = ToolCall> {
    let key = prop_oneof!["[a-z_][a-z0-9_]{0,5}", any::<String>()];
    let arguments = prop::collection::vec((key, json_value()), 0..4);
    ("[a-z_][a-z0-9_]{0,5}(\\.[a-z0-9_]{1,5})?", arguments)
        .prop_map(|(name, arguments)| ToolCall::new(name, arguments.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_split_gives_the_whole_result(text in output_text(), cuts in prop::collection::vec(0usize..80, 0..12)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).filter(|cut| text.is_char_boundary(*cut)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        prop_assert_eq!(in_pieces(&pieces), tools::parse(&text));

        let mut stream = ReasoningStream::new();
        let mut events: Vec<ReasoningEvent> = pieces.iter().flat_map(|piece| stream.push(piece)).collect();
        events.extend(stream.finish());
        let (mut reasoning, mut answer) = (String::new(), String::new());
        for event in events {
            match event {
                ReasoningEvent::Reasoning(text) => reasoning.push_str(&text),
                ReasoningEvent::Answer(text) => answer.push_str(&text),
            }
        }
        prop_assert_eq!((reasoning, answer), split_reasoning(&text));
    }

    #[test]
    fn written_calls_are_read_back(calls in prop::collection::vec(tool_call(), 1..4)) {
        let text = write_calls(&calls).unwrap();
        let output = tools::parse(&text);
        prop_assert_eq!(output.content, "");
        prop_assert_eq!(output.calls, calls, "{}", text);
    }

    #[test]
    fn any_text_between_markers_is_calls_or_itself(body in ".{0,60}|[\\[\\](){}='\",:a-z0-9 .*-]{0,60}") {
        let text = format!("{START}{body}{END}");
        let output = tools::parse(&text);
        if output.calls.is_empty() {
            prop_assert_eq!(output.content, text);
        } else {
            prop_assert_eq!(output.content, "");
        }
    }
}
