//! stand-in
use std::ops::Range;
#[derive(Debug, Clone, serde::Deserialize, PartialEq, Eq, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Role { System, User, Assistant, Tool }
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Message { pub role: Role, pub content: String }
impl Message {
    pub fn user(c: impl Into<String>) -> Self { Self { role: Role::User, content: c.into() } }
    pub fn assistant(c: impl Into<String>) -> Self { Self { role: Role::Assistant, content: c.into() } }
}
#[derive(Debug)]
pub struct Rendered { pub text: String, pub generation_spans: Vec<Range<usize>> }
#[derive(Debug, Clone)]
pub struct ChatTemplate;
impl ChatTemplate {
    pub fn new(_: &str) -> crate::Result<Self> { Ok(Self) }
    pub fn render(&self, messages: &[Message], prompt: bool) -> crate::Result<Rendered> {
        let mut r = Rendered { text: "<|startoftext|>".into(), generation_spans: vec![] };
        for m in messages {
            let role = match m.role { Role::System => "system", Role::User => "user", Role::Assistant => "assistant", Role::Tool => "tool" };
            r.text += &format!("<|im_start|>{role}\n");
            let s = r.text.len();
            r.text += &m.content; r.text += "<|im_end|>";
            if m.role == Role::Assistant { r.generation_spans.push(s..r.text.len()); }
            r.text += "\n";
        }
        if prompt { r.text += "<|im_start|>assistant\n"; }
        Ok(r)
    }
}
