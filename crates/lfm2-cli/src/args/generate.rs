use clap::Args;

use super::{ModelArgs, SamplingArgs, SpeculationArgs};

const EXAMPLES: &str = "\
The prompt is continued as plain text: what a story or a base model wants. With --chat it is put
into the model's chat template as a question: what an instruction-tuned model wants.

Examples:
  lfm2 generate \"Once upon a time\"
  lfm2 generate \"Once upon a time\" --seed 7 -n 60 --echo
  lfm2 generate --chat -m LiquidAI/LFM2-350M \"What is a short convolution?\"
  lfm2 generate --speculate lookup -m model.gguf - < program.rs
  cat question.txt | lfm2 generate --chat -m model.gguf --json - | jq -r .text";

/// Continue a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// The text to continue, or - to read it from stdin
    pub(crate) prompt: String,
    /// Words of a prompt that was not put in quotes, only to say so.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    /// Ask the prompt as a question, through the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
    /// Instructions before the question
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    /// Take special tokens in the question as plain text
    #[arg(long, requires = "chat")]
    pub(crate) literal_user_text: bool,
    /// Write the prompt before its continuation
    #[arg(long, conflicts_with_all = ["chat", "json"])]
    pub(crate) echo: bool,
    /// Write one JSON object at the end instead of streaming text
    #[arg(long)]
    pub(crate) json: bool,
    /// Report times on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) speculation: SpeculationArgs,
}
