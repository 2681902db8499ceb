//! Short programs to copy, in `examples/`: `cargo run --release -p lfm2-examples --example text`.
//!
//! | example | shows |
//! |---|---|
//! | `text` | continuing a text, with options and speed |
//! | `chat` | a conversation that is streamed |
//! | `batch` | several texts written together |
//! | `tools` | a model that calls a function of the program |
//! | `semantic_search` | files that are searched by meaning |
//! | `rerank` | candidates found by words, sorted by meaning |
//! | `tool_selection` | the few tools that a question is about |
//! | `describe` | a picture in words, and what that takes |
//! | `screenshot` | several questions about one picture, within a budget |
//! | `compare` | two pictures, and boxes around what changed |
//! | `transcribe` | a sound file of any length as text, with times |
//! | `speak` | a text as sound |
//! | `converse` | a conversation in speech, turn by turn |
//! | `dimensions` | which dimension of an embedding says what, layer by layer |
//! | `logits` | the network without any text around it |
//! | `experiments` | the trainer as a library: six questions on methods of training, see `docs/experiments.md` |
//! | `download` | files from the Hub, with progress (`--features download`) |
