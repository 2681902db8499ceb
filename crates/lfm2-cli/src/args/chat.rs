use clap::Args;

use super::{ModelArgs, PictureArgs, SamplingArgs, SpeculationArgs};

const EXAMPLES: &str = "\
Ctrl-C stops an answer; at the prompt, Ctrl-C twice or Ctrl-D ends the conversation. A line that
ends with \\ goes on in the next one. When stdin is no terminal, every line is one question and
only the answers are written to stdout.

Commands at the prompt:
  /help            list the commands          /save FILE    write the conversation as JSON
  /clear           forget the conversation    /load FILE    go on from such a file
  /undo            take back the last turn    /stats        tokens and speed
  /system TEXT     set the instructions       /exit         end
  /image PATH      show a picture, an animation or a folder with the next question

Examples:
  lfm2 chat
  lfm2 chat -m LiquidAI/LFM2-1.2B --system \"Answer in one sentence.\"
  lfm2 chat -m LiquidAI/LFM2-VL-450M                       ... then: /image cat.jpg
  lfm2 chat -m LiquidAI/LFM2-2.6B --draft-model LiquidAI/LFM2-350M
  printf 'Hello!\\nAnd now in French.\\n' | lfm2 chat -m model.gguf";

/// Talk with a model
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    /// Instructions for the model
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Take special tokens in what you write as plain text
    #[arg(long)]
    pub(crate) literal_user_text: bool,
    /// Report times after every answer
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) pictures: PictureArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) speculation: SpeculationArgs,
}
